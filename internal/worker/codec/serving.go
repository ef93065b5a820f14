package codec

import (
	"preforkd/internal/inference"
)

// ServingRequest is the body of POST /v1/models/…:predict, as TensorFlow Serving's REST
// interface and KServe's V1 protocol define it: rows, {"instances":[…]}, or columns,
// {"inputs":…}. The zero value is ready to use.
//
// A row is the value of the model's only input, or an object with a value for each input.
// A column is a whole tensor. Unlike in the Open Inference Protocol the nesting of arrays
// is the tensor's shape, and NaN, Infinity and -Infinity are numbers.
// https://www.tensorflow.org/tfx/serving/api_rest
type ServingRequest struct {
	// Inputs are the model's inputs in the model's order.
	Inputs []inference.Tensor
	// Rows is how many instances there are, if HasRows; else the body had columns.
	Rows    int
	HasRows bool

	s       scanner
	in      []inference.TensorInfo // of the model, while Decode runs
	columns []column               // by index of in
	cell    []byte                 // see scalar
	current int                    // row that is being read
}

// signature is the only one that a model has here, as TensorFlow calls it.
const signature = "serving_default"

// Decode reads body for a model with inputs in and outputs out. The error is an *Error.
// Nothing of body is kept.
func (r *ServingRequest) Decode(body []byte, in, out []inference.TensorInfo) error {
	r.in, r.Rows, r.HasRows = in, 0, false
	r.Inputs = resize(r.Inputs, len(in))
	r.columns = resize(r.columns, len(in))
	for i := range r.columns {
		c := &r.columns[i]
		c.given, c.stored, c.total = 0, 0, 0
	}
	ok := r.s.start(body)
	r.s.anyFloat = true
	ok = ok && r.request() && r.settled() && r.s.end() && r.writable(out)
	err := r.s.err
	r.s.b, r.s.rawKey, r.s.path, r.s.err = nil, nil, path{}, nil
	r.in = nil
	if !ok {
		return err
	}
	return nil
}

// Trim frees memory beyond limit bytes for each tensor and text, and returns how much.
func (r *ServingRequest) Trim(limit int) (freed int) {
	for i := range r.Inputs {
		freed += r.Inputs[i].Trim(limit)
	}
	return freed + trim(&r.s.scratch, limit) + trim(&r.cell, limit)
}

// Known keys of the request, as once counts them.
const (
	keySignature = 1 << iota
	keyInstances
	keyColumns
)

func (r *ServingRequest) request() bool {
	s := &r.s
	seen, ok := s.object("'{'", r.member)
	if !ok {
		return false
	}
	if seen&(keyInstances|keyColumns) == 0 {
		return s.fail(-1, `neither "instances", a list of rows, nor "inputs", whole tensors`)
	}
	return true
}

func (r *ServingRequest) member(key []byte) bool {
	s, ok := &r.s, true
	around := s.seen
	switch string(key) {
	case "signature_name":
		ok = s.once(keySignature, "signature_name") && r.signature()
	case "instances":
		ok = s.once(keyInstances, "instances") && r.single(around&keyColumns) && r.rows()
	case "inputs":
		ok = s.once(keyColumns, "inputs") && r.single(around&keyInstances) && r.whole()
	default:
		return s.skipUnknown(1)
	}
	if ok {
		s.path.pop()
	}
	return ok
}

// single refuses the second of two forms.
func (r *ServingRequest) single(other int) bool {
	if other == 0 {
		return true
	}
	r.s.space()
	return r.s.fail(r.s.i, `"instances" and "inputs" are two forms of a request, send one of them`)
}

func (r *ServingRequest) signature() bool {
	s := &r.s
	if s.peek() != '"' {
		return s.unexpected("a string")
	}
	at := s.i
	name, ok := s.str()
	if ok && len(name) > 0 && string(name) != signature {
		return s.failf(at, "the model has no signature %q, only %q", clip(name), signature)
	}
	return ok
}

// rows reads the value of "instances".
func (r *ServingRequest) rows() bool {
	s := &r.s
	if s.peek() != '[' {
		return s.unexpected("a list of instances")
	}
	at := s.i
	s.i++
	first := s.peek()
	objects := first == '{' && !r.encoded()
	switch s.i = at; {
	case first == ']':
		return s.fail(at, "empty, at least one instance is expected")
	case objects:
		return r.objects()
	case len(r.in) != 1:
		s.path.push(part{index: 0})
		s.i++
		s.space()
		return s.failf(s.i, "the model has %d inputs: each instance is an object with a value for %s", len(r.in), r.names())
	}
	r.HasRows = true
	c := &r.columns[0]
	if !r.layOut(0, 0) || !r.value(0, 0) {
		return false
	}
	r.Rows = int(c.sizes[0])
	return true
}

// encoded tells whether the object that is next is {"b64":…}, which is a value. It reads
// nothing.
func (r *ServingRequest) encoded() bool {
	s := &r.s
	at, scratch := s.i, s.scratch
	defer func() { s.i, s.scratch, s.err = at, scratch, nil }()
	s.i++
	if s.peek() != '"' {
		return false
	}
	key, ok := s.str()
	return ok && string(key) == "b64" && find(r.in, key) < 0
}

// objects reads instances of which each has a value for each input.
func (r *ServingRequest) objects() bool {
	s := &r.s
	var size [2]int64
	r.HasRows, r.Rows = true, int(s.sizes(size[:0], len(size))[0])
	s.i++
	for r.current = 0; ; r.current++ {
		more, ok := s.more(']', r.current == 0)
		if !more || !ok {
			return ok
		}
		s.path.push(part{index: r.current})
		s.space()
		from := s.i
		if _, ok := s.object("an object", r.instanceMember); !ok || !r.complete(r.current+1, from) {
			return false
		}
		s.path.pop()
	}
}

// complete checks that every input has been given so many times.
func (r *ServingRequest) complete(times, at int) bool {
	for i := range r.columns {
		if r.columns[i].given != times {
			r.s.path.push(part{name: r.in[i].Name})
			return r.s.fail(at, "missing")
		}
	}
	return true
}

// instanceMember reads the value of one input in one instance.
func (r *ServingRequest) instanceMember(key []byte) bool {
	i, ok := r.named(key, r.current)
	if !ok || r.current == 0 && !r.layOut(i, 1) || !r.value(i, 1) {
		return false
	}
	r.s.path.pop()
	return true
}

// named finds the input called key, which has been given before times, and pushes it.
func (r *ServingRequest) named(key []byte, before int) (i int, ok bool) {
	s := &r.s
	s.space()
	if i = find(r.in, key); i < 0 {
		name := clip(key)
		s.path.push(part{key: s.rawKey})
		return i, s.failf(s.i, "the model has no input %q, only %s", name, r.names())
	}
	s.path.push(part{name: r.in[i].Name})
	if r.columns[i].given != before {
		return i, s.fail(s.i, "given twice")
	}
	r.columns[i].given++
	return i, true
}

// whole reads the value of "inputs".
func (r *ServingRequest) whole() bool {
	s := &r.s
	if s.peek() == '{' && !r.encoded() {
		from := s.i
		_, ok := s.object("an object", r.columnMember)
		return ok && r.complete(1, from)
	}
	if len(r.in) != 1 {
		return s.failf(s.i, "the model has %d inputs: an object with a value for %s is expected", len(r.in), r.names())
	}
	return r.layOut(0, 0) && r.value(0, 0)
}

func (r *ServingRequest) columnMember(key []byte) bool {
	i, ok := r.named(key, 0)
	if !ok || !r.layOut(i, 0) || !r.value(i, 0) {
		return false
	}
	r.s.path.pop()
	return true
}

// names lists the model's inputs for a message.
func (r *ServingRequest) names() string {
	text := ""
	for i := range r.in {
		if i > 0 {
			text += ", "
		}
		text += `"` + r.in[i].Name + `"`
	}
	return text
}

// writable refuses a model with an output that JSON does not carry, before it runs.
func (r *ServingRequest) writable(out []inference.TensorInfo) bool {
	for i := range out {
		if codecOf(out[i].DataType).write == nil {
			return r.s.failf(-1, "output %q has the datatype %s, which is not supported in JSON", out[i].Name, out[i].DataType)
		}
	}
	return true
}
