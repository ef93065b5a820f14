package onnx

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"preforkd/internal/inference"
)

// chain is a model of n operators in a row, each of which takes size³ steps. It answers
// with the elements of its input.
func chain(n int, size int64) graph {
	identity := make([]float32, size*size)
	for i := range size {
		identity[i*size+i] = 1
	}
	g := graph{
		inputs:  []value{{"x", float, []int64{-1, size}}},
		outputs: []value{{"y", float, []int64{-1, size}}},
		consts:  []literal{{name: "one", code: float, shape: []int64{size, size}, floats: identity}},
	}
	for i := range n {
		g.nodes = append(g.nodes, node{op: "MatMul", in: []string{fmt.Sprint("t", i), "one"}, out: []string{fmt.Sprint("t", i+1)}})
	}
	g.nodes[0].in[0], g.nodes[n-1].out[0] = "x", "y"
	return g
}

// TestStop stops a run that would take many seconds: the model then answers as before.
func TestStop(t *testing.T) {
	e := open(t)
	open, nobody := chain(300, 256), chain(300, 256)
	nobody.outputs[0].shape = []int64{-2, -1} // ONNX Runtime allocates the output
	for name, g := range map[string]graph{"bound": open, "allocated": nobody} {
		t.Run(name, func(t *testing.T) {
			m := mustLoad(t, e, g.write(t))
			s, err := e.NewStop()
			if err != nil {
				t.Fatal(err)
			}
			small := []inference.Tensor{floats(t, []int64{0, 256})}
			out := make([]inference.Tensor, 1)
			for range 3 {
				if err := m.RunUntil(s, small, out); err != nil {
					t.Fatal(err)
				}
				large := []inference.Tensor{floats(t, []int64{4096, 256})}
				ended := make(chan error, 1)
				go func() { ended <- m.RunUntil(s, large, make([]inference.Tensor, 1)) }()
				s.Set()
				if err := <-ended; !errors.Is(err, inference.ErrStopped) {
					t.Fatalf("stopped: %v", err)
				}
				if err := m.RunUntil(s, small, out); !errors.Is(err, inference.ErrStopped) {
					t.Fatalf("still stopped: %v", err)
				}
				if err := m.Run(small, out); err != nil {
					t.Fatalf("without the stop: %v", err)
				}
				s.Clear()
			}
			one := []inference.Tensor{floats(t, []int64{1, 256}, 3, 4)}
			if err := m.RunUntil(s, one, out); err != nil || out[0].Float32s()[0] != 3 || out[0].Float32s()[1] != 4 {
				t.Errorf("afterwards: %v, %v", err, out[0].Float32s())
			}
		})
	}
}

func TestStopOfAClosedEngine(t *testing.T) {
	e, err := Open(library(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.NewStop(); err == nil {
		t.Error("a stop of a closed engine")
	}
}

// TestStoppableRunsAllocateNothing, and really take the way that can be stopped.
func TestStoppableRunsAllocateNothing(t *testing.T) {
	e := open(t)
	m := mustLoad(t, e, chain(2, 8).write(t))
	st, err := e.NewStop()
	if err != nil {
		t.Fatal(err)
	}
	in, out := []inference.Tensor{floats(t, []int64{1, 8})}, make([]inference.Tensor, 1)
	if n := testing.AllocsPerRun(100, func() {
		if err := m.RunUntil(st, in, out); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	inside := m.(*model)
	if inside.calls.table == nil || inside.native == nil || inside.bindings[0].native == nil || st.(*stop).native == nil {
		t.Error("the binding hides a pointer in another way than it did: runs cannot be stopped")
	}
}

// TestHiddenIsCareful: another version of the binding is no reason to crash.
func TestHiddenIsCareful(t *testing.T) {
	type inner struct{ o *int }
	type outer struct {
		s *inner
		n int
	}
	for _, c := range []struct {
		object any
		fields []string
	}{
		{nil, nil},
		{7, nil},
		{&outer{}, []string{"none"}},
		{&outer{n: 1}, []string{"n"}},
		{&outer{}, []string{"s", "o"}},
		{&outer{s: &inner{o: nil}}, []string{"s", "o"}},
		{(*outer)(nil), []string{"s"}},
		{new(int), []string{"s"}},
	} {
		if p := hidden(c.object, c.fields...); p != nil {
			t.Errorf("%T %v: %v", c.object, c.fields, p)
		}
	}
}

// TestPlacesInTheTable compares the places in call_unsafe.go with the binding's header.
func TestPlacesInTheTable(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/yalue/onnxruntime_go").Output()
	if err != nil {
		t.Fatal(err)
	}
	header, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "onnxruntime_c_api.h"))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := os.ReadFile("call_unsafe.go")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(header), "\nstruct OrtApi {\n")
	table, _, _ = strings.Cut(table, "\n};\n")
	entry := regexp.MustCompile(`(?m)^ +(?:ORT_API2_STATUS\(|ORT_API_T\([^,]+, |ORT_CLASS_(RELEASE)2?\(|.*\(ORT_API_CALL\* ?)(\w+)`)
	var names []string
	for _, m := range entry.FindAllStringSubmatch(table, -1) {
		names = append(names, strings.ToLower(m[1]+m[2]))
	}
	found := regexp.MustCompile(`(?m)^\t(\w+) = (\d+),$`).FindAllStringSubmatch(string(ours), -1)
	for _, m := range found {
		var place int
		if _, err := fmt.Sscan(m[2], &place); err != nil {
			t.Fatal(err)
		}
		if place >= len(names) || names[place] != strings.ToLower(m[1]) {
			t.Errorf("place %d is not %s", place, m[1])
		}
	}
	if len(found) < 30 || len(names) < 250 {
		t.Errorf("%d places of %d entries", len(found), len(names))
	}
	if !strings.Contains(string(header), fmt.Sprintf("#define ORT_API_VERSION %d\n", apiVersion)) {
		t.Errorf("the header is of another version than %d", apiVersion)
	}
}
