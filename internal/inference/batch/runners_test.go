package batch

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"preforkd/internal/inference"
)

// bench is runners with a model whose runs the test holds up.
type bench struct {
	t       *testing.T
	runners *Runners
	model   Model
	stop    flag
	gate    chan struct{} // each run takes one; nil: none waits
	mu      sync.Mutex
	runs    [][]float32 // first column of the first input, by run
	answer  func(in, out []inference.Tensor) error
}

// flag is a Stop that a test can wait for.
type flag struct {
	set  chan struct{}
	sets atomic.Int64
}

func (f *flag) Set()   { f.sets.Add(1); close(f.set) }
func (f *flag) Clear() { f.set = make(chan struct{}) }

func newBench(t *testing.T, most int) *bench {
	b := &bench{t: t, answer: double}
	b.stop.Clear()
	b.model = Model{Runner: b, Most: most}
	start := time.Now()
	b.runners = New(Options{
		Stops: []inference.Stop{&b.stop},
		Clock: func() int64 { return int64(time.Since(start)) },
		Run: func(lead *Job, n int, stop inference.Stop, in, out []inference.Tensor) error {
			if n > 1 && lead.In[0].Shape[0] == in[0].Shape[0] {
				t.Errorf("%d jobs have %d rows", n, in[0].Shape[0])
			}
			return lead.Model.Runner.RunUntil(stop, in, out)
		},
	})
	return b
}

// RunUntil answers, once the gate lets it.
func (b *bench) RunUntil(_ inference.Stop, in, out []inference.Tensor) error {
	var first []float32
	width := in[0].Len() / int(max(in[0].Shape[0], 1))
	for k := 0; k < in[0].Len(); k += width {
		first = append(first, in[0].Float32s()[k])
	}
	b.mu.Lock()
	b.runs = append(b.runs, first)
	b.mu.Unlock()
	if b.gate != nil {
		select {
		case <-b.gate:
		case <-b.stop.set:
			return fmt.Errorf("run: %w", inference.ErrStopped)
		}
	}
	return b.answer(in, out)
}

// double is a model: each number twice.
func double(in, out []inference.Tensor) error {
	out[0].Name = "y"
	if err := out[0].Reset(inference.FP32, in[0].Shape); err != nil {
		return err
	}
	for k, v := range in[0].Float32s() {
		out[0].Float32s()[k] = 2 * v
	}
	return nil
}

// job is one of rows of width numbers that count from first.
func (b *bench) job(first float32, rows, width int64) *Job {
	in := make([]inference.Tensor, 1)
	if err := in[0].Reset(inference.FP32, []int64{rows, width}); err != nil {
		b.t.Fatal(err)
	}
	for k := range in[0].Float32s() {
		in[0].Float32s()[k] = first + float32(k)
	}
	return &Job{Model: &b.model, In: in, Out: make([]inference.Tensor, 1)}
}

// check reports what j's answer lacks.
func (b *bench) check(j *Job) {
	b.t.Helper()
	if !slices.Equal(j.Out[0].Shape, j.In[0].Shape) || j.Out[0].Name != "y" {
		b.t.Errorf("output %q has the shape %v for %v", j.Out[0].Name, j.Out[0].Shape, j.In[0].Shape)
		return
	}
	for k, v := range j.In[0].Float32s() {
		if got := j.Out[0].Float32s()[k]; got != 2*v {
			b.t.Errorf("element %d of %v: %v", k, j.In[0].Float32s(), got)
		}
	}
}

// inLine begins jobs one after the other while one run is held up, and returns what they
// end with.
func (b *bench) inLine(jobs ...*Job) []chan error {
	results := make([]chan error, len(jobs))
	for i, j := range jobs {
		results[i] = make(chan error, 1)
		go func() { results[i] <- b.runners.Do(j) }()
		synctest.Wait()
	}
	return results
}

// want compares the runs that there were, by the first numbers of their rows.
func (b *bench) want(runs ...[]float32) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.EqualFunc(b.runs, runs, slices.Equal) {
		b.t.Errorf("runs %v, want %v", b.runs, runs)
	}
}

// TestJoinsWhatWaits: the first runs by itself; those who came meanwhile run together, as
// many as the model takes, in order, and each gets its own rows.
func TestJoinsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 4)
		b.gate = make(chan struct{})
		jobs := []*Job{
			b.job(1, 1, 2), b.job(10, 1, 2), b.job(20, 2, 2), b.job(30, 1, 2), b.job(40, 1, 2), b.job(50, 3, 2),
			b.job(60, 5, 2), b.job(70, 1, 2),
		}
		results := b.inLine(jobs...)
		if n := b.runners.Waiting(); n != len(jobs)-1 {
			t.Errorf("%d wait", n)
		}
		close(b.gate)
		for i := range results {
			if err := <-results[i]; err != nil {
				t.Error(err)
			}
			b.check(jobs[i])
		}
		// 60 has more rows than a run may have: the model itself answers that.
		b.want([]float32{1}, []float32{10, 20, 22, 30}, []float32{40, 50, 52, 54}, []float32{60, 62, 64, 66, 68}, []float32{70})
		for i, want := range []int{1, 3, 3, 3, 2, 2, 1, 1} {
			if jobs[i].Joined != want || jobs[i].Ended < jobs[i].Began || jobs[i].Led != slices.Contains([]int{0, 1, 4, 6, 7}, i) {
				t.Errorf("job %d: joined %d, led %v, from %d to %d", i, jobs[i].Joined, jobs[i].Led, jobs[i].Began, jobs[i].Ended)
			}
		}
	})
}

// TestNeverMixes: other shapes, other models, and models that do not take batches.
func TestNeverMixes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 8)
		b.gate = make(chan struct{})
		other := Model{Runner: b, Most: 8}
		single := Model{Runner: b}
		jobs := []*Job{
			b.job(1, 1, 2), b.job(10, 1, 2), b.job(20, 1, 3), b.job(30, 1, 2), b.job(40, 1, 2),
			b.job(50, 1, 2), b.job(60, 1, 2), b.job(70, 1, 3),
		}
		jobs[4].Model, jobs[5].Model, jobs[6].Model = &other, &single, &single
		results := b.inLine(jobs...)
		close(b.gate)
		for i := range results {
			if err := <-results[i]; err != nil {
				t.Error(err)
			}
			b.check(jobs[i])
		}
		b.want([]float32{1}, []float32{10, 30}, []float32{20, 70}, []float32{40}, []float32{50}, []float32{60})
	})
}

// TestOneBadFailsAlone: a joint run that fails is done again one by one.
func TestOneBadFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 8)
		b.gate = make(chan struct{})
		bad := errors.New("20 is bad")
		b.answer = func(in, out []inference.Tensor) error {
			if slices.Contains(in[0].Float32s(), 20) {
				return bad
			}
			return double(in, out)
		}
		for _, at := range []int{1, 2, 3} { // also the one that leads
			b.runs = nil
			jobs := []*Job{b.job(1, 1, 1), b.job(10, 1, 1), b.job(11, 1, 1), b.job(12, 1, 1)}
			jobs[at].In[0].Float32s()[0] = 20
			results := b.inLine(jobs...)
			for range 5 { // the first, the joint one, three by themselves
				b.gate <- struct{}{}
			}
			for i := range results {
				err := <-results[i]
				if (i == at) != errors.Is(err, bad) {
					t.Errorf("bad one at %d: job %d ends with %v", at, i, err)
				}
				if err == nil {
					b.check(jobs[i])
				}
				if !jobs[i].Led || jobs[i].Joined != 1 {
					t.Errorf("job %d: led %v, joined %d", i, jobs[i].Led, jobs[i].Joined)
				}
			}
		}
	})
}

// TestNotByRows: a model whose outputs have no row for each row of the inputs answers each
// by itself, and is not tried again.
func TestNotByRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 8)
		b.gate = make(chan struct{})
		told := 0
		b.model.Apart = func(error) { told++ }
		b.answer = func(in, out []inference.Tensor) error {
			sum := float32(0)
			for _, v := range in[0].Float32s() {
				sum += v
			}
			err := out[0].Reset(inference.FP32, []int64{1})
			out[0].Float32s()[0] = sum
			return err
		}
		jobs := []*Job{b.job(1, 2, 1), b.job(10, 2, 1), b.job(20, 2, 1)}
		results := b.inLine(jobs...)
		for range 4 {
			b.gate <- struct{}{}
		}
		for i, want := range []float32{3, 21, 41} {
			if err := <-results[i]; err != nil || jobs[i].Out[0].Float32s()[0] != want {
				t.Errorf("job %d: %v, %v", i, jobs[i].Out[0].Float32s(), err)
			}
		}
		b.runs = nil
		results = b.inLine(b.job(1, 1, 1), b.job(10, 1, 1), b.job(20, 1, 1))
		close(b.gate)
		for i := range results {
			if err := <-results[i]; err != nil {
				t.Error(err)
			}
		}
		b.want([]float32{1}, []float32{10}, []float32{20})
		if told != 1 {
			t.Errorf("told %d times", told)
		}
	})
}

// TestGiveUp: in line, in another's run, and as the one that runs.
func TestGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 8)
		b.gate = make(chan struct{})
		jobs := []*Job{b.job(1, 1, 1), b.job(10, 1, 1), b.job(20, 1, 1), b.job(30, 1, 1)}
		results := b.inLine(jobs...)
		b.runners.GiveUp(jobs[2])
		if err := <-results[2]; !errors.Is(err, ErrLeft) {
			t.Errorf("in line: %v", err)
		}
		b.runners.GiveUp(jobs[2]) // again: nothing
		b.gate <- struct{}{}
		if err := <-results[0]; err != nil {
			t.Error(err)
		}
		synctest.Wait() // 10 and 30 run
		b.want([]float32{1}, []float32{10, 30})
		b.runners.GiveUp(jobs[3])
		if err := <-results[3]; !errors.Is(err, inference.ErrStopped) {
			t.Errorf("along with another: %v", err)
		}
		if b.stop.sets.Load() != 0 {
			t.Error("the run was stopped for one of two")
		}
		more := b.inLine(b.job(40, 1, 1))
		b.runners.GiveUp(jobs[1])
		if err := <-results[1]; !errors.Is(err, inference.ErrStopped) || b.stop.sets.Load() != 1 {
			t.Errorf("the last: %v, stopped %d times", err, b.stop.sets.Load())
		}
		b.gate <- struct{}{}
		if err := <-more[0]; err != nil { // the stop was cleared
			t.Error(err)
		}
		b.runners.GiveUp(jobs[1]) // has run
		if b.stop.sets.Load() != 1 {
			t.Error("stopped for a job that has run")
		}
	})
}

// TestLeadGivesUp: the others get their answers.
func TestLeadGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 8)
		b.gate = make(chan struct{})
		jobs := []*Job{b.job(1, 1, 1), b.job(10, 1, 1), b.job(20, 1, 1)}
		results := b.inLine(jobs...)
		b.gate <- struct{}{}
		synctest.Wait()
		b.runners.GiveUp(jobs[1])
		b.gate <- struct{}{}
		for i := range results {
			if err := <-results[i]; err != nil { // it got its result before it could leave
				t.Errorf("job %d: %v", i, err)
			}
			b.check(jobs[i])
		}
	})
}

// TestDelay: who may wait for company runs when it has waited, or when the run is full.
func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 3)
		b.model.Delay = 10 * time.Millisecond
		start := time.Now()
		results := b.inLine(b.job(1, 1, 1), b.job(2, 1, 1))
		for i := range results {
			if err := <-results[i]; err != nil || time.Since(start) != b.model.Delay {
				t.Errorf("job %d: %v after %v", i, err, time.Since(start))
			}
		}
		start = time.Now()
		results = b.inLine(b.job(3, 1, 1), b.job(4, 1, 1), b.job(5, 1, 1), b.job(6, 1, 1), b.job(7, 3, 1))
		for i := range results { // 6 does not wait: 7 does not fit, and nobody overtakes it
			if err := <-results[i]; err != nil || time.Since(start) != 0 {
				t.Errorf("job %d: %v after %v", i, err, time.Since(start))
			}
		}
		b.want([]float32{1, 2}, []float32{3, 4, 5}, []float32{6}, []float32{7, 8, 9})
		other := Model{Runner: b} // waits for nobody
		j := b.job(9, 1, 1)
		j.Model = &other
		results = b.inLine(b.job(8, 1, 1), j)
		start = time.Now()
		if err := <-results[1]; err != nil || time.Since(start) != 0 {
			t.Errorf("another model: %v after %v", err, time.Since(start))
		}
		<-results[0]
	})
}

func TestRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 3)
		b.gate = make(chan struct{})
		results := b.inLine(b.job(1, 1, 1), b.job(2, 1, 1))
		b.runners.Refuse()
		if err := <-results[1]; !errors.Is(err, ErrRefused) {
			t.Error(err)
		}
		if err := b.runners.Do(b.job(3, 1, 1)); !errors.Is(err, ErrRefused) {
			t.Error(err)
		}
		close(b.gate)
		if err := <-results[0]; err != nil {
			t.Error(err)
		}
		if err := b.runners.Do(b.job(3, 1, 1)); err != nil {
			t.Errorf("with one free: %v", err)
		}
	})
}

// TestPanic: those that were joined end with an error, and the runner is free.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 3)
		b.gate = make(chan struct{})
		first := b.inLine(b.job(1, 1, 1))
		b.answer = func(_, _ []inference.Tensor) error { panic("bug") }
		panicked := make(chan any, 1)
		go func() {
			defer func() { panicked <- recover() }()
			_ = b.runners.Do(b.job(2, 1, 1))
		}()
		synctest.Wait()
		rest := b.inLine(b.job(3, 1, 1), b.job(4, 1, 1))
		b.answer = func(in, out []inference.Tensor) error {
			if in[0].Shape[0] > 1 {
				panic("bug")
			}
			return double(in, out)
		}
		close(b.gate)
		if err := <-first[0]; err != nil {
			t.Error(err)
		}
		if p := <-panicked; p != "bug" {
			t.Errorf("panic %v", p)
		}
		for _, r := range rest {
			if err := <-r; !errors.Is(err, errPanic) {
				t.Error(err)
			}
		}
		if err := b.runners.Do(b.job(5, 1, 1)); err != nil {
			t.Error(err)
		}
	})
}

// TestStorm: many at once, of several shapes, some bad and some giving up: whoever gets an
// answer gets its own.
func TestStorm(t *testing.T) {
	b := newBench(t, 7)
	bad := errors.New("bad")
	b.answer = func(in, out []inference.Tensor) error {
		if slices.Contains(in[0].Float32s(), -1) {
			return bad
		}
		return double(in, out)
	}
	var wg sync.WaitGroup
	var answered, left atomic.Int64
	for c := range 24 {
		wg.Go(func() {
			for k := range 300 {
				j := b.job(float32(1000*c+k), int64(rand.IntN(3)+1), int64(c%2+1))
				isBad := rand.IntN(20) == 0
				if isBad {
					j.In[0].Float32s()[0] = -1
				}
				done := make(chan struct{})
				if rand.IntN(4) == 0 {
					go func() { b.runners.GiveUp(j); close(done) }()
				} else {
					close(done)
				}
				err := b.runners.Do(j)
				<-done
				switch {
				case err == nil && !isBad:
					b.check(j)
					answered.Add(1)
				case errors.Is(err, ErrLeft) || errors.Is(err, inference.ErrStopped):
					left.Add(1)
				case !isBad || !errors.Is(err, bad):
					t.Errorf("bad %v: %v", isBad, err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d answered, %d gave up, %d runs", answered.Load(), left.Load(), len(b.runs))
	if b.runners.Waiting() != 0 || len(b.runners.free) != 1 || answered.Load() == 0 {
		t.Errorf("%d wait, %d free", b.runners.Waiting(), len(b.runners.free))
	}
}
