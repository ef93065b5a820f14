package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// TestFilesSpoiledDuringReload spoils what a reload has read while it is under way, and
// kills an old and then a new worker: both are replaced from what was read, and the next
// reload is refused.
func TestFilesSpoiledDuringReload(t *testing.T) {
	f := begin(t, testkit.Options{}, quick)
	events := f.events()
	g, end := f.load(load.Options{Conns: clients, Think: think})
	model := filepath.Join(f.models, "digits/1/model.onnx")
	good, err := os.ReadFile(model)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		spoil func()
		exit  int
		words string
	}{
		{"model replaced by garbage", func() { write(t, model, strings.Repeat("garbage", 1000)) }, ipc.ExitRolledBack, "digits/1/model.onnx"},
		{"config deleted", func() {
			if err := os.Remove(f.Config); err != nil {
				t.Fatal(err)
			}
		}, ipc.ExitConfig, "no such file"},
		{"config half-written", func() { f.configure("reload: {bake: 100ms, tri") }, ipc.ExitConfig, "preforkd.yaml:1"},
	} {
		wait := newGate(t)
		f.configure(quick + gated(t, wait, "1")) // the reload shall not be over before the old one is back
		write(t, model, string(good))
		old := f.generation()
		known := f.Workers()
		victim := f.worker(old, 0)
		r := f.reload()
		r.await("bake: ")
		c.spoil()
		f.strike(victim)
		events.successor(old, known...)
		wait.open()
		r.end(0)
		known = f.Workers()
		f.strike(f.worker(r.generation, 0))
		events.successor(r.generation, known...)
		answers(t, g, 4*clients)
		f.reload().end(c.exit, c.words)
		if got := f.generation(); got != r.generation {
			t.Errorf("%s: generation %d serves", c.name, got)
		}
		answers(t, g, 2*clients)
	}
	f.noticed(end(), clients)
}

// TestOldWorkerKilledInTheCheck kills an old worker while a reload reads its configuration,
// from a pipe that ends in its own time: it is replaced, and the reload goes on.
func TestOldWorkerKilledInTheCheck(t *testing.T) {
	f := begin(t, testkit.Options{}, quick)
	events := f.events()
	g, end := f.load(load.Options{Conns: clients, Think: think})
	for _, c := range []struct {
		text string
		exit int
	}{{quick, 0}, {"reload: {bake: 1", ipc.ExitConfig}} {
		if err := os.Remove(f.Config); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(f.Config, 0o600); err != nil {
			t.Fatal(err)
		}
		old, known := f.generation(), f.Workers()
		r := f.reload()
		pipe, err := os.OpenFile(f.Config, os.O_WRONLY, 0) // returns when it is being read
		if err != nil {
			t.Fatal(err)
		}
		f.strike(f.worker(old, 1))
		events.successor(old, known...)
		if _, err := pipe.WriteString(c.text); err != nil {
			t.Error(err)
		}
		if err := pipe.Close(); err != nil {
			t.Error(err)
		}
		r.end(c.exit)
		answers(t, g, 4*clients)
	}
	f.noticed(end(), clients)
}

// TestHangupsUnderLoad sends twenty hangups within a second or so, while clients are busy:
// they are few reloads, and nobody notices them.
func TestHangupsUnderLoad(t *testing.T) {
	f := begin(t, testkit.Options{}, "reload: {bake: 1ms, trial: 1ms, max_surge: 2}\n")
	g, end := f.load(load.Options{Conns: clients, Think: think})
	for range times(3, 10) {
		before := f.generation()
		for range 20 {
			f.Signal(syscall.SIGHUP)
			answers(t, g, clients) // the time between them
		}
		f.reloaded(before)
		if got := f.generation(); got == before || got > before+20 {
			t.Errorf("generation %d became %d", before, got)
		}
		answers(t, g, 4*clients)
	}
	f.noticed(end(), clients)
}

// reloaded waits until the signals sent so far have had their effect: a reload that is asked
// for now comes after them.
func (f *site) reloaded(before uint64) {
	f.t.Helper()
	if testkit.Await(func() bool { return f.generation() > before }) != nil {
		f.t.Fatal("no signal led to a reload")
	}
	f.reload().end(0)
	f.last = f.generation()
}
