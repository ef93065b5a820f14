package batch

import (
	"slices"
	"testing"
	"time"

	"preforkd/internal/inference"
)

// TestJoinAndSplit: every type, strings and inputs that were left out survive.
func TestJoinAndSplit(t *testing.T) {
	var jobs []*Job
	from := byte(1)
	for _, rows := range []int64{1, 3, 2} {
		in := make([]inference.Tensor, 4)
		for i, dt := range []inference.DataType{inference.Uint8, inference.FP64, inference.Bytes} {
			if err := in[i].Reset(dt, []int64{rows, 2}); err != nil {
				t.Fatal(err)
			}
			if dt == inference.Bytes {
				for k := range 2 * rows {
					in[i].AppendText(slices.Repeat([]byte{from}, int(k)))
				}
			}
			for k := range in[i].Raw() {
				in[i].Raw()[k] = from
				from++
			}
		}
		jobs = append(jobs, &Job{Model: &Model{Most: 10}, In: in, Out: make([]inference.Tensor, 4)})
	}
	all := make([]inference.Tensor, 1) // reused ones of another type and size
	if err := all[0].Reset(inference.Bytes, []int64{7}); err != nil {
		t.Fatal(err)
	}
	all[0].AppendText([]byte("old"))
	all, err := join(all, jobs, 6)
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, j := range jobs {
		rows := int(j.In[0].Shape[0])
		if err := split(j.Out[:3], all[:3], at, rows, 6); err != nil {
			t.Fatal(err)
		}
		at += rows
		for i := range 3 {
			a, b := &j.In[i], &j.Out[i]
			if a.DataType != b.DataType || !slices.Equal(a.Shape, b.Shape) || !slices.Equal(a.Raw(), b.Raw()) || a.Len() != b.Len() {
				t.Errorf("input %d of %d rows: %v %v became %v %v", i, rows, a.Shape, a.Raw(), b.Shape, b.Raw())
			}
			for k := range a.Len() {
				if a.DataType == inference.Bytes && !slices.Equal(a.Text(k), b.Text(k)) {
					t.Errorf("string %d: %q became %q", k, a.Text(k), b.Text(k))
				}
			}
		}
	}
	if all[3].DataType != inference.Invalid {
		t.Errorf("an input that was left out became %v", all[3].DataType)
	}
}

func TestJoinable(t *testing.T) {
	tensor := func(shape ...int64) (out inference.Tensor) {
		if err := out.Reset(inference.FP32, shape); err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, c := range map[string]struct {
		in   []inference.Tensor
		want int
	}{
		"rows":           {[]inference.Tensor{tensor(3, 2), tensor(3)}, 3},
		"left out":       {[]inference.Tensor{{}, tensor(3)}, 3},
		"nothing at all": {[]inference.Tensor{{}}, 0},
		"a scalar":       {[]inference.Tensor{tensor(3), tensor()}, 0},
		"they differ":    {[]inference.Tensor{tensor(3), tensor(2)}, 0},
		"none":           {[]inference.Tensor{tensor(0, 5)}, 0},
		"too many":       {[]inference.Tensor{tensor(5, 1)}, 0},
	} {
		if got := (&Job{Model: &Model{Most: 4}, In: c.in}).joinable(); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if got := (&Job{Model: &Model{Most: 1}, In: []inference.Tensor{tensor(1)}}).joinable(); got != 0 {
		t.Errorf("a model without batches: %d", got)
	}
}

// TestExpect: what a job is expected to take follows the runs, each shared by its jobs.
func TestExpect(t *testing.T) {
	var m Model
	if m.Expect() != 0 {
		t.Error("expects something before the first run")
	}
	m.Learn(80*time.Millisecond, 8)
	if got := m.Expect(); got != 10*time.Millisecond {
		t.Errorf("after the first: %v", got)
	}
	for range 100 {
		m.Learn(20*time.Millisecond, 1)
	}
	if got := m.Expect(); got < 19*time.Millisecond || got > 20*time.Millisecond {
		t.Errorf("after many of 20 ms: %v", got)
	}
}

// BenchmarkDo: what the line costs a job beside its run.
func BenchmarkDo(b *testing.B) {
	var in [1]inference.Tensor
	if err := in[0].Reset(inference.FP32, []int64{1, 64}); err != nil {
		b.Fatal(err)
	}
	newRunners := func() *Runners {
		start := time.Now()
		return New(Options{
			Stops: make([]inference.Stop, 1), Clock: func() int64 { return int64(time.Since(start)) },
			Run: func(_ *Job, _ int, _ inference.Stop, in, out []inference.Tensor) error {
				return out[0].Reset(inference.FP32, in[0].Shape)
			},
		})
	}
	b.Run("free", func(b *testing.B) {
		r, m := newRunners(), &Model{Most: 16}
		j := Job{Model: m, In: in[:], Out: make([]inference.Tensor, 1)}
		b.ReportAllocs()
		for b.Loop() {
			if err := r.Do(&j); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("contended", func(b *testing.B) {
		r, m := newRunners(), &Model{Most: 16}
		b.ReportAllocs()
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			j := Job{Model: m, In: in[:], Out: make([]inference.Tensor, 1)}
			for pb.Next() {
				if err := r.Do(&j); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func TestDoAllocatesNothing(t *testing.T) {
	var in [1]inference.Tensor
	if err := in[0].Reset(inference.FP32, []int64{1, 64}); err != nil {
		t.Fatal(err)
	}
	r := New(Options{
		Stops: make([]inference.Stop, 1), Clock: func() int64 { return 0 },
		Run: func(_ *Job, _ int, _ inference.Stop, _, _ []inference.Tensor) error { return nil },
	})
	j := Job{Model: &Model{Most: 16}, In: in[:]}
	if n := testing.AllocsPerRun(1000, func() { _ = r.Do(&j) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
