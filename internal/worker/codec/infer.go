package codec

import (
	"bytes"

	"preforkd/internal/inference"
)

// Bounds of a request's small parts.
const (
	maxID   = 1024 // bytes of an id, which is echoed
	maxRank = 64   // dimensions of a shape
)

// InferRequest is the body of POST /v2/models/…/infer. The zero value is ready to use.
type InferRequest struct {
	// Inputs are the model's inputs in the model's order.
	Inputs []inference.Tensor
	// Outputs are the wanted outputs, as indexes of the model's, in the order in
	// which they are sent.
	Outputs []int
	// ID is the request's own name, if HasID.
	ID    []byte
	HasID bool

	s       scanner
	in, out []inference.TensorInfo // of the model, while Decode runs
	given   []bool                 // by index of in
	input   input
}

// input is what is known of the element of "inputs" that is being read.
type input struct {
	index    int // of the model's input; -1: not known yet
	dataType inference.DataType
	shape    []int64
	hasShape bool
	deferred int // offset of data that came before what it needs; 0: none
	nameAt   int // offsets of the values, for messages
	typeAt   int
	shapeAt  int
}

// Decode reads body for a model with inputs in and outputs out. The error is an *Error.
// Nothing of body is kept.
func (r *InferRequest) Decode(body []byte, in, out []inference.TensorInfo) error {
	r.reset(in, out)
	ok := r.s.start(body) && r.request() && r.s.end()
	err := r.s.err
	r.s.b, r.s.rawKey, r.s.path, r.s.err = nil, nil, path{}, nil
	r.in, r.out = nil, nil
	if !ok {
		return err
	}
	return nil
}

// Trim frees memory beyond limit bytes for each tensor and text.
func (r *InferRequest) Trim(limit int) {
	for i := range r.Inputs {
		r.Inputs[i].Trim(limit)
	}
	if cap(r.s.scratch) > limit {
		r.s.scratch = nil
	}
}

func (r *InferRequest) reset(in, out []inference.TensorInfo) {
	r.in, r.out = in, out
	r.Inputs = resize(r.Inputs, len(in))
	r.given = resize(r.given, len(in))
	clear(r.given)
	r.Outputs = r.Outputs[:0]
	r.ID, r.HasID = r.ID[:0], false
}

// resize returns a slice of n elements that keeps those that list ever had.
func resize[T any](list []T, n int) []T {
	list = list[:cap(list)]
	if n > len(list) {
		list = append(list, make([]T, n-len(list))...)
	}
	return list[:n]
}

// Known keys, as once counts them.
const (
	keyID = 1 << iota
	keyParameters
	keyInputs
	keyOutputs
	keyName
	keyShape
	keyDataType
	keyData
)

// request reads the whole object.
func (r *InferRequest) request() bool {
	seen, ok := r.s.object("'{'", r.member)
	return ok && r.complete(seen)
}

func (r *InferRequest) member(key []byte) bool {
	s, ok := &r.s, true
	switch string(key) {
	case "id":
		ok = s.once(keyID, "id") && r.id()
	case "parameters":
		ok = s.once(keyParameters, "parameters") && s.parameters(1, reservedByTriton)
	case "inputs":
		ok = s.once(keyInputs, "inputs") && r.list(r.readInput)
	case "outputs":
		ok = s.once(keyOutputs, "outputs") && r.list(r.readOutput)
	default:
		return s.skipUnknown(1)
	}
	if ok {
		s.path.pop()
	}
	return ok
}

// list reads an array whose elements are read by one.
func (r *InferRequest) list(one func() bool) bool {
	s := &r.s
	if !s.open('[', "an array") {
		return false
	}
	for i := 0; ; i++ {
		more, ok := s.more(']', i == 0)
		if !more || !ok {
			return ok
		}
		s.path.push(part{index: i})
		s.space()
		if !one() {
			return false
		}
		s.path.pop()
	}
}

func (r *InferRequest) id() bool {
	s := &r.s
	if s.peek() != '"' {
		return s.unexpected("a string")
	}
	at := s.i
	id, ok := s.str()
	if !ok {
		return false
	}
	if len(id) > maxID {
		return s.failf(at, "longer than %d bytes", maxID)
	}
	r.ID, r.HasID = append(r.ID, id...), true
	return true
}

// reservedByTriton refuses parameters that the reference server keeps for itself.
func reservedByTriton(s *scanner, key []byte) bool {
	if bytes.HasPrefix(key, []byte("triton_")) {
		return s.fail(s.i, "parameters that begin with triton_ are reserved")
	}
	return true
}

// noBinary refuses the parameter of an input whose elements follow the JSON text.
func noBinary(s *scanner, key []byte) bool {
	if string(key) == "binary_data_size" {
		return s.fail(s.i, `binary tensor data is not supported, send "data"`)
	}
	return true
}

// parameters checks and ignores an object of parameters, at the given depth.
func (s *scanner) parameters(depth int, check func(*scanner, []byte) bool) bool {
	if !s.open('{', "an object") {
		return false
	}
	for first := true; ; first = false {
		more, ok := s.more('}', first)
		if !more || !ok {
			return ok
		}
		key, ok := s.key()
		if !ok {
			return false
		}
		s.path.push(part{key: s.rawKey})
		if check != nil && !check(s, key) || !s.skip(depth+1) {
			return false
		}
		s.path.pop()
	}
}

// complete checks what can be told only after the whole object.
func (r *InferRequest) complete(seen int) bool {
	s := &r.s
	if seen&keyInputs == 0 {
		s.path.push(part{name: "inputs"})
		return s.fail(-1, "missing")
	}
	for i, given := range r.given {
		if !given {
			s.path.push(part{name: "inputs"})
			return s.failf(-1, "input %q is missing", r.in[i].Name)
		}
	}
	if len(r.Outputs) == 0 {
		for i := range r.out {
			r.Outputs = append(r.Outputs, i)
		}
	}
	for _, i := range r.Outputs {
		if codecOf(r.out[i].DataType).write == nil {
			s.path.push(part{name: "outputs"})
			return s.failf(-1, "output %q has the datatype %s, which is not supported in JSON", r.out[i].Name, r.out[i].DataType)
		}
	}
	return true
}
