package repository

import (
	"errors"
	"strings"
	"testing"

	"preforkd/internal/inference"
	"preforkd/internal/ipc"
)

// engine loads the models in its map, by path; any other path is a bad file.
type engine struct {
	models map[string]*model
	open   int
}

func (e *engine) Platform() string { return "test" }
func (e *engine) Version() string  { return "1" }
func (e *engine) Close() error     { return nil }

func (e *engine) NewStop() (inference.Stop, error) { return nil, errors.ErrUnsupported }

func (e *engine) Prepare(string, string) error { return errors.ErrUnsupported }

// LoadPrepared loads the model of that path, which a test says is a prepared one.
func (e *engine) LoadPrepared(dir string) (inference.Model, error) { return e.Load(dir) }

func (e *engine) Load(path string) (inference.Model, error) {
	m, ok := e.models[path]
	if !ok {
		return nil, errors.New("the protobuf is truncated")
	}
	e.open++
	loaded := *m
	loaded.engine = e
	return &loaded, nil
}

type model struct {
	engine  *engine
	in, out []inference.TensorInfo
	running bool
}

func (m *model) Inputs() []inference.TensorInfo  { return m.in }
func (m *model) Outputs() []inference.TensorInfo { return m.out }
func (m *model) Close() error                    { m.engine.open--; return nil }

func (m *model) Run(in, out []inference.Tensor) error { return m.RunUntil(nil, in, out) }

func (m *model) RunUntil(inference.Stop, []inference.Tensor, []inference.Tensor) error {
	if m.running { // the race detector sees it, too
		return errors.New("two runs at once")
	}
	m.running = true
	m.running = false
	return nil
}

func tensor(name string, dt inference.DataType, shape ...int64) inference.TensorInfo {
	return inference.TensorInfo{Name: name, DataType: dt, Shape: shape}
}

func classifier() *model {
	return &model{
		in: []inference.TensorInfo{tensor("pixels", inference.FP32, -1, 64)},
		out: []inference.TensorInfo{
			tensor("label", inference.Int64, -1), tensor("probabilities", inference.FP32, -1, 10),
		},
	}
}

func file(name, version string) ipc.ModelFile {
	return ipc.ModelFile{Name: name, Version: version, Source: "models/" + name + "/" + version, Path: "good", Digest: "d"}
}

func TestFind(t *testing.T) {
	e := &engine{models: map[string]*model{"good": classifier()}}
	pinned := file("b", "2")
	pinned.Options.Version = "2"
	r, err := Load(e, []ipc.ModelFile{file("b", "10"), pinned, file("a", "9"), file("a", "10"), file("c", "1")})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, version, want string
		err                 error
	}{
		{"a", "", "10", nil},
		{"a", "9", "9", nil},
		{"b", "", "2", nil},
		{"b", "10", "10", nil},
		{"a", "8", "", ErrUnknownVersion},
		{"A", "", "", ErrUnknownModel},
		{"", "", "", ErrUnknownModel},
		{"x", "1", "", ErrUnknownModel},
	} {
		m, err := r.Find(c.name, c.version)
		n, errBytes := r.FindBytes([]byte(c.name), []byte(c.version))
		if !errors.Is(err, c.err) || m != n || !errors.Is(errBytes, c.err) {
			t.Errorf("%s %s: %v, %v", c.name, c.version, err, errBytes)
		}
		if m != nil && (m.Version != c.want || m.Name != c.name) {
			t.Errorf("%s %s: version %s, want %s", c.name, c.version, m.Version, c.want)
		}
	}
	var names []string
	for _, m := range r.All() {
		names = append(names, m.Name+m.Version)
	}
	if got := strings.Join(names, " "); got != "a10 b2 c1" {
		t.Errorf("all: %s", got)
	}
	if got := strings.Join(r.Versions("a"), " "); got != "9 10" || r.Versions("x") != nil {
		t.Errorf("versions of a: %s", got)
	}
	name, version := []byte("a"), []byte("9")
	if n := testing.AllocsPerRun(100, func() { _, _ = r.FindBytes(name, version) }); n != 0 {
		t.Errorf("FindBytes allocates %v times", n)
	}
	if e.open != 5 {
		t.Errorf("%d models are open", e.open)
	}
	r.Close()
	if e.open != 0 || len(r.All()) != 0 {
		t.Errorf("after Close %d models are open", e.open)
	}
}

func TestLoadNamesEveryBadFile(t *testing.T) {
	e := &engine{models: map[string]*model{"good": classifier()}}
	corrupt, misnamed := file("corrupt", "1"), file("misnamed", "3")
	corrupt.Path = "elsewhere"
	misnamed.Options.Predict = ipc.PredictSettings{Input: "pixel", Label: "digit"}
	_, err := Load(e, []ipc.ModelFile{file("fine", "1"), corrupt, misnamed, file("fine", "1")})
	var bad *LoadError
	if !errors.As(err, &bad) || len(bad.Bad) != 3 {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{
		"3 models cannot be loaded",
		`load model "corrupt" version 1 from models/corrupt/1: the protobuf is truncated`,
		`load model "misnamed" version 3 from models/misnamed/3: config.yaml: predict.input: the model has no input "pixel", only "pixels"`,
		`config.yaml: predict.label: the model has no output "digit", only "label", "probabilities"`,
		`from models/fine/1: this version is listed twice`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if e.open != 0 {
		t.Errorf("%d models stay open", e.open)
	}
}

func TestPredictBinding(t *testing.T) {
	fp32, integer := inference.FP32, inference.Int64
	x := tensor("x", fp32, -1, 4)
	for name, c := range map[string]struct {
		in, out  []inference.TensorInfo
		settings ipc.PredictSettings
		want     [2]int // label, probabilities
		err      string // of Load, or else
		reason   string // why there is no /predict
	}{
		"classifier":          {in: classifier().in, out: classifier().out, want: [2]int{0, 1}},
		"outputs turned":      {in: []inference.TensorInfo{x}, out: []inference.TensorInfo{tensor("p", fp32, -1, 3), tensor("l", integer, -1)}, want: [2]int{1, 0}},
		"probabilities alone": {in: []inference.TensorInfo{x}, out: []inference.TensorInfo{tensor("p", fp32, -1, 3)}, want: [2]int{None, 0}},
		"second one named": {
			in: []inference.TensorInfo{x}, out: []inference.TensorInfo{tensor("p", fp32, -1, 3), tensor("q", fp32, -1, 3)},
			settings: ipc.PredictSettings{Probabilities: "q"}, want: [2]int{None, 1},
		},
		"label is a number": {
			in: []inference.TensorInfo{x}, out: []inference.TensorInfo{tensor("y", fp32, -1)},
			settings: ipc.PredictSettings{Label: "y"}, want: [2]int{0, None},
		},
		"two inputs": {
			in: []inference.TensorInfo{x, tensor("y", fp32, -1)}, out: classifier().out,
			reason: `the inputs "x", "y"`,
		},
		"strings in": {in: []inference.TensorInfo{tensor("s", inference.Bytes, -1, 1)}, out: classifier().out, reason: "BYTES"},
		"open sizes": {in: []inference.TensorInfo{tensor("s", fp32, -1, 3, -1, -1)}, out: classifier().out, reason: "not all known"},
		"strings out": {
			in: []inference.TensorInfo{x}, out: []inference.TensorInfo{tensor("s", inference.Bytes, -1)},
			reason: `none of the outputs "s"`,
		},
		"label of strings": {
			in: []inference.TensorInfo{x}, out: []inference.TensorInfo{tensor("s", inference.Bytes, -1)},
			settings: ipc.PredictSettings{Label: "s"}, reason: "a label is INT64 or FP32",
		},
		"probabilities of integers": {
			in: []inference.TensorInfo{x}, out: []inference.TensorInfo{tensor("l", integer, -1), tensor("p", integer, -1, 3)},
			settings: ipc.PredictSettings{Probabilities: "p"}, reason: "probabilities are FP32",
		},
		"short sample": {
			in: []inference.TensorInfo{x}, out: classifier().out,
			settings: ipc.PredictSettings{Sample: []float32{1, 2}}, err: `predict.sample: 2 numbers, input "x" takes 4`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := file("m", "1")
			f.Options.Predict = c.settings
			r, err := Load(&engine{models: map[string]*model{"good": {in: c.in, out: c.out}}}, []ipc.ModelFile{f})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v; want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			p := r.All()[0].Predict
			switch {
			case c.reason != "" && (p.Err == nil || !strings.Contains(p.Err.Error(), c.reason)):
				t.Errorf("reason %v, want %s", p.Err, c.reason)
			case c.reason == "" && (p.Err != nil || p.Input != 0 || [2]int{p.Label, p.Probabilities} != c.want):
				t.Errorf("%+v, want %v", p, c.want)
			}
		})
	}
}

func TestRunsOfOneModelFollowOneAnother(t *testing.T) {
	r, err := Load(&engine{models: map[string]*model{"good": classifier()}}, []ipc.ModelFile{file("m", "1")})
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan error)
	for range 8 {
		go func() {
			var err error
			for range 200 {
				err = errors.Join(err, r.All()[0].Run(nil, nil))
			}
			results <- err
		}()
	}
	for range 8 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}
