package codec

import (
	"fmt"
	"time"

	"preforkd/internal/inference"
)

// Bounds of a request's small parts.
const (
	maxID   = 1024 // bytes of an id, which is echoed
	maxRank = 64   // dimensions of a shape
)

// InferRequest is the body of POST /v2/models/…/infer. The zero value is ready to use.
type InferRequest struct {
	// Inputs are the model's inputs in the model's order. Optional ones that are not
	// given have the type Invalid.
	Inputs []inference.Tensor
	// Outputs are the wanted outputs, as indexes of the model's, in the order in
	// which they are sent.
	Outputs []int
	// ID is the request's own name, if HasID.
	ID    []byte
	HasID bool
	// Timeout is how long the client waits for the answer; 0: it does not say.
	Timeout time.Duration

	s       scanner
	in, out []inference.TensorInfo // of the model, while Decode runs
	given   []bool                 // by index of in
	input   input
	body    []byte // all of it; the JSON text is its beginning
	next    int    // offset of the binary data that no input has taken yet
	answer  bool   // it is a helper's: what is read are outputs; see Answer
	kind    []byte // content type of the answer's last output that has one
	form    form   // of the outputs that name none
	forms   []form // by index of Outputs
	wanted  form   // of the output that is being read
}

// form is how an output is sent.
type form uint8

const (
	unsaid form = iota
	inJSON
	inBinary
)

// input is what is known of the element of "inputs" that is being read.
type input struct {
	index    int // of the model's input; -1: not known yet
	dataType inference.DataType
	shape    []int64
	hasShape bool
	deferred int // offset of data that came before what it needs; 0: none
	binary   int // the size of its binary data; -1: none
	nameAt   int // offsets of the values, for messages
	typeAt   int
	shapeAt  int
	binaryAt int
}

// Decode reads body, all of which is JSON, for a model with inputs in and outputs out. The
// error is an *Error. Nothing of body is kept.
func (r *InferRequest) Decode(body []byte, in, out []inference.TensorInfo) error {
	return r.DecodeBinary(body, len(body), in, out)
}

// DecodeBinary is Decode for a body that begins with so many bytes of JSON, after which
// the binary data of inputs follow; 0: all of it is the model's only input. Large inputs
// of such data are not copied where they are aligned: Inputs refer to body until the next
// Decode or Trim.
func (r *InferRequest) DecodeBinary(body []byte, header int, in, out []inference.TensorInfo) error {
	r.reset(in, out)
	if header < 0 || header > len(body) {
		return &Error{
			Field: headerField, Offset: -1,
			Text: fmt.Sprintf("inference header size should be in range (0, %d), got: %d", len(body), header),
		}
	}
	r.body, r.next = body, header
	ok := false
	if header == 0 && len(body) > 0 {
		ok = r.raw()
	} else {
		ok = r.s.start(body[:header]) && r.request() && r.s.end() && r.allTaken()
	}
	err := r.s.err
	r.s.b, r.s.rawKey, r.s.path, r.s.err = nil, nil, path{}, nil
	r.in, r.out, r.body = nil, nil, nil
	if !ok {
		return err
	}
	return nil
}

// Trim frees memory beyond limit bytes for each tensor and text, and returns how much.
func (r *InferRequest) Trim(limit int) (freed int) {
	for i := range r.Inputs {
		freed += r.Inputs[i].Trim(limit)
	}
	return freed + trim(&r.s.scratch, limit)
}

// trim frees text if it is larger than limit bytes, and returns how much that was.
func trim(text *[]byte, limit int) (freed int) {
	if n := cap(*text); n > limit {
		*text = nil
		return n
	}
	return 0
}

func (r *InferRequest) reset(in, out []inference.TensorInfo) {
	r.in, r.out = in, out
	r.Inputs = resize(r.Inputs, len(in))
	r.given = resize(r.given, len(in))
	clear(r.given)
	r.Outputs, r.forms, r.form = r.Outputs[:0], r.forms[:0], unsaid
	r.ID, r.HasID, r.Timeout = r.ID[:0], false, 0
}

// words are what messages call what is read.
func (r *InferRequest) words() (tensor, wants string) {
	if r.answer {
		return "output", "is declared"
	}
	return "input", "the model takes"
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
	keyBinary
	keyPriority
	keyTimeout
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
		ok = s.once(keyParameters, "parameters") && r.s.parameters(r.parameter)
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

// complete checks what can be told only after the whole object.
func (r *InferRequest) complete(seen int) bool {
	s := &r.s
	if seen&keyInputs == 0 {
		s.path.push(part{name: "inputs"})
		return s.fail(-1, "missing")
	}
	for i, given := range r.given {
		if given {
			continue
		}
		if !r.in[i].Optional {
			s.path.push(part{name: "inputs"})
			return s.failf(-1, "input %q is missing", r.in[i].Name)
		}
		r.Inputs[i].DataType = inference.Invalid
	}
	if len(r.Outputs) == 0 {
		for i := range r.out {
			r.Outputs, r.forms = append(r.Outputs, i), append(r.forms, unsaid)
		}
	}
	for k, i := range r.Outputs {
		if r.forms[k] == unsaid {
			r.forms[k] = r.form
		}
		if r.forms[k] != inBinary && codecOf(r.out[i].DataType).write == nil {
			s.path.push(part{name: "outputs"})
			return s.failf(-1, "sending %s data via JSON is not supported. Please use the binary data format for output %s",
				r.out[i].DataType, r.out[i].Name)
		}
	}
	return true
}
