package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/testkit"
)

// with asks with a token, on a connection of its own, and returns status and challenge.
func with(t *testing.T, method, url, token, body string) (status int, challenge string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := fresh.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header.Get("WWW-Authenticate")
}

const (
	oldToken     = "old-0123456789abcdef0123456789"
	newToken     = "new-0123456789abcdef0123456789"
	controlToken = "control-0123456789abcdef012345"
)

// tokenFiles returns a configuration with files of tokens for two classes, and their paths.
func tokenFiles(t *testing.T) (config, infer, control string) {
	t.Helper()
	dir := t.TempDir()
	infer, control = filepath.Join(dir, "infer"), filepath.Join(dir, "control")
	secretFile(t, infer, "# of clients\n"+oldToken+"\n")
	secretFile(t, control, controlToken+"\n")
	return fmt.Sprintf("predict: {model: digits}\nauth: {infer: %s, control: %s}\n", infer, control), infer, control
}

// TestTokensOfAService: asked for by class, changed by reloads, taken back by a rollback, kept
// when the supervisor dies, and seen nowhere.
func TestTokensOfAService(t *testing.T) {
	config, infer, _ := tokenFiles(t)
	s, socket := reloadable(t, testkit.Options{Config: config})
	expect := func(when string, old, next int) {
		t.Helper()
		for token, want := range map[string]int{oldToken: old, newToken: next, controlToken: 403, "": 401} {
			if got, _ := with(t, "POST", s.URL+"/predict", token, body(sample)); got != want {
				t.Errorf("%s: %q is answered %d, want %d", when, token, got, want)
			}
		}
		for url, want := range map[string]int{"/livez": 200, "/readyz": 200, "/ping": 200, "/v2/health/ready": 200, "/docs": 200, "/v2": 401, "/nothing": 404} {
			if got, _ := with(t, "GET", s.URL+url, "", ""); got != want {
				t.Errorf("%s: %s is answered %d, want %d", when, url, got, want)
			}
		}
		if got, challenge := with(t, "POST", s.URL+"/v2/repository/index", oldToken, ""); got == 200 || !strings.HasPrefix(challenge, "Bearer realm=") {
			t.Errorf("%s: the index is answered %d, %s", when, got, challenge)
		}
		if got, _ := with(t, "POST", s.URL+"/v2/repository/index", controlToken, ""); got != 200 {
			t.Errorf("%s: the index is answered %d", when, got)
		}
	}
	expect("at first", 200, 401)
	secretFile(t, infer, oldToken+"\n"+newToken+"\n")
	must(t, socket, []string{"reload"}, "auth.infer: other tokens, 1 -> 2")
	expect("with both", 200, 200)
	secretFile(t, infer, newToken+"\n")
	must(t, socket, []string{"reload"}, "auth.infer: other tokens, 2 -> 1")
	expect("with the new one", 401, 200)
	for text, want := range map[string]string{"": "is empty", "short": "has 5 characters", oldToken + " x": "has characters that no token has"} {
		secretFile(t, infer, text)
		ends(t, socket, []string{"reload"}, ipc.ExitConfig, "auth.infer: "+infer+": ", want)
	}
	secretFile(t, infer, oldToken)
	if err := os.Chmod(infer, 0o644); err != nil {
		t.Fatal(err)
	}
	ends(t, socket, []string{"reload"}, ipc.ExitConfig, "auth.infer: "+infer+": has mode 0644")
	if err := os.Remove(infer); err != nil {
		t.Fatal(err)
	}
	ends(t, socket, []string{"reload"}, ipc.ExitConfig, "auth.infer: "+infer+": no such file")
	expect("after bad reloads", 401, 200)
	killSupervisor(t, s, socket)
	expect("after the supervisor's death", 401, 200)
	must(t, socket, []string{"rollback"}, "serves")
	expect("after a rollback", 200, 200)
	nowhere(t, s, oldToken, newToken, controlToken)
}

// nowhere fails if a secret is in the log, in the arguments or in the environment of a process, or in
// what commands print.
func nowhere(t *testing.T, s *testkit.Service, secrets ...string) {
	t.Helper()
	printed, _ := run(t, filepath.Join(testkit.Programs(t), "preforkd"), "config", "print", "-c", s.Config)
	places := map[string]string{"the log": s.LogText(), "config print": printed}
	for _, pid := range append(s.Workers(), s.Main, s.Supervisor()) {
		for _, name := range []string{"cmdline", "environ"} {
			data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
			if err != nil {
				t.Error(err)
			}
			places[fmt.Sprintf("%s of %d", name, pid)] = string(data)
		}
	}
	for place, text := range places {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s has a token", place)
			}
		}
	}
	if err := testkit.Await(func() bool { return strings.Contains(s.LogText(), "request denied") }); err != nil {
		t.Error("the log does not tell of refused requests")
	}
}

// TestTokensRefusedAtStart: with the file, the reason and the status.
func TestTokensRefusedAtStart(t *testing.T) {
	config, infer, _ := tokenFiles(t)
	refused := func(status int, want string) {
		t.Helper()
		s := testkit.Launch(t, testkit.Options{Config: config})
		if got := s.Wait(); got != status || !strings.Contains(s.LogText(), "auth.infer: "+infer+": ") || !strings.Contains(s.LogText(), want) {
			t.Errorf("status %d, want %d and %s: %s", got, status, want, s.LogText())
		}
	}
	if err := os.Chmod(infer, 0o664); err != nil {
		t.Fatal(err)
	}
	refused(ipc.ExitConfig, "chmod 0640")
	if err := os.WriteFile(infer, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(infer, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(ipc.ExitConfig, "is empty")
	if err := os.Remove(infer); err != nil {
		t.Fatal(err)
	}
	refused(ipc.ExitConfig, "no such file")
}

// TestTokensOfSomebodyElse: what the user who starts the service may not read ends the start with
// the status for permission.
func TestTokensOfSomebodyElse(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make a file that it may not read as somebody else")
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("there is no setpriv here: apt-get install util-linux")
	}
	infer := filepath.Join(t.TempDir(), "infer")
	secretFile(t, infer, oldToken)
	for dir := filepath.Dir(infer); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(t.TempDir(), "preforkd")
	data, err := os.ReadFile(filepath.Join(testkit.Programs(t), "preforkd"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(filepath.Dir(program)), 0o755); err != nil {
		t.Fatal(err)
	}
	out, status := run(t, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "config", "check", "--set", "auth.infer="+infer)
	if status != ipc.ExitPermission || !strings.Contains(out, "auth.infer: "+infer+": permission denied") || !strings.Contains(out, "its workers need not") {
		t.Errorf("%d: %s", status, out)
	}
}

// TestOpenDoorIsSaid: at start and by config check, where other machines may connect.
func TestOpenDoorIsSaid(t *testing.T) {
	const want = "other machines may connect, and no token is asked for"
	s := testkit.Start(t, testkit.Options{Listen: []string{"0.0.0.0:0"}})
	if !strings.Contains(s.LogText(), want) {
		t.Error(s.LogText())
	}
	quiet := testkit.Start(t, testkit.Options{})
	if strings.Contains(quiet.LogText(), want) {
		t.Error(quiet.LogText())
	}
	out, status := run(t, filepath.Join(testkit.Programs(t), "preforkd"), "config", "check", "--listen", ":8000")
	if status != 0 || !strings.Contains(out, "warning: :8000: "+want) {
		t.Errorf("%d: %s", status, out)
	}
}
