package repository

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"preforkd/internal/inference"
	"preforkd/internal/ipc"
)

// None is the index of an output that a model does not have.
const None = -1

// Predict says which tensors POST /predict uses. At least one of Label and
// Probabilities is not None where Err is nil.
type Predict struct {
	Input         int // index in Model.Inputs
	Label         int // index in Model.Outputs, or None
	Probabilities int // index in Model.Outputs, or None
	Row           inference.Row
	// Err is why this model cannot answer POST /predict; nil: it can.
	Err error
}

// bind finds the tensors that s names, or that stand out where it names none. The
// error is about a name in s; a model that does not lend itself to POST /predict is
// none, but noted in Err.
func bind(m inference.Model, s ipc.PredictSettings) (Predict, error) {
	p := Predict{Input: None, Label: None, Probabilities: None}
	in, out := m.Inputs(), m.Outputs()
	err := errors.Join(
		named(&p.Input, "input", s.Input, "input", in),
		named(&p.Label, "label", s.Label, "output", out),
		named(&p.Probabilities, "probabilities", s.Probabilities, "output", out),
	)
	if err != nil {
		return Predict{}, err
	}
	p.Err = p.derive(in, out)
	if width := p.Row.Width; p.Err == nil && s.Sample != nil && width >= 0 && len(s.Sample) != width {
		return Predict{}, fmt.Errorf("config.yaml: predict.sample: %d numbers, input %q takes %d",
			len(s.Sample), in[p.Input].Name, width)
	}
	return p, nil
}

// named sets at to the index of the tensor called name in list, if name is not empty.
func named(at *int, key, name, kind string, list []inference.TensorInfo) error {
	if name == "" {
		return nil
	}
	if *at = index(list, func(t *inference.TensorInfo) bool { return t.Name == name }); *at >= 0 {
		return nil
	}
	return fmt.Errorf("config.yaml: predict.%s: the model has no %s %q, only %s", key, kind, name, names(list))
}

// derive fills in what the settings left open; the error says what is missing.
func (p *Predict) derive(in, out []inference.TensorInfo) (err error) {
	needed := in // the optional ones are last
	if i := index(in, func(t *inference.TensorInfo) bool { return t.Optional }); i >= 0 {
		needed = in[:i]
	}
	if len(needed) != 1 {
		return fmt.Errorf("the model has the inputs %s, POST /predict fills one: use POST /v2/models/…/infer", names(needed))
	}
	p.Input = 0
	info := &in[0]
	if info.DataType != inference.FP32 && info.DataType != inference.Int64 {
		return fmt.Errorf("input %q has the datatype %s; features are read as FP32 or INT64", info.Name, info.DataType)
	}
	if p.Row, err = info.Row(); err != nil {
		return err
	}
	if p.Label == None {
		p.Label = index(out, isInteger)
	}
	if p.Probabilities == None {
		p.Probabilities = index(out, func(t *inference.TensorInfo) bool { return t.DataType == inference.FP32 })
	}
	if p.Probabilities == p.Label { // named as the label, a floating-point output is no second one
		p.Probabilities = None
	}
	return p.usable(out)
}

// usable returns an error unless the outputs have types that an answer can carry.
func (p *Predict) usable(out []inference.TensorInfo) error {
	if p.Label == None && p.Probabilities == None {
		return fmt.Errorf("none of the outputs %s has the datatype INT64 or FP32", names(out))
	}
	if p.Label != None && out[p.Label].DataType != inference.FP32 && !isInteger(&out[p.Label]) {
		return fmt.Errorf("output %q has the datatype %s; a label is INT64 or FP32", out[p.Label].Name, out[p.Label].DataType)
	}
	if p.Probabilities != None && out[p.Probabilities].DataType != inference.FP32 {
		return fmt.Errorf("output %q has the datatype %s; probabilities are FP32", out[p.Probabilities].Name, out[p.Probabilities].DataType)
	}
	return nil
}

func isInteger(t *inference.TensorInfo) bool { return t.DataType == inference.Int64 }

func index(list []inference.TensorInfo, match func(*inference.TensorInfo) bool) int {
	return slices.IndexFunc(list, func(t inference.TensorInfo) bool { return match(&t) })
}

// names lists the tensors for a message.
func names(list []inference.TensorInfo) string {
	quoted := make([]string, len(list))
	for i := range list {
		quoted[i] = fmt.Sprintf("%q", list[i].Name)
	}
	return strings.Join(quoted, ", ")
}
