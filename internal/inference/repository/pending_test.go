package repository

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"preforkd/internal/inference"
	"preforkd/internal/ipc"
)

// tracked is an engine whose models know that they are closed.
type tracked struct {
	engine
	open, runs atomic.Int64
}

func (e *tracked) Load(path string) (inference.Model, error) {
	if path == "bad" {
		return nil, errors.New("the protobuf is truncated")
	}
	e.open.Add(1)
	return &trackedModel{model: classifier(), e: e}, nil
}

type trackedModel struct {
	*model
	e      *tracked
	closed atomic.Bool
}

func (m *trackedModel) RunUntil(inference.Stop, []inference.Tensor, []inference.Tensor) error {
	if m.closed.Load() {
		return errors.New("run of a closed model")
	}
	m.e.runs.Add(1)
	if m.closed.Load() {
		return errors.New("closed in the middle of a run")
	}
	return nil
}

func (m *trackedModel) Close() error {
	if m.closed.Swap(true) {
		panic("closed twice")
	}
	m.e.open.Add(-1)
	return nil
}

// content is a file with a content of its own.
func content(name, version, digest string) ipc.ModelFile {
	f := file(name, version)
	f.Digest = digest
	return f
}

// TestPrepare: what is the same stays, what is not is loaded, and neither is served or freed
// before its time.
func TestPrepare(t *testing.T) {
	e := &tracked{}
	r, err := Load(e, []ipc.ModelFile{content("a", "1", "x"), content("b", "1", "x")})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := r.Find("a", "")
	old, _ := r.Find("b", "")

	bad := content("c", "1", "x")
	bad.Path = "bad"
	var bads *LoadError
	if _, err := r.Prepare([]ipc.ModelFile{content("a", "1", "y"), bad, content("a", "1", "y")}); !errors.As(err, &bads) || len(bads.Bad) != 2 || e.open.Load() != 2 {
		t.Fatalf("%v, %d are open", err, e.open.Load())
	}
	dropped, err := r.Prepare([]ipc.ModelFile{content("b", "1", "y")})
	if err != nil || len(dropped.Fresh()) != 1 || len(r.All()) != 2 {
		t.Fatal(err)
	}
	if dropped.Drop(); e.open.Load() != 2 {
		t.Errorf("%d are open", e.open.Load())
	}

	other := content("a", "1", "x")
	p, err := r.Prepare([]ipc.ModelFile{other, content("b", "2", "y")})
	if err != nil || len(p.Fresh()) != 1 {
		t.Fatal(err)
	}
	reader := r.Enter()
	found, _ := r.Find("b", "")
	retire := p.Commit()
	retired := make(chan struct{})
	go func() { retire(); close(retired) }()
	if now, _ := r.Find("b", ""); now != p.Fresh()[0] || now.Version != "2" {
		t.Errorf("%+v is served", now)
	}
	if now, _ := r.Find("a", ""); now != a {
		t.Error("a was loaded again")
	}
	if _, err := r.Find("b", "1"); !errors.Is(err, ErrUnknownVersion) {
		t.Error(err)
	}
	for r.readers.turn.Load() == 0 {
		runtime.Gosched()
	}
	later := r.Enter() // does not keep it
	for range 100 {
		if err := found.Run(nil, nil); found != old || err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-retired:
		t.Fatal("freed under a reader")
	default:
	}
	r.Leave(reader)
	<-retired
	r.Leave(later)
	if err := old.Run(nil, nil); err == nil || e.open.Load() != 2 {
		t.Errorf("%v: %d are open", err, e.open.Load())
	}

	settings := content("a", "1", "x")
	settings.Options.MaxBatchSize = 0
	settings.Options.Description = "other"
	if p, err = r.Prepare([]ipc.ModelFile{settings}); err != nil || len(p.Fresh()) != 1 {
		t.Fatal("other settings are another model", err)
	}
	p.Commit()()
	if r.Close(); e.open.Load() != 0 {
		t.Errorf("%d are open", e.open.Load())
	}
}

// TestSwitchDuringRuns: no request that finds a model runs a closed one, or misses the model,
// however often the set is replaced meanwhile.
func TestSwitchDuringRuns(t *testing.T) {
	e := &tracked{}
	r, err := Load(e, []ipc.ModelFile{content("m", "1", "0"), content("other", "1", "0")})
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var all, retires sync.WaitGroup
	for range 4 {
		all.Go(func() {
			last := 0
			for !stop.Load() {
				reader := r.Enter()
				m, err := r.Find("m", "")
				if err == nil {
					err = m.Run(nil, nil)
				}
				if err != nil {
					t.Error(err)
					stop.Store(true)
				}
				var n int
				if _, err := fmt.Sscan(m.Digest, &n); err != nil || n < last {
					t.Errorf("%s after %d", m.Digest, last)
				}
				last = n
				r.Leave(reader)
			}
		})
	}
	for n := 1; n <= 300 && !stop.Load(); n++ {
		p, err := r.Prepare([]ipc.ModelFile{content("m", "1", fmt.Sprint(n)), content("other", "1", "0")})
		if err != nil {
			t.Fatal(err)
		}
		if n%7 == 0 {
			p.Drop()
			continue
		}
		before := e.runs.Load()
		retires.Go(p.Commit())
		for e.runs.Load() == before && !stop.Load() { // somebody has run meanwhile
			runtime.Gosched()
		}
	}
	stop.Store(true)
	all.Wait()
	retires.Wait()
	if e.open.Load() != 2 {
		t.Errorf("%d are open", e.open.Load())
	}
	r.Close()
}

func TestEnterDoesNotAllocate(t *testing.T) {
	r, err := Load(&tracked{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { r.Leave(r.Enter()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
