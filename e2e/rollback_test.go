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
	"preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/testkit"
)

// generations returns what preforkd generations prints, the one that serves first.
func generations(t *testing.T, socket string) (all []admin.Generation) {
	t.Helper()
	out, code := command(t, socket, "generations", "--json")
	if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 {
		t.Fatalf("%d, %v: %s", code, err, out)
	}
	return all
}

// must runs preforkd, which must end with 0 and print each of words.
func must(t *testing.T, socket string, args []string, words ...string) string {
	t.Helper()
	return ends(t, socket, args, 0, words...)
}

// ends runs preforkd, which must end with status and print each of words.
func ends(t *testing.T, socket string, args []string, status int, words ...string) string {
	t.Helper()
	out, code := command(t, socket, args...)
	if code != status {
		t.Fatalf("%v: exit status %d, want %d: %s", args, code, status, out)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("%v: %q is not in\n%s", args, w, out)
		}
	}
	return out
}

// overwrite puts other content at version 1 of digits, in place, as a bad deploy does.
func overwrite(t *testing.T, models, from string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(testkit.Root(t), "models", from, "1/model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(models, "digits/1/model.onnx"), string(data))
}

// digest returns that of a model of the generation in charge.
func digestOf(t *testing.T, socket, name string) string {
	t.Helper()
	for _, m := range status1(t, socket).Models {
		if m.Name == name {
			return m.Digest
		}
	}
	t.Fatalf("there is no model %s", name)
	return ""
}

// TestRollbackNobodyNotices: back and forth under busy keep-alive clients, models and
// size included, although neither configuration nor model directory has them any more.
func TestRollbackNobodyNotices(t *testing.T) {
	const conns = 32
	models := copyModels(t)
	config := func(workers int) string {
		return fmt.Sprintf("workers: %d\nlisten: [\"127.0.0.1:0\"]\npredict: {model: digits}\n", workers)
	}
	s, socket := reloadable(t, testkit.Options{Models: models, Cache: t.TempDir(), Config: config(2), Bare: true})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	first := digestOf(t, socket, "digits")
	write(t, s.Config, config(3))
	overwrite(t, models, "digits-cnn")
	must(t, socket, []string{"reload"}, "workers: 2 -> 3", "model digits: version 1 has other content")
	second := digestOf(t, socket, "digits")
	if first == second {
		t.Fatal("the content is the same")
	}
	for i := range times(3, 30) {
		answers(t, g, 100)
		must(t, socket, []string{"rollback"}, "workers: 3 -> 2", "model digits: version 1 has other content", fmt.Sprintf("generation %d serves", 2*i+3))
		st := status1(t, socket)
		if st.RolledBackTo != uint64(2*i+1) || digestOf(t, socket, "digits") != first || len(s.Workers()) != 2 {
			t.Errorf("runs what %d had, %d workers, %+v", st.RolledBackTo, len(s.Workers()), st.Models)
		}
		answers(t, g, 100)
		must(t, socket, []string{"rollback", fmt.Sprint(2*i + 2)}, "workers: 2 -> 3")
		if digestOf(t, socket, "digits") != second || len(s.Workers()) != 3 {
			t.Errorf("%d workers, %+v", len(s.Workers()), status1(t, socket).Models)
		}
	}
	answers(t, g, 100)
	untouched(t, end(), conns)
	must(t, socket, []string{"reload"}, "serves") // reads the file, as ever
	if st := status1(t, socket); st.RolledBackTo != 0 || st.Pools[0].Size != 3 {
		t.Errorf("%+v", st)
	}
}

// TestGenerationsAreListed: number, cause, what differed; the last three.
func TestGenerationsAreListed(t *testing.T) {
	models := copyModels(t)
	s, socket := reloadable(t, testkit.Options{Models: models, Cache: t.TempDir(), Config: "log: {level: info}\n"})
	ends(t, socket, []string{"rollback"}, ipc.ExitUnavailable, "generation 1 is the only one", "there is none to return to")
	ends(t, socket, []string{"rollback", "7"}, ipc.ExitUsage, "there is no generation 7", "only 1")
	for _, bad := range []string{"0", "one", "-1", "1.5"} {
		ends(t, socket, []string{"rollback", bad}, ipc.ExitUsage, "no number")
	}
	ends(t, socket, []string{"rollback", "1", "2"}, ipc.ExitUsage, "takes one generation")
	s.Signal(syscall.SIGHUP)
	if err := testkit.Await(func() bool { return status1(t, socket).LastReload != nil }); err != nil {
		t.Fatal(err)
	}
	write(t, s.Config, "log: {level: debug}\n")
	must(t, socket, []string{"reload"}, "log.level: info -> debug")
	ends(t, socket, []string{"rollback", "3"}, ipc.ExitUsage, "generation 3 serves already", "try: preforkd rollback 1, or 2")
	must(t, socket, []string{"rollback", "2"}, "log.level: debug -> info", "generation 4 serves")
	all := generations(t, socket)
	if len(all) != 3 {
		t.Fatalf("%+v", all)
	}
	for i, want := range []struct {
		number uint64
		cause  string
		differ string
	}{{4, "rollback to 2", "[log.level: debug -> info]"}, {3, "reload command", "[log.level: info -> debug]"}, {2, "HUP", "[]"}} {
		g := all[i]
		if g.Number != want.number || g.Cause != want.cause || fmt.Sprint(g.Differences) != want.differ || g.Serves != (i == 0) || len(g.Models) != 5 {
			t.Errorf("%+v", g)
		}
	}
	if !all[2].Time.Before(all[1].Time) || !all[1].Time.Before(all[0].Time) {
		t.Errorf("%+v", all)
	}
	must(t, socket, []string{"generations"}, "GENERATION", "rollback to 2", "    log.level: debug -> info\n")
	must(t, socket, []string{"status"}, "runs what generation 2 had, not what the configuration says", "last rollback to generation 2 ")
	ends(t, socket, []string{"rollback", "1"}, ipc.ExitUsage, "there is no generation 1 any more", "there are 2, 3, and 4 serves")
	if st := status1(t, socket); st.LastReload.Outcome != "committed" { // what was refused was none
		t.Errorf("%+v", st.LastReload)
	}
}

// TestRollbackToDeletedPrograms: a generation holds its worker and its library open.
func TestRollbackToDeletedPrograms(t *testing.T) {
	const conns = 16
	dir := t.TempDir()
	install(t, dir)
	worker, library := filepath.Join(dir, "preforkd-worker"), filepath.Join(dir, "libonnxruntime.so.1")
	s, socket := reloadable(t, testkit.Options{Config: "worker: {command: [" + worker + "]}\ninference: {library: " + library + "}\n"})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	write(t, s.Config, "log: {level: info}\n")
	must(t, socket, []string{"reload"}, "worker.command: ")
	for _, f := range []string{worker, library} {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	answers(t, g, 100)
	must(t, socket, []string{"rollback"}, "generation 3 serves")
	for _, pid := range s.Workers() {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || exe != worker+" (deleted)" {
			t.Errorf("worker %d runs %s, %v", pid, exe, err)
		}
	}
	answers(t, g, 100)
	untouched(t, end(), conns)
	// It is a whole generation: a worker that crashes comes back from the same file.
	n := s.Reports()
	kill(t, s.Workers()[0], syscall.SIGKILL)
	n = s.AwaitAfter(n, "STATUS=1 of 2 workers ready")
	s.AwaitAfter(n, "STATUS=2 of 2 workers ready")
	must(t, socket, []string{"rollback"}, "generation 4 serves")
	must(t, socket, []string{"rollback", "3"}, "generation 5 serves")
}

// TestRollbackWithoutModelFiles: the refusal names what is missing, and what ran serves on.
func TestRollbackWithoutModelFiles(t *testing.T) {
	const conns = 16
	models, cache := copyModels(t), t.TempDir()
	s, socket := reloadable(t, testkit.Options{Models: models, Cache: cache})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	digest := digestOf(t, socket, "digits")
	overwrite(t, models, "digits-cnn")
	must(t, socket, []string{"reload"}, "other content")
	before := fmt.Sprint(s.Workers())
	gone := filepath.Join(cache, "models", digest, "model.onnx")
	data, err := os.ReadFile(gone)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	ends(t, socket, []string{"rollback"}, ipc.ExitUnavailable, "rollback to generation 1: ", "model digits, version 1: ", gone+": no such file")
	write(t, gone, string(data[1:]))
	ends(t, socket, []string{"rollback", "1"}, ipc.ExitUnavailable, "model digits, version 1: ", "has other content")
	answers(t, g, 100)
	if got := fmt.Sprint(s.Workers()); got != before {
		t.Errorf("workers were %s and are %s", before, got)
	}
	write(t, gone, string(data)) // as the refusal says
	must(t, socket, []string{"rollback"}, "serves")
	untouched(t, end(), conns)
}

// TestModelFilesAreKeptAsLongAsNeeded counts the copies in the cache.
func TestModelFilesAreKeptAsLongAsNeeded(t *testing.T) {
	models, cache := copyModels(t), t.TempDir()
	for _, m := range []string{"digits-cnn", "digits-forest", "digits-gbdt", "digits-int8"} {
		if err := os.RemoveAll(filepath.Join(models, m)); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(want int) {
		t.Helper()
		var names []string
		if testkit.Await(func() bool { // it is swept beside what goes on
			names = nil
			list, _ := os.ReadDir(filepath.Join(cache, "models"))
			for _, e := range list {
				names = append(names, e.Name())
			}
			return len(names) == want
		}) != nil {
			t.Fatalf("the cache holds %q, want %d", names, want)
		}
	}
	stale := filepath.Join(cache, "models", strings.Repeat("0", 64)) // of a service that is gone
	if err := os.MkdirAll(stale, 0o755); err != nil {
		t.Fatal(err)
	}
	s, socket := reloadable(t, testkit.Options{Models: models, Cache: cache})
	holds(1)
	note := filepath.Join(models, "digits/1/note")
	for i := range 4 {
		write(t, note, fmt.Sprint(i))
		must(t, socket, []string{"reload"}, "other content")
		holds(min(i+2, 3))
	}
	write(t, note, "a rehearsal")
	must(t, socket, []string{"reload", "--dry-run"}, "other content")
	holds(3)
	write(t, filepath.Join(models, "digits/1/model.onnx"), "no model")
	ends(t, socket, []string{"reload"}, ipc.ExitRolledBack)
	holds(3)
	other, second := reloadable(t, testkit.Options{Cache: cache, Set: []string{"predict.model=digits"}}) // with five models of its own
	holds(8)
	must(t, socket, []string{"rollback"}, "serves") // 5 as 4: 3, 4, 5
	must(t, socket, []string{"rollback", "4"}, "serves")
	must(t, socket, []string{"rollback", "5"}, "serves")
	must(t, second, []string{"reload"}, "serves")
	if got := generations(t, socket); len(got) != 3 || got[0].Models[0].Digest != digestOf(t, socket, "digits") {
		t.Errorf("%+v", got)
	}
	_, _ = s, other
}

// TestRollbackOpensSockets: one that was removed since listens again; where somebody else
// has it by now, the refusal names it.
func TestRollbackOpensSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	config := func(listen string) string { return "workers: 1\nlisten: [\"127.0.0.1:0\"" + listen + "]\n" }
	s, socket := reloadable(t, testkit.Options{Config: config(`, "unix:` + path + `"`), Bare: true})
	write(t, s.Config, config(""))
	must(t, socket, []string{"reload"}, "listen: ")
	if _, err := os.Stat(path); err == nil {
		t.Fatal("the socket that was removed is still there")
	}
	thief, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ends(t, socket, []string{"rollback"}, ipc.ExitUnavailable, "rollback to generation 1: ", path)
	if got, text := get(t, s.URL+"/readyz"); got != 200 {
		t.Errorf("%d: %s", got, text)
	}
	thief.Close()
	must(t, socket, []string{"rollback"}, "serves")
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if st := status1(t, socket); len(st.Listen) != 2 || "http://"+st.Listen[0] != s.URL {
		t.Errorf("listens on %v, before on %s", st.Listen, s.URL)
	}
}

// TestRollbackWhoseCanaryFails: what the old configuration needed is no longer there.
func TestRollbackWhoseCanaryFails(t *testing.T) {
	const conns = 16
	needed := filepath.Join(t.TempDir(), "needed")
	write(t, needed, "")
	worker := filepath.Join(testkit.Programs(t), "preforkd-worker")
	script := program(t, "#!/bin/sh\n[ -e "+needed+" ] || { echo the reason; exit 7; }\nexec "+worker+"\n")
	s, socket := reloadable(t, testkit.Options{Config: "worker: {kind: preforkd, command: [" + script + "]}\n"})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	write(t, s.Config, "log: {level: info}\n")
	must(t, socket, []string{"reload"}, "worker.command: ")
	before := fmt.Sprint(s.Workers())
	if err := os.Remove(needed); err != nil {
		t.Fatal(err)
	}
	ends(t, socket, []string{"rollback"}, ipc.ExitRolledBack, "rollback to generation 1 taken back: ", "exit status 7", "the reason", "generation 2 serves")
	answers(t, g, 100)
	if got := fmt.Sprint(s.Workers()); got != before {
		t.Errorf("workers were %s and are %s", before, got)
	}
	if st := status1(t, socket); st.Generation != 2 || st.RolledBackTo != 0 || st.LastReload.Outcome != "rolled back" || st.LastReload.RollbackTo != 1 || len(generations(t, socket)) != 2 {
		t.Errorf("%+v", st)
	}
	if err := os.Remove(script); err != nil { // held by its name only
		t.Fatal(err)
	}
	ends(t, socket, []string{"rollback"}, ipc.ExitUnavailable, script+": no such file")
	untouched(t, end(), conns)
}

// TestRollbackDuringReload: it waits for the end of the reload, and means the generation
// before that one's; two that ask share one.
func TestRollbackDuringReload(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Config: "log: {level: info}\n", Set: []string{"reload.bake=1s"}})
	write(t, s.Config, "log: {level: debug}\n")
	begin := func(args ...string) *exec.Cmd {
		t.Helper()
		cmd := exec.Command(filepath.Join(testkit.Programs(t), "preforkd"), append(args, "--admin", socket)...)
		progress, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if args[0] == "reload" {
			if _, err := progress.Read(make([]byte, 1)); err != nil { // it is under way
				t.Fatal(err)
			}
		}
		return cmd
	}
	reload := begin("reload")
	ends(t, socket, []string{"rollback", "--no-wait"}, ipc.ExitTryAgain, "rollback: a reload is under way")
	other := begin("rollback")
	must(t, socket, []string{"rollback"}, "log.level: debug -> info", "serves")
	for _, cmd := range []*exec.Cmd{reload, other} {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if got := generations(t, socket); got[0].Cause != "rollback to 1" {
		t.Errorf("%+v", got)
	}
}

// TestStopDuringRollback: the service stops, and whoever waits is told.
func TestStopDuringRollback(t *testing.T) {
	needed := filepath.Join(t.TempDir(), "needed")
	write(t, needed, "")
	worker := filepath.Join(testkit.Programs(t), "preforkd-worker")
	script := program(t, "#!/bin/sh\n[ -e "+needed+" ] || exec sleep 1000\nexec "+worker+"\n")
	s, socket := reloadable(t, testkit.Options{Config: "worker: {kind: preforkd, command: [" + script + "]}\n"})
	write(t, s.Config, "log: {level: info}\n")
	must(t, socket, []string{"reload"}, "serves")
	if err := os.Remove(needed); err != nil {
		t.Fatal(err)
	}
	rollback := exec.Command(filepath.Join(testkit.Programs(t), "preforkd"), "rollback", "--admin", socket)
	progress, err := rollback.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := rollback.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := progress.Read(make([]byte, 1)); err != nil { // it is under way
		t.Fatal(err)
	}
	must(t, socket, []string{"stop"})
	if code := s.Wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if err := rollback.Wait(); exitStatus(err) != "69" {
		t.Errorf("the rollback ended with %v", err)
	}
}

// TestRollbackBringsBackAPool: one that was removed since comes back with its listener,
// its models and its program, which are gone from disk, while clients of the other notice
// nothing.
func TestRollbackBringsBackAPool(t *testing.T) {
	const conns = 16
	dir := t.TempDir()
	install(t, dir)
	worker, models := filepath.Join(dir, "preforkd-worker"), copyModels(t)
	web := filepath.Join(dir, "web.sock")
	s, socket := reloadable(t, testkit.Options{Cache: t.TempDir(), Config: "pools:\n  web:\n    listen: [\"unix:" + web + "\"]\n    workers: 1\n    models: " + models +
		"\n    worker: {command: [" + worker + "], kind: preforkd}\n"})
	g, end := storm(t, s, load.Options{Conns: conns, Keepalive: true})
	write(t, filepath.Join(models, "digits/1/note"), "what only pool web has")
	must(t, socket, []string{"reload"}, "other content")
	write(t, s.Config, "log: {level: info}\n")
	must(t, socket, []string{"reload"}, "pools.web: removed")
	if _, err := net.Dial("unix", web); err == nil {
		t.Error("the pool that was removed still listens")
	}
	for _, gone := range []string{worker, models} {
		if err := os.RemoveAll(gone); err != nil {
			t.Fatal(err)
		}
	}
	answers(t, g, 100)
	must(t, socket, []string{"rollback"}, "pools.web: new", "generation 4 serves")
	st := status1(t, socket)
	if len(st.Pools) != 2 || st.Pools[1].Name != "web" || len(st.Pools[1].Slots) != 1 || st.Pools[1].Slots[0].State != "ready" || st.RolledBackTo != 2 {
		t.Fatalf("%+v", st)
	}
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", st.Pools[1].Slots[0].PID)); err != nil || exe != worker+" (deleted)" {
		t.Errorf("pool web runs %s, %v", exe, err)
	}
	r, err := load.Run(t.Context(), load.Options{Addr: "unix:" + web, Request: load.Get("/v2/models/digits/ready"), Requests: 1})
	if err != nil || r.Answers != 1 {
		t.Errorf("pool web: %v, %v", r, err)
	}
	answers(t, g, 100)
	untouched(t, end(), conns)
}
