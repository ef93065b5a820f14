package worker

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
	"preforkd/internal/testkit/digits"
)

// changeable returns a complete worker, and what asks it for its part in a change.
func changeable(t *testing.T) (w *worker, file func(version, path string) ipc.ModelFile, ask func(kind string, number uint64, models ...ipc.ModelFile) error) {
	t.Helper()
	w = complete(t)
	w.set.Store(&ipc.ModelSet{})
	t.Cleanup(w.change.beside.Wait)
	good := filepath.Join(digits.Load(t).Root, "models", "digits", "1", "model.onnx")
	file = func(version, path string) ipc.ModelFile {
		if path == "" {
			path = good
		}
		return ipc.ModelFile{Name: "digits", Version: version, Path: path, Source: "models/digits/" + version + "/model.onnx", Digest: version}
	}
	handlers := w.handlers()
	ask = func(kind string, number uint64, models ...ipc.ModelFile) error {
		t.Helper()
		c := ipc.ModelChange{Number: number}
		if kind == ipc.ControlPrepare {
			text, err := json.Marshal(ipc.ModelSet{Models: models, Unloaded: []ipc.UnloadedModel{{Name: "x"}}})
			if err != nil {
				t.Fatal(err)
			}
			c.File = filepath.Join(t.TempDir(), "set.json")
			if err := os.WriteFile(c.File, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		body, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		_, err = handlers[kind](t.Context(), body)
		return err
	}
	return w, file, ask
}

// versionOf returns the version that w serves, which must run.
func versionOf(t *testing.T, w *worker) string {
	t.Helper()
	reader := w.models.Enter()
	defer w.models.Leave(reader)
	m, err := w.models.Find("digits", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := answer(m, &ipc.WarmupCase{}, w.runInTurn); err != nil {
		t.Fatal(err)
	}
	return m.Version
}

// TestTwoPhases: nothing is served before it is committed, and only what was prepared last is.
func TestTwoPhases(t *testing.T) {
	w, file, ask := changeable(t)
	serves := func(want string) {
		t.Helper()
		if got := versionOf(t, w); got != want {
			t.Errorf("version %s is served, want %s", got, want)
		}
	}
	wrong := func(err error, words string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%v, want %s", err, words)
		}
	}
	wrong(ask(ipc.ControlCommit, 1), "change 0 is prepared here")
	if err := ask(ipc.ControlPrepare, 1, file("2", "")); err != nil {
		t.Fatal(err)
	}
	calls := w.row.EngineCalls.Load()
	serves("1")
	if n := w.row.EngineCalls.Load(); n != calls+1 {
		t.Errorf("%d calls are counted for one request", n-calls)
	}
	wrong(ask(ipc.ControlCommit, 2), "change 1 is prepared here")
	if err := ask(ipc.ControlCommit, 1); err != nil {
		t.Fatal(err)
	}
	serves("2")
	if u := w.set.Load().Unloaded; len(u) != 1 || u[0].Name != "x" {
		t.Errorf("%+v", u)
	}
	wrong(ask(ipc.ControlCommit, 1), "change 0 is prepared here")

	if err := errors.Join(ask(ipc.ControlPrepare, 2, file("3", "")), ask(ipc.ControlDrop, 2)); err != nil {
		t.Fatal(err)
	}
	wrong(ask(ipc.ControlCommit, 2), "change 0 is prepared here")
	serves("2")

	corrupt := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(corrupt, []byte("no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	wrong(ask(ipc.ControlPrepare, 3, file("4", corrupt)), `load model "digits" version 4 from models/digits/4/model.onnx`)
	failing := file("5", "")
	failing.Warmup = []ipc.WarmupCase{{Outputs: map[string][]float64{"label": {77}}}}
	wrong(ask(ipc.ControlPrepare, 4, failing), "expected is 77")
	serves("2")
	calls = w.row.EngineCalls.Load()
	if err := errors.Join(ask(ipc.ControlPrepare, 5, file("6", "")), ask(ipc.ControlPrepare, 6, file("7", "")), ask(ipc.ControlCommit, 6)); err != nil {
		t.Fatal(err)
	}
	serves("7")
	if n := w.row.EngineCalls.Load(); n != calls+1 {
		t.Errorf("%d calls are counted for one request", n-calls)
	}
	for kind, handler := range w.handlers() {
		if strings.HasPrefix(kind, "models-") {
			for _, body := range []string{"", "null", "{}", `{"number":-1}`, `{"number":1,"file":"/none"}`, "[]"} {
				if _, err := handler(t.Context(), json.RawMessage(body)); err == nil && kind != ipc.ControlDrop {
					t.Errorf("%s %s: no error", kind, body)
				}
			}
		}
	}
}

// TestAnAskerWhoGivesUp: what it has asked for is not left behind.
func TestAnAskerWhoGivesUp(t *testing.T) {
	w, file, _ := changeable(t)
	text, err := json.Marshal(ipc.ModelSet{Models: []ipc.ModelFile{file("2", "")}})
	if err != nil {
		t.Fatal(err)
	}
	set := filepath.Join(t.TempDir(), "set.json")
	if err := os.WriteFile(set, text, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	body, err := json.Marshal(ipc.ModelChange{Number: 1, File: set})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, err := w.prepare(ctx, body); !errors.Is(err, context.Canceled) && !errors.Is(err, errOver) {
			t.Fatal(err)
		}
	}
	if _, err := w.drop(t.Context(), body); err != nil { // waits for those that still load
		t.Fatal(err)
	}
	if _, err := w.prepare(t.Context(), body); !errors.Is(err, errOver) { // overtaken by the drop
		t.Error(err)
	}
	w.change.beside.Wait()
	if w.change.number != 0 || versionOf(t, w) != "1" {
		t.Error("something is left")
	}
}

// TestAnOrphanResolves: a worker that hears no more finds on the scoreboard what was decided.
func TestAnOrphanResolves(t *testing.T) {
	w, file, ask := changeable(t)
	w.resolve() // nothing is prepared
	w.board.Decided().Store(6)
	if err := ask(ipc.ControlPrepare, 7, file("2", "")); err != nil {
		t.Fatal(err)
	}
	if w.resolve(); versionOf(t, w) != "1" || w.change.pending != nil {
		t.Error("what was not decided is served")
	}
	if err := ask(ipc.ControlPrepare, 8, file("3", "")); err != nil {
		t.Fatal(err)
	}
	w.board.Decided().Store(8)
	if w.resolve(); versionOf(t, w) != "3" {
		t.Error("what was decided is not served")
	}
	if _, err := w.models.Find("digits", "1"); !errors.Is(err, repository.ErrUnknownVersion) {
		t.Error(err)
	}
}
