package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/testkit"
	"preforkd/internal/testkit/digits"
)

// tolerance between scikit-learn's double precision and the graphs' single.
const tolerance = 1e-4

// TestDigitsEqualScikitLearn asks for all samples in one request per model, over HTTP.
func TestDigitsEqualScikitLearn(t *testing.T) {
	set := digits.Load(t)
	s := testkit.Start(t, testkit.Options{})
	for _, name := range digits.Names {
		t.Run(name, func(t *testing.T) {
			status, body := post(t, s.URL+"/v2/models/"+name+"/infer", inferBody(t, set))
			if status != 200 {
				t.Fatalf("%d: %s", status, body)
			}
			var answer struct {
				Model   string `json:"model_name"`
				Version string `json:"model_version"`
				Outputs []struct {
					Name     string      `json:"name"`
					Datatype string      `json:"datatype"`
					Shape    []int64     `json:"shape"`
					Data     json.Number `json:"-"`
					Raw      []float64   `json:"data"`
				} `json:"outputs"`
			}
			if err := json.Unmarshal([]byte(body), &answer); err != nil {
				t.Fatal(err)
			}
			if answer.Model != name || answer.Version != "1" || len(answer.Outputs) != 2 {
				t.Fatalf("%s %s, %d outputs", answer.Model, answer.Version, len(answer.Outputs))
			}
			want := set.Answers[name]
			for _, out := range answer.Outputs {
				switch out.Name {
				case "label":
					for i, got := range out.Raw {
						if int64(got) != want.Labels[i] {
							t.Errorf("sample %d: %v, scikit-learn says %d", i, got, want.Labels[i])
						}
					}
				case "probabilities":
					for i, got := range out.Raw {
						if math.Abs(got-float64(want.Probabilities[i/digits.Classes][i%digits.Classes])) > tolerance {
							t.Errorf("sample %d, class %d: %v, scikit-learn says %v", i/digits.Classes, i%digits.Classes, got, want.Probabilities[i/digits.Classes][i%digits.Classes])
						}
					}
				default:
					t.Errorf("output %q", out.Name)
				}
			}
		})
	}
}

func inferBody(t *testing.T, set digits.Set) string {
	t.Helper()
	data, err := json.Marshal(set.Pixels)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"inputs":[{"name":"pixels","datatype":"FP32","shape":[%d,64],"data":%s}]}`, len(set.Pixels), data)
}

// TestPredictSingly asks for each sample by itself, so that every worker answers.
func TestPredictSingly(t *testing.T) {
	set := digits.Load(t)
	s := testkit.Start(t, testkit.Options{Set: []string{"predict.model=digits"}})
	for i, pixels := range set.Pixels {
		features, err := json.Marshal(pixels)
		if err != nil {
			t.Fatal(err)
		}
		status, body := post(t, s.URL+"/predict", `{"features":`+string(features)+`}`)
		var answer struct {
			Prediction    int64     `json:"prediction"`
			Probabilities []float64 `json:"probabilities"`
			Model         string    `json:"model"`
			Version       string    `json:"version"`
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 {
			t.Fatalf("%d, %v: %s", status, err, body)
		}
		if answer.Prediction != set.Answers["digits"].Labels[i] || len(answer.Probabilities) != 10 || answer.Model != "digits" || answer.Version != "1" {
			t.Errorf("sample %d: %s", i, body)
		}
	}
}

// TestReadyLineWorksAsPasted runs the command that the service prints.
func TestReadyLineWorksAsPasted(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("skipped: curl is not installed")
	}
	path := filepath.Join(t.TempDir(), "s")
	for _, listen := range []string{"127.0.0.1:0", "[::]:0", "unix:" + path} {
		s := testkit.Start(t, testkit.Options{Listen: []string{listen}, Set: []string{"predict.model=digits"}})
		command := s.Line()
		out, err := exec.Command("sh", "-c", strings.TrimPrefix(command, "try: ")).CombinedOutput()
		if err != nil || !strings.Contains(string(out), `"prediction":`) {
			t.Errorf("%s\n%v: %s", command, err, out)
		}
		s.Signal(syscall.SIGTERM)
		if status := s.Wait(); status != 0 {
			t.Errorf("exit status %d", status)
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the unix socket is left behind")
	}
}

func TestUnixSocketModeAndTakeover(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	o := testkit.Options{Listen: []string{"unix:" + path + "?mode=0660"}}
	first := testkit.Start(t, o)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", st, err)
	}
	refuses(t, o, 69, path, "in use") // a live one is refused
	pids := append([]int{first.Main, first.PID}, first.Workers()...)
	for _, pid := range pids { // which leaves the file behind: nobody is left who could remove it
		kill(t, pid, syscall.SIGKILL)
	}
	first.Wait()
	for _, pid := range pids {
		testkit.Gone(t, pid)
	}
	second := testkit.Start(t, o)
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://localhost/readyz")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	_ = second
}

// TestSocketActivation starts the service with an inherited socket, as systemd would.
func TestSocketActivation(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	for _, l := range []net.Listener{unknown, ln} {
		file, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		files = append(files, file)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	inner := testkit.Options{Listen: []string{"fd:web"}}.Command(t)
	// LISTEN_PID must be the service's own: a shell execs it with its own pid.
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, inner.Args...)...)
	cmd.Env = append(inner.Env, "LISTEN_FDS=3", "LISTEN_FDNAMES=spare:junk:web")
	cmd.ExtraFiles = []*os.File{files[0], null, files[1]}
	s := testkit.LaunchCommand(t, cmd)
	s.Await("READY=1")
	if status, body := get(t, "http://"+ln.Addr().String()+"/v2"); status != 200 {
		t.Errorf("%d: %s", status, body)
	}
	ln.Close()
	// What no setting names is named, and closed.
	unknown.Close()
	files[0].Close()
	if testkit.Await(func() bool { _, err := net.Dial("tcp", unknown.Addr().String()); return err != nil }) != nil {
		t.Error("a socket that nobody wants is held")
	}
	for _, name := range []string{"spare", "junk"} {
		if !strings.Contains(s.LogText(), "name="+name) {
			t.Errorf("not named: %s", name)
		}
	}
}

// TestModelFileMayChange overwrites and removes what a service runs, then makes it
// start another worker.
func TestModelFileMayChange(t *testing.T) {
	models := copyModels(t)
	s := testkit.Start(t, testkit.Options{Models: models, Workers: 1, Set: []string{"predict.model=digits"}})
	if err := os.WriteFile(filepath.Join(models, "digits/1/model.onnx"), []byte("garbage"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(models, "digits-cnn")); err != nil {
		t.Fatal(err)
	}
	n := s.Reports()
	kill(t, s.Workers()[0], syscall.SIGKILL)
	n = s.AwaitAfter(n, "STATUS=0 of 1 workers ready")
	s.AwaitAfter(n, "STATUS=1 of 1 workers ready")
	for _, m := range []string{"digits", "digits-cnn"} {
		if status, body := get(t, s.URL+"/v2/models/"+m+"/ready"); status != 200 {
			t.Errorf("%s: %d %s", m, status, body)
		}
	}
}

func TestLogFileIsReopened(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	s := testkit.Start(t, testkit.Options{Set: []string{"log.file=" + file, "log.format=json"}})
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	s.Signal(syscall.SIGUSR1)
	if err := testkit.Await(func() bool { _, err := os.Stat(file); return err == nil }); err != nil {
		t.Fatal(err)
	}
	s.Signal(syscall.SIGTERM)
	s.Wait()
	old, err := os.ReadFile(file + ".1")
	if err != nil || !strings.Contains(string(old), `"msg":"worker ready"`) {
		t.Errorf("%v: %s", err, old)
	}
	data, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(data), `"msg":"stopped"`) {
		t.Errorf("%v: %s", err, data)
	}
	for line := range strings.Lines(string(data)) {
		if !json.Valid([]byte(line)) {
			t.Errorf("%s", line)
		}
	}
}
