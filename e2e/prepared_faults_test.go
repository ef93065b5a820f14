package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"preforkd/internal/ipc"
	"preforkd/internal/testkit"
)

// mapsOf returns which entries of the cache the workers of s map weights of, each once.
func mapsOf(t *testing.T, s *testkit.Service) (entries []string) {
	t.Helper()
	for _, pid := range s.Workers() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if i := strings.IndexByte(line, '/'); i > 0 && strings.HasSuffix(strings.TrimSpace(line), "/weights.bin") {
				entries = append(entries, filepath.Dir(strings.TrimSpace(line[i:])))
			}
		}
	}
	slices.Sort(entries)
	return slices.Compact(entries)
}

// withoutPrepared fails unless s answers want by a model that was not prepared for that
// reason, and nobody has died of it.
func withoutPrepared(t *testing.T, s *testkit.Service, n int64, want, why string) {
	t.Helper()
	if got := askWide(t, s.URL, n); want != "" && got != want {
		t.Errorf("another answer than plain: %.100s", got)
	}
	text := s.LogText()
	if says(s, notPrepared) != 1 || says(s, preparedSays) > 0 || !strings.Contains(text, why) || strings.Contains(text, "kind=crash") || strings.Contains(text, "reason=crash") {
		t.Errorf("not said once: %s\n%s", why, text)
	}
	if got := mapsOf(t, s); len(got) > 0 {
		t.Errorf("mapped: %q", got)
	}
}

// TestPreparerDies in the middle, by a signal or for want of memory: the service starts without,
// and says why.
func TestPreparerDies(t *testing.T) {
	const n = 512
	models := wideModels(t, 1, n)
	plain := testkit.Start(t, testkit.Options{Models: models, Set: []string{"inference.prepare=off"}})
	want := askWide(t, plain.URL, n)
	quits(plain)
	for name, c := range map[string]struct{ commands, why string }{
		"half written": {`for dir; do :; done; head -c 1000 ` + models + `/wide/1/model.onnx >$dir/model.onnx; kill -KILL $$`, `killed by signal 9"`},
		"out of memory": {
			`x=x; while :; do x=$x$x; done`,
			"killed by signal 9; the memory cgroup counts an OOM kill; raise the memory limit, or have it prepared before by preforkd models prepare",
		},
		"half and well": {`for dir; do :; done; head -c 1000 ` + models + `/wide/1/model.onnx >$dir/model.onnx`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := testkit.Options{Models: models, Cache: t.TempDir(), Program: preparingBy(t, c.commands)}
			if name == "out of memory" {
				o.Wrap = within(t, memoryCgroup(t, 256<<20))
			}
			s, socket := reloadable(t, o)
			if c.why == "" { // what it has written is taken for a model, by no worker
				got := askWide(t, s.URL, n)
				if testkit.Await(func() bool { return says(s, notLoaded) == 2 }) != nil || got != want {
					t.Errorf("the answer is the plain one: %v\n%s", got == want, s.LogText())
				}
				quits(s)
				return
			}
			withoutPrepared(t, s, n, want, c.why)
			if st := status1(t, socket).Pools[0]; len(st.Slots) != 2 {
				t.Errorf("%+v", st)
			}
			if left := entriesOf(t, o.Cache); len(left) > 0 {
				t.Errorf("%q", left)
			}
			quits(s)
		})
	}
}

// TestModelChangesWhilePreparing: what is prepared is the model that the service has read, and the
// next reload has the one that is there by then.
func TestModelChangesWhilePreparing(t *testing.T) {
	const n = 512
	models, gate := wideModels(t, 1, n), filepath.Join(t.TempDir(), "gate")
	answers := map[string]string{}
	for name, layers := range map[string]int{"new": 2, "old": 1} {
		s := testkit.Start(t, testkit.Options{Models: wideModels(t, layers, n), Set: []string{"inference.prepare=off"}})
		answers[name] = askWide(t, s.URL, n)
		quits(s)
	}
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	o := testkit.Options{
		Models: models, Cache: t.TempDir(), Admin: filepath.Join(t.TempDir(), "admin.sock"), Set: quickReload,
		Program: preparingBy(t, "[ ! -p "+gate+" ] || { echo >"+gate+"; read -r _ <"+gate+"; }; "+realWorker(t)+` "$@"`),
	}
	s := testkit.Launch(t, o)
	if _, err := os.ReadFile(gate); err != nil {
		t.Fatal(err)
	}
	putWide(t, models, 2, n)
	if err := os.WriteFile(gate, []byte("\n"), 0); err != nil {
		t.Fatal(err)
	}
	s.Ready()
	if got := askWide(t, s.URL, n); got != answers["old"] || says(s, preparedSays) != 1 {
		t.Errorf("it answers by the old weights: %v, by the new: %v\n%s", got == answers["old"], got == answers["new"], s.LogText())
	}
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	must(t, o.Admin, []string{"reload"}, "serves")
	if got := askWide(t, s.URL, n); got != answers["new"] || says(s, preparedSays) != 2 || len(mapsOf(t, s)) != 1 {
		t.Errorf("reloaded: it answers by the old weights: %v, by the new: %v\n%s", got == answers["old"], got == answers["new"], s.LogText())
	}
	quits(s)
}

// TestEvictionInARunningService: with no room for what is kept, entries that no generation names
// go, and all others stay: for a worker that is started anew, and for a rollback.
func TestEvictionInARunningService(t *testing.T) {
	const n = 512
	models, cache := wideModels(t, 3, n), t.TempDir()
	o := testkit.Options{Models: models, Cache: cache, Set: []string{"cache.prepared_max=0"}}
	s := testkit.Start(t, o)
	quits(s)
	stale := entriesOf(t, cache)
	if len(stale) != 1 {
		t.Fatalf("%q", stale)
	}
	putWide(t, models, 1, n)
	s, socket := reloadable(t, o)
	want := askWide(t, s.URL, n)
	if err := testkit.Await(func() bool { return len(entriesOf(t, cache)) == 1 }); err != nil {
		t.Errorf("%v: %q", err, entriesOf(t, cache))
	}
	if got := mapsOf(t, s); len(got) != 1 || got[0] == stale[0] || got[0] != entriesOf(t, cache)[0] {
		t.Errorf("%q are mapped, %q was there, %q is", got, stale, entriesOf(t, cache))
	}
	putWide(t, models, 2, n)
	must(t, socket, []string{"reload"}, "serves")
	now := mapsOf(t, s)
	if err := testkit.Await(func() bool { return len(entriesOf(t, cache)) == 2 }); err != nil || len(now) != 1 {
		t.Errorf("%v: %q, mapped: %q", err, entriesOf(t, cache), now)
	}
	victim := s.Workers()[0]
	kill(t, victim, syscall.SIGKILL)
	testkit.Gone(t, victim)
	if err := testkit.Await(func() bool { st := status1(t, socket); return allReady(st) && len(st.Pools[0].Slots) == 2 }); err != nil {
		t.Error(err)
	}
	if got := mapsOf(t, s); !slices.Equal(got, now) {
		t.Errorf("after a death: %q are mapped, not %q", got, now)
	}
	made := says(s, preparedSays)
	must(t, socket, []string{"rollback"}, "serves")
	if got := askWide(t, s.URL, n); got != want || says(s, preparedSays) != made || says(s, notLoaded)+says(s, notPrepared) > 0 {
		t.Errorf("after the rollback: the answer is as it was: %v\n%s", got == want, s.LogText())
	}
	quits(s)
}

// TestRuntimeIsUpgraded: what another library has prepared is left to that one.
func TestRuntimeIsUpgraded(t *testing.T) {
	const n = 512
	models, cache, library := wideModels(t, 1, n), t.TempDir(), filepath.Join(t.TempDir(), "libonnxruntime.so.1")
	data, err := os.ReadFile(filepath.Join(testkit.Programs(t), "libonnxruntime.so.1"))
	if err != nil {
		t.Fatal(err)
	}
	install := func(more string) { // another file of the same name
		t.Helper()
		write(t, library+".new", string(data)+more)
		if err := os.Rename(library+".new", library); err != nil {
			t.Fatal(err)
		}
	}
	o := testkit.Options{Models: models, Cache: cache, Set: []string{"inference.library=" + library}}
	install("")
	s := testkit.Start(t, o)
	want, old := askWide(t, s.URL, n), mapsOf(t, s)
	quits(s)
	install("another") // a loader does not read beyond the sections
	s, socket := reloadable(t, o)
	if got := askWide(t, s.URL, n); got != want || says(s, preparedSays) != 1 || slices.Equal(mapsOf(t, s), old) || len(entriesOf(t, cache)) != 2 {
		t.Errorf("mapped: %q, by the library before: %q\n%s", mapsOf(t, s), old, s.LogText())
	}
	install("")
	must(t, socket, []string{"reload"}, "serves")
	if got := askWide(t, s.URL, n); got != want || says(s, preparedSays) != 1 || !slices.Equal(mapsOf(t, s), old) {
		t.Errorf("mapped: %q, by the library before: %q\n%s", mapsOf(t, s), old, s.LogText())
	}
	quits(s)
}

// TestReadOnlyCache: what is there is used; what would have to be written is not prepared, or, a
// copy of a model, refused.
func TestReadOnlyCache(t *testing.T) {
	const n = 512
	cache := t.TempDir()
	if err := unix.Mount("tmpfs", cache, "tmpfs", 0, ""); err != nil {
		t.Skipf("mount a file system: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(cache, unix.MNT_DETACH) })
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", cache, "", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	o := testkit.Options{Models: wideModels(t, 1, n), Cache: cache, Set: []string{"inference.prepare=off"}}
	s := testkit.Start(t, o)
	want := askWide(t, s.URL, n)
	quits(s)
	o.Set = nil
	remount(unix.MS_RDONLY)
	s = testkit.Start(t, o)
	withoutPrepared(t, s, n, want, "read-only file system")
	quits(s)
	remount(0)
	s = testkit.Start(t, o)
	quits(s)
	remount(unix.MS_RDONLY)
	s = testkit.Start(t, o)
	if got := askWide(t, s.URL, n); got != want || len(mapsOf(t, s)) != 1 || says(s, notPrepared)+says(s, notLoaded) > 0 {
		t.Errorf("the answer is as it was: %v; mapped: %q\n%s", got == want, mapsOf(t, s), s.LogText())
	}
	quits(s)
	o.Models = wideModels(t, 2, n)
	refuses(t, o, ipc.ExitPermission, cache, "read-only file system", "try: ")
}

// TestCacheOfAnother: a service that may not write what root has made says so.
func TestCacheOfAnother(t *testing.T) {
	const n = 512
	u := nobody(t)
	dir := reachable(t)
	cache := filepath.Join(dir, "cache")
	if err := os.MkdirAll(filepath.Join(cache, "prepared"), 0o755); err != nil {
		t.Fatal(err)
	}
	o := testkit.Options{Models: wideModels(t, 1, n), Cache: cache}
	s := launchAs(t, u, dir, o)
	if got, text := s.Wait(), s.LogText(); got != ipc.ExitPermission || !strings.Contains(text, cache) || !strings.Contains(text, "permission denied") || !strings.Contains(text, "try: ") {
		t.Errorf("exit status %d: %s", got, text)
	}
	uid, gid := idsOf(t, u)
	if err := os.Chown(cache, uid, gid); err != nil { // but not what is in it
		t.Fatal(err)
	}
	s = launchAs(t, u, dir, o)
	s.Ready()
	withoutPrepared(t, s, n, "", filepath.Join(cache, "prepared")+"/.turn: permission denied")
	quits(s)
}

// TestNotEvenOneWorker: a limit below what one worker is planned with ends the start, with the
// arithmetic.
func TestNotEvenOneWorker(t *testing.T) {
	o := testkit.Options{
		Wrap: within(t, memoryCgroup(t, 60<<20)), Program: filepath.Join(testkit.PlainPrograms(t), "preforkd"), // the race detector takes more
		Bare: true, Listen: []string{"127.0.0.1:0"}, Set: []string{"listen=127.0.0.1:0", "workers=auto"},
	}
	refuses(t, o, ipc.ExitConfig, "one worker is planned with 65 MiB (64 MiB, and 3 times the 0 MiB of its model files), and the memory limit leaves ", "try: raise the limit")
}
