package onnx

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"preforkd/internal/inference"
	"preforkd/internal/testkit"
	"preforkd/internal/testkit/digits"
)

// borrowed returns a tensor over memory of its own that begins offset bytes behind a multiple
// of 64, as it may in a request's body.
func borrowed(t testing.TB, dt inference.DataType, shape []int64, offset int) inference.Tensor {
	t.Helper()
	n, err := inference.Elements(shape)
	if err != nil {
		t.Fatal(err)
	}
	var words, x inference.Tensor
	if err := words.Reset(inference.Uint64, []int64{n*int64(dt.Size())/8 + 16}); err != nil {
		t.Fatal(err)
	}
	from := (64-int(reflect.ValueOf(words.Raw()).Pointer()%64))%64 + offset
	if !x.Borrow(dt, shape, words.Raw()[from:from+int(n)*dt.Size()]) {
		t.Fatalf("%s cannot begin at %d", dt, offset)
	}
	return x
}

// fillRandomly gives t numbers that are neither NaN nor infinite in any type.
func fillRandomly(t *inference.Tensor, r *rand.Rand) {
	for i := range t.Raw() {
		t.Raw()[i] = byte(r.IntN(100)) // an exponent of less than all bits
	}
}

// TestViews: what is copied and what is read where it lies gives the same result, of every
// type, on both sides of the limit, wherever the memory begins.
func TestViews(t *testing.T) {
	e, r := open(t), rand.New(rand.NewPCG(1, 2))
	for dt := inference.Bool; dt < inference.Bytes; dt++ {
		m := mustLoad(t, e, graph{
			nodes:   []node{{op: "Identity", in: []string{"x"}, out: []string{"y"}}},
			inputs:  []value{{"x", codes[dt], []int64{-1}}},
			outputs: []value{{"y", codes[dt], []int64{-1}}},
		}.write(t)).(*model)
		out := make([]inference.Tensor, 1)
		limit := int64(copied / dt.Size())
		for _, n := range []int64{1, limit - 1, limit, limit + 1, 3*limit + 1, limit, limit + 1} {
			for offset := 0; offset < 64; offset += max(dt.Size(), 4) {
				in := []inference.Tensor{borrowed(t, dt, []int64{n}, offset)}
				fillRandomly(&in[0], r)
				if dt == inference.Bool {
					for i := range in[0].Raw() {
						in[0].Raw()[i] &= 1
					}
				}
				if err := m.Run(in, out); err != nil {
					t.Fatalf("%s, %d: %v", dt, n, err)
				}
				if !bytes.Equal(out[0].Raw(), in[0].Raw()) || out[0].Shape[0] != n {
					t.Fatalf("%s, %d elements at %d came back as others", dt, n, offset)
				}
			}
			if got, want := len(m.bindings[0].views) == 1, n > limit && dt != inference.Bool; got != want {
				t.Errorf("%s, %d elements: read where they lie is %v", dt, n, got)
			}
		}
		if len(m.in[0].raw) > 2*copied && dt != inference.Bool {
			t.Errorf("%s: %d bytes are kept", dt, len(m.in[0].raw))
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestViewsOfModels: real operators read memory that begins anywhere.
func TestViewsOfModels(t *testing.T) {
	e, set := open(t), digits.Load(t)
	const rows = copied/4/digits.Features + 1
	for _, name := range digits.Names {
		m := mustLoad(t, e, modelFile(set, name)).(*model)
		out, want := make([]inference.Tensor, 2), make([]inference.Tensor, 2)
		for offset := 0; offset < 64; offset += 4 {
			in := []inference.Tensor{borrowed(t, inference.FP32, []int64{rows, digits.Features}, offset)}
			for i := range rows {
				copy(in[0].Float32s()[i*digits.Features:], set.Pixels[i%digits.Samples][:])
			}
			if err := m.Run(in, out); err != nil {
				t.Fatal(err)
			}
			if len(m.bindings[0].views) != 1 {
				t.Fatalf("%d rows are copied", rows)
			}
			for i, label := range out[0].Int64s() {
				if label != set.Answers[name].Labels[i%digits.Samples] {
					t.Fatalf("%s, at %d: sample %d is %d", name, offset, i, label)
				}
			}
			if offset == 0 {
				out, want = want, out
			} else if !slices.Equal(out[1].Float32s(), want[1].Float32s()) {
				t.Errorf("%s, at %d: other probabilities", name, offset)
			}
		}
	}
}

// TestNothingOfAViewIsKept: after a run the caller's memory is free, though the binding
// stays and runs again with other memory.
func TestNothingOfAViewIsKept(t *testing.T) {
	m := mustLoad(t, open(t), graph{
		nodes: []node{
			{op: "ReduceMax", in: []string{"x"}, out: []string{"top"}, attrs: []attr{{name: "keepdims", i: 0}}},
			{op: "Mul", in: []string{"top", "s"}, out: []string{"y"}},
		},
		inputs:  []value{{"x", float, []int64{-1, 4}}, {"s", float, scalar}},
		outputs: []value{{"y", float, scalar}},
	}.write(t)).(*model)
	out := make([]inference.Tensor, 1)
	freed := make(chan int, 8)
	for i := range 8 {
		memory := make([]byte, 4*copied)
		runtime.AddCleanup(&memory[0], func(i int) { freed <- i }, i)
		in := []inference.Tensor{{}, floats(t, scalar, 2)}
		if !in[0].Borrow(inference.FP32, []int64{copied / 4, 4}, memory) {
			t.Fatal("not aligned")
		}
		in[0].Float32s()[copied-1] = float32(i + 1)
		if err := m.Run(in, out); err != nil || out[0].Float32s()[0] != float32(2*i+2) {
			t.Fatalf("%v, %v", err, out[0].Float32s())
		}
		if b := m.bindings[0]; len(m.bindings) != 1 || b.inputs[0] != nil || b.inputs[1] == nil {
			t.Fatalf("%d bindings, %+v", len(m.bindings), m.bindings[0])
		}
	}
	limit := time.After(testkit.Limit)
	for range 8 {
		runtime.GC()
		select {
		case <-freed:
		case <-limit:
			t.Fatal("the memory of an input is still held")
		}
	}
}

// TestViewsAndErrors: after a run that is refused, stopped or done again nothing of its
// inputs is bound, and the next one is right.
func TestViewsAndErrors(t *testing.T) {
	e := open(t)
	const n = copied/8 + 1
	t.Run("refused", func(t *testing.T) {
		m := mustLoad(t, e, graph{
			nodes:   []node{{op: "Gather", in: []string{"table", "i"}, out: []string{"y"}}},
			inputs:  []value{{"i", int64s, []int64{-1}}},
			outputs: []value{{"y", float, []int64{-1}}},
			consts:  []literal{{name: "table", code: float, shape: []int64{3}, floats: []float32{5, 6, 7}}},
		}.write(t)).(*model)
		in, out := []inference.Tensor{ints(t, []int64{n})}, make([]inference.Tensor, 1)
		for range 3 {
			in[0].Int64s()[n-1] = 9
			if err := m.Run(in, out); !errors.Is(err, inference.ErrInput) || len(m.bindings) != 0 {
				t.Fatalf("%v, %d bindings", err, len(m.bindings))
			}
			in[0].Int64s()[n-1] = 2
			if err := m.Run(in, out); err != nil || out[0].Float32s()[n-1] != 7 || out[0].Float32s()[0] != 5 {
				t.Fatal(err)
			}
		}
	})
	t.Run("too few elements", func(t *testing.T) {
		m := mustLoad(t, e, shapeOnly(float).write(t))
		in, out := []inference.Tensor{floats(t, []int64{2 * n})}, make([]inference.Tensor, 1)
		in[0].Shape[0] *= 2
		if err := m.Run(in, out); err == nil || errors.Is(err, inference.ErrInput) {
			t.Errorf("%v", err)
		}
	})
	t.Run("done again", func(t *testing.T) {
		m := mustLoad(t, e, graph{
			nodes:   []node{{op: "Concat", in: []string{"x", "x"}, out: []string{"y"}, attrs: []attr{{name: "axis", i: 0}}}},
			inputs:  []value{{"x", int64s, []int64{-1}}},
			outputs: []value{{"y", int64s, []int64{-1}}},
		}.write(t)).(*model)
		out := make([]inference.Tensor, 1)
		for _, size := range []int64{n, 3, 2 * n, n} {
			in := []inference.Tensor{ints(t, []int64{size})}
			in[0].Int64s()[size-1] = size
			if err := m.Run(in, out); err != nil {
				t.Fatal(err)
			}
			if got := out[0].Int64s(); int64(len(got)) != 2*size || got[size-1] != size || got[2*size-1] != size || !m.distrust {
				t.Errorf("%d: %d elements", size, len(got))
			}
		}
	})
	t.Run("stopped", func(t *testing.T) {
		m := mustLoad(t, e, chain(300, 256).write(t)).(*model)
		s, err := e.NewStop()
		if err != nil {
			t.Fatal(err)
		}
		large := []inference.Tensor{floats(t, []int64{4096, 256})}
		ended := make(chan error, 1)
		go func() { ended <- m.RunUntil(s, large, make([]inference.Tensor, 1)) }()
		s.Set()
		if err := <-ended; !errors.Is(err, inference.ErrStopped) || len(m.bindings) != 0 {
			t.Fatalf("%v, %d bindings", err, len(m.bindings))
		}
		s.Clear()
		small, out := []inference.Tensor{floats(t, []int64{65, 256}, 3, 4)}, make([]inference.Tensor, 1)
		if err := m.RunUntil(s, small, out); err != nil || !slices.Equal(out[0].Float32s(), small[0].Float32s()) {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// TestViewsBesideOthers: large and small inputs, strings and those that are left out.
func TestViewsBesideOthers(t *testing.T) {
	m := mustLoad(t, open(t), graph{
		nodes: []node{
			{op: "Mul", in: []string{"x", "factor"}, out: []string{"y"}},
			{op: "Identity", in: []string{"s"}, out: []string{"words"}},
			{op: "Identity", in: []string{"z"}, out: []string{"same"}},
		},
		inputs:  []value{{"factor", float, []int64{1}}, {"x", float, []int64{-1}}, {"s", text, []int64{-3}}, {"z", int64s, []int64{-2}}},
		outputs: []value{{"y", float, []int64{-1}}, {"words", text, []int64{-3}}, {"same", int64s, []int64{-2}}},
		consts:  []literal{{name: "factor", code: float, shape: []int64{1}, floats: []float32{3}}},
	}.write(t))
	out := make([]inference.Tensor, 3)
	for round := range 12 {
		sizes := []int64{4, copied / 4, copied/4 + 1}
		x, z := sizes[round%3], sizes[round/3%3]
		in := []inference.Tensor{floats(t, []int64{x}), texts(t, []int64{2}, "a", fmt.Sprint(round)), ints(t, []int64{z}), {}}
		in[0].Float32s()[x-1], in[2].Int64s()[z-1] = float32(round), int64(round)
		want := float32(3 * round)
		if round%2 == 1 {
			in[3] = floats(t, []int64{1}, 5)
			want = float32(5 * round)
		}
		if err := m.Run(in, out); err != nil {
			t.Fatal(err)
		}
		if got := out[0].Float32s(); int64(len(got)) != x || got[x-1] != want || textsOf(&out[1])[1] != fmt.Sprint(round) || !slices.Equal(out[2].Int64s(), in[2].Int64s()) {
			t.Errorf("round %d, sizes %d and %d: %v", round, x, z, got[x-1])
		}
	}
}

// TestViewsOfManyGoroutines has models read one body at the same time, while the collector
// runs: it must neither free nor move anything, and nobody writes to the body.
func TestViewsOfManyGoroutines(t *testing.T) {
	e := open(t)
	body := borrowed(t, inference.FP32, []int64{copied + 4}, 4)
	fillRandomly(&body, rand.New(rand.NewPCG(3, 4)))
	path := graph{
		nodes:   []node{{op: "Identity", in: []string{"x"}, out: []string{"y"}}},
		inputs:  []value{{"x", float, []int64{-1}}},
		outputs: []value{{"y", float, []int64{-1}}},
	}.write(t)
	done := make(chan struct{})
	var collector, runners sync.WaitGroup
	collector.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				runtime.GC()
			}
		}
	})
	for g := range 8 {
		m := mustLoad(t, e, path)
		runners.Go(func() {
			in, out := make([]inference.Tensor, 1), make([]inference.Tensor, 1)
			for i := range 50 {
				n := copied/4 + 1 + (g*50+i)%1000
				part := body.Raw()[4*i : 4*(i+n)]
				if i%2 == 0 { // memory that nobody else refers to
					part = append([]byte(nil), part...)
				}
				if !in[0].Borrow(inference.FP32, []int64{int64(n)}, part) {
					t.Error("not aligned")
					return
				}
				if err := m.Run(in, out); err != nil {
					t.Error(err)
					return
				}
				if !bytes.Equal(out[0].Raw(), body.Raw()[4*i:4*(i+n)]) {
					t.Errorf("goroutine %d, run %d: other elements", g, i)
				}
			}
		})
	}
	runners.Wait()
	close(done)
	collector.Wait()
}

// TestViewsAllocateNothing, as view.go says.
func TestViewsAllocateNothing(t *testing.T) {
	e := open(t)
	m := mustLoad(t, e, shapeOnly(float).write(t))
	out := make([]inference.Tensor, 1)
	for _, n := range []int64{copied / 4, copied/4 + 1, 3 * 224 * 224} {
		in := []inference.Tensor{floats(t, []int64{n})}
		if allocated := testing.AllocsPerRun(200, func() {
			if err := m.Run(in, out); err != nil {
				t.Fatal(err)
			}
		}); allocated != 0 {
			t.Errorf("%d elements: %v allocations", n, allocated)
		}
	}
}

// shapeOnly is a model that looks at the shape of its input and at none of its elements: a
// run of it costs what handing over the input costs.
func shapeOnly(code int) graph {
	return graph{
		nodes:   []node{{op: "Shape", in: []string{"x"}, out: []string{"y"}}},
		inputs:  []value{{"x", code, []int64{-1}}},
		outputs: []value{{"y", int64s, []int64{1}}},
	}
}

// BenchmarkInput hands over inputs of different sizes: 600 KB are a picture of 224 × 224
// points in three colours.
func BenchmarkInput(b *testing.B) {
	e := open(b)
	for _, size := range []int{4 << 10, copied, copied + 4, 3 * 224 * 224 * 4, 8 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			m := mustLoad(b, e, shapeOnly(float).write(b))
			in, out := []inference.Tensor{floats(b, []int64{int64(size / 4)})}, make([]inference.Tensor, 1)
			b.ReportAllocs()
			for b.Loop() {
				if err := m.Run(in, out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
