package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// quickReload keeps a reload's waits short.
var quickReload = []string{"reload.bake=100ms", "reload.trial=100ms"}

// reloadable starts a service with models of the test's own, an admin socket, and a
// configuration file.
func reloadable(t *testing.T, o testkit.Options) (s *testkit.Service, admin string) {
	t.Helper()
	if o.Admin == "" {
		o.Admin = filepath.Join(t.TempDir(), "admin.sock")
	}
	o.Set = append(append([]string{}, quickReload...), o.Set...)
	return testkit.Start(t, o), o.Admin
}

// command runs preforkd with an admin socket.
func command(t *testing.T, socket string, args ...string) (out string, status int) {
	t.Helper()
	return run(t, filepath.Join(testkit.Programs(t), "preforkd"), append(args, "--admin", socket)...)
}

func status1(t *testing.T, socket string) admin.Status {
	t.Helper()
	out, code := command(t, socket, "status", "--json")
	var st admin.Status
	if err := json.Unmarshal([]byte(out), &st); err != nil || code != 0 {
		t.Fatalf("status %d, %v: %s", code, err, out)
	}
	return st
}

func TestReloadReplacesModelAndWorkers(t *testing.T) {
	models := copyModels(t)
	s, socket := reloadable(t, testkit.Options{Models: models})
	before := s.Workers()
	if err := os.CopyFS(filepath.Join(models, "digits/2"), os.DirFS(filepath.Join(models, "digits/1"))); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(models, "digits-cnn")); err != nil {
		t.Fatal(err)
	}
	out, code := command(t, socket, "reload")
	if code != 0 || !strings.Contains(out, "generation 2 serves") {
		t.Fatalf("%d: %s", code, out)
	}
	for _, want := range []string{"model digits: version 1 -> 2", "model digits-cnn: removed", "canary: ", "trial: ", "drain: "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if got, body := get(t, s.URL+"/v2/models/digits/versions/2/ready"); got != 200 {
		t.Errorf("%d: %s", got, body)
	}
	if got, _ := get(t, s.URL+"/v2/models/digits-cnn/ready"); got != 404 {
		t.Errorf("a removed model answers %d", got)
	}
	for _, pid := range s.Workers() {
		for _, old := range before {
			if pid == old {
				t.Errorf("worker %d is still there", pid)
			}
		}
	}
	st := status1(t, socket)
	if st.Generation != 2 || st.LastReload == nil || st.LastReload.Outcome != "committed" || len(st.Pools[0].Slots) != 2 {
		t.Errorf("%+v", st)
	}
}

// TestBadReloads: each leaves the old generation serving, with the reason and a status
// of its own.
func TestBadReloads(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, models, config string)
		exit  int
		words []string
	}{
		{"truncated model", func(t *testing.T, models, _ string) {
			if err := os.Truncate(filepath.Join(models, "digits/1/model.onnx"), 1000); err != nil {
				t.Fatal(err)
			}
		}, ipc.ExitRolledBack, []string{"digits/1/model.onnx", "rolled back"}},
		{"unknown key", func(t *testing.T, _, config string) {
			write(t, config, "wrokers: 2\n")
		}, ipc.ExitConfig, []string{"preforkd.yaml:1:1", "did you mean workers"}},
		{"half-written config", func(t *testing.T, _, config string) {
			write(t, config, "timeouts:\n  drain: 3")
		}, ipc.ExitConfig, []string{"timeouts.drain"}},
		{"config deleted", func(t *testing.T, _, config string) {
			if err := os.Remove(config); err != nil {
				t.Fatal(err)
			}
		}, ipc.ExitConfig, []string{"preforkd.yaml", "no such file"}},
		{"wrong answer", func(t *testing.T, models, _ string) {
			write(t, filepath.Join(models, "digits/warmup.json"), `[{"request":`+string(slowBody(t, 1))+`,"outputs":{"label":[-1]}}]`)
		}, ipc.ExitRolledBack, []string{"self-test of model digits", "expected is -1"}},
		{"bad warm-up", func(t *testing.T, models, _ string) {
			write(t, filepath.Join(models, "digits/warmup.json"), `[{"reqest":{}}]`)
		}, ipc.ExitConfig, []string{"warmup.json", "reqest"}},
		{"no model left", func(t *testing.T, models, _ string) {
			for _, m := range []string{"digits", "digits-cnn", "digits-forest", "digits-gbdt", "digits-int8"} {
				if err := os.RemoveAll(filepath.Join(models, m)); err != nil {
					t.Fatal(err)
				}
			}
		}, ipc.ExitConfig, []string{"holds no model"}},
		{"worker that exits", func(t *testing.T, _, config string) {
			write(t, config, "worker: {command: ["+program(t, "#!/bin/sh\necho the reason; exit 7\n")+"]}\n")
		}, ipc.ExitRolledBack, []string{"exit status 7", "the reason"}},
		{"worker that is never ready", func(t *testing.T, _, config string) {
			write(t, config, "timeouts: {boot: 300ms}\nworker: {command: ["+program(t, "#!/bin/sh\nexec sleep 1000\n")+"]}\n")
		}, ipc.ExitRolledBack, []string{"timeouts.boot"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			models := copyModels(t)
			o := testkit.Options{Models: models, Config: "log: {level: info}\n"}
			s, socket := reloadable(t, o)
			before := s.Workers()
			c.spoil(t, models, s.Config)
			out, code := command(t, socket, "reload")
			if code != c.exit {
				t.Errorf("exit status %d, want %d", code, c.exit)
			}
			for _, w := range c.words {
				if !strings.Contains(out, w) {
					t.Errorf("%q is not in\n%s", w, out)
				}
			}
			if err := testkit.Await(func() bool { return fmt.Sprint(s.Workers()) == fmt.Sprint(before) }); err != nil {
				t.Errorf("workers were %v and are %v", before, s.Workers())
			}
			if got, body := post(t, s.URL+"/predict/digits", body(sample)); got != 200 {
				t.Errorf("%d: %s", got, body)
			}
			if st := status1(t, socket); st.Generation != 1 || st.LastReload == nil || st.LastReload.Outcome != "rolled back" {
				t.Errorf("%+v", st.LastReload)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// body returns what follows a request's header.
func body(request []byte) string {
	_, b, _ := strings.Cut(string(request), "\r\n\r\n")
	return b
}

func TestDryRunChangesNothing(t *testing.T) {
	models := copyModels(t)
	s, socket := reloadable(t, testkit.Options{Models: models})
	before := fmt.Sprint(s.Workers())
	if err := os.CopyFS(filepath.Join(models, "digits/2"), os.DirFS(filepath.Join(models, "digits/1"))); err != nil {
		t.Fatal(err)
	}
	out, code := command(t, socket, "reload", "--dry-run")
	if code != 0 || !strings.Contains(out, "model digits: version 1 -> 2") || !strings.Contains(out, "nothing was changed") {
		t.Errorf("%d: %s", code, out)
	}
	if got := fmt.Sprint(s.Workers()); got != before {
		t.Errorf("workers were %s and are %s", before, got)
	}
}

// TestManyHangups sends twenty at once: they are one or two reloads.
func TestManyHangups(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{})
	for range 20 {
		s.Signal(syscall.SIGHUP)
	}
	if err := testkit.Await(func() bool {
		st := status1(t, socket)
		return st.LastReload != nil && len(st.Pools[0].Slots) == 2
	}); err != nil {
		t.Fatal(err)
	}
	out, code := command(t, socket, "reload", "--json") // waits behind the one that may be queued
	var result admin.ReloadResult
	if err := json.Unmarshal([]byte(out), &result); err != nil || code != 0 {
		t.Fatalf("%d, %v: %s", code, err, out)
	}
	if result.Generation > 6 {
		t.Errorf("twenty signals made %d generations", result.Generation)
	}
}

// reloadUnderWay starts the command, and returns when it has said that something happens.
func reloadUnderWay(t *testing.T, socket string) *exec.Cmd {
	t.Helper()
	reload := exec.Command(filepath.Join(testkit.Programs(t), "preforkd"), "reload", "--admin", socket)
	progress, err := reload.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := reload.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := progress.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return reload
}

func TestSecondReload(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Set: []string{"reload.bake=1s"}})
	follow := reloadUnderWay(t, socket)
	if out, code := command(t, socket, "reload", "--no-wait"); code != ipc.ExitTryAgain {
		t.Errorf("%d: %s", code, out)
	}
	if out, code := command(t, socket, "reload"); code != 0 || !strings.Contains(out, "generation 3 serves") {
		t.Errorf("%d: %s", code, out)
	}
	if err := follow.Wait(); err != nil {
		t.Error(err)
	}
	_ = s
}

func TestStopDuringReload(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Set: []string{"reload.bake=1h"}})
	reload := exec.Command(filepath.Join(testkit.Programs(t), "preforkd"), "reload", "--admin", socket)
	progress, err := reload.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := reload.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := progress.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if out, code := command(t, socket, "stop"); code != 0 {
		t.Errorf("%d: %s", code, out)
	}
	if code := s.Wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if err := reload.Wait(); exitStatus(err) != "69" {
		t.Errorf("the reload ended with %v", err)
	}
}

// TestPoolSizeAndListenersChange: what stays is not closed.
func TestPoolSizeAndListenersChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	config := func(workers int, listen string) string {
		return fmt.Sprintf("workers: %d\nlisten: [%s]\n", workers, listen)
	}
	o := testkit.Options{Config: config(1, `"127.0.0.1:0"`), Bare: true}
	s, socket := reloadable(t, o)
	if got := len(s.Workers()); got != 1 {
		t.Fatalf("%d workers", got)
	}
	write(t, s.Config, config(3, `"127.0.0.1:0", "unix:`+path+`"`))
	if out, code := command(t, socket, "reload"); code != 0 || !strings.Contains(out, "workers: 1 -> 3") {
		t.Fatalf("%d: %s", code, out)
	}
	if got := len(s.Workers()); got != 3 {
		t.Errorf("%d workers", got)
	}
	if st := status1(t, socket); len(st.Listen) != 2 || "http://"+st.Listen[0] != s.URL {
		t.Errorf("listens on %v, before on %s", st.Listen, s.URL)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	write(t, s.Config, config(1, `"127.0.0.1:0"`))
	if out, code := command(t, socket, "reload"); code != 0 {
		t.Fatalf("%d: %s", code, out)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket that was removed is still there")
	}
	if got, text := get(t, s.URL+"/readyz"); got != 200 {
		t.Errorf("%d: %s", got, text)
	}
}

func TestCommandsWithoutService(t *testing.T) {
	for _, args := range [][]string{{"reload"}, {"status"}, {"stop"}, {"events"}} {
		if out, code := command(t, filepath.Join(t.TempDir(), "none"), args...); code != ipc.ExitUnavailable || !strings.Contains(out, "try:") {
			t.Errorf("%v: %d: %s", args, code, out)
		}
	}
}

// TestReloadOfTheLog: the level changes at the commit; what holds from the start says so, in
// every reload.
func TestReloadOfTheLog(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Config: "log: {level: info}\n"})
	write(t, s.Config, "log: {level: debug, format: json}\n")
	if out, code := command(t, socket, "reload", "--dry-run"); code != 0 || !strings.Contains(out, "log.level: info -> debug\n") {
		t.Errorf("%d: %s", code, out)
	}
	if text := s.LogText(); strings.Contains(text, "level=DEBUG") {
		t.Errorf("a rehearsal changed the level:\n%s", text)
	}
	for range 2 {
		if out, code := command(t, socket, "reload"); code != 0 || !strings.Contains(out, "log.format: text -> json (takes effect at the next start)\n") {
			t.Errorf("%d: %s", code, out)
		}
	}
	if text := s.LogText(); !strings.Contains(text, "level=DEBUG msg=reload action=") {
		t.Errorf("%s", text)
	}
}
