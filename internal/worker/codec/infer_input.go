package codec

import (
	"fmt"

	"preforkd/internal/inference"
)

// dataLevels is how many arrays "data" may have in one another: what maxDepth leaves
// inside of the request, its inputs and the input.
const dataLevels = maxDepth - 3

// readInput reads an element of "inputs".
func (r *InferRequest) readInput() bool {
	s, in := &r.s, &r.input
	from := s.i
	*in = input{index: -1, shape: in.shape[:0], binary: -1}
	seen, ok := s.object("an object", r.inputMember)
	if !ok {
		return false
	}
	if !r.present(seen, from) {
		return false
	}
	if in.binary >= 0 {
		return r.binary()
	}
	if in.deferred == 0 {
		return true
	}
	end := s.i
	s.i = in.deferred
	if !r.data() {
		return false
	}
	s.i = end
	return true
}

// present checks that an input has what it needs.
func (r *InferRequest) present(seen, at int) bool {
	s := &r.s
	for _, need := range [...]struct {
		bit  int
		name string
	}{{keyName, "name"}, {keyShape, "shape"}, {keyDataType, "datatype"}, {keyData, "data"}} {
		if seen&need.bit == 0 && (need.bit != keyData || r.input.binary < 0) {
			s.path.push(part{name: need.name})
			return s.fail(at, "missing")
		}
	}
	if seen&keyData != 0 && r.input.binary >= 0 {
		s.path.push(part{name: "data"})
		tensor, _ := r.words()
		return s.failf(at, "given, and binary_data_size as well: an %s is sent in one form", tensor)
	}
	return true
}

func (r *InferRequest) inputMember(key []byte) bool {
	s, in, ok := &r.s, &r.input, true
	switch string(key) {
	case "name":
		ok = s.once(keyName, "name") && r.inputName()
	case "shape":
		ok = s.once(keyShape, "shape") && r.shape()
	case "datatype":
		ok = s.once(keyDataType, "datatype") && r.dataType()
	case "parameters":
		ok = s.once(keyParameters, "parameters") && s.parameters(r.inputParameter)
	case "data":
		if !s.once(keyData, "data") {
			return false
		}
		s.path.pop()
		if in.index >= 0 && in.hasShape && in.dataType != inference.Invalid {
			return r.data()
		}
		// What the elements are is told only after them: check them now, read them then.
		s.space()
		in.deferred = s.i
		return s.skipUnknown(3)
	default:
		return s.skipUnknown(3)
	}
	if ok {
		s.path.pop()
	}
	return ok
}

func (r *InferRequest) inputName() bool {
	s, in := &r.s, &r.input
	if s.peek() != '"' {
		return s.unexpected("a string")
	}
	in.nameAt = s.i
	name, ok := s.str()
	if !ok {
		return false
	}
	in.index = find(r.in, name)
	switch tensor, _ := r.words(); {
	case in.index < 0 && r.answer:
		return s.failf(in.nameAt, "no output %q is declared", clip(name))
	case in.index < 0:
		return s.failf(in.nameAt, "the model has no input %q", clip(name))
	case r.given[in.index]:
		return s.failf(in.nameAt, "%s %q is given twice", tensor, clip(name))
	}
	r.given[in.index] = true
	return true
}

// find returns the index of the tensor called name, or -1.
func find(list []inference.TensorInfo, name []byte) int {
	for i := range list {
		if list[i].Name == string(name) {
			return i
		}
	}
	return -1
}

func (r *InferRequest) dataType() bool {
	s, in := &r.s, &r.input
	if s.peek() != '"' {
		return s.unexpected("a string")
	}
	in.typeAt = s.i
	name, ok := s.str()
	if !ok {
		return false
	}
	if in.dataType = inference.ParseDataType(name); in.dataType == inference.Invalid {
		return s.failf(in.typeAt, "%q is no datatype", clip(name))
	}
	return true
}

func (r *InferRequest) shape() bool {
	s, in := &r.s, &r.input
	s.space()
	in.shapeAt = s.i
	if !s.open('[', "an array") {
		return false
	}
	for i := 0; ; i++ {
		more, ok := s.more(']', i == 0)
		if !ok {
			return false
		}
		if !more {
			in.hasShape = true
			return true
		}
		s.path.push(part{index: i})
		s.space()
		at := s.i
		size, ok := s.int64()
		switch {
		case !ok:
			return false
		case size < 0:
			return s.failf(at, "%d is negative", size)
		case i == maxRank:
			return s.failf(at, "more than %d dimensions", maxRank)
		}
		in.shape = append(in.shape, size)
		s.path.pop()
	}
}

// data reads the elements, of which everything else is known by now.
func (r *InferRequest) data() bool {
	s, in := &r.s, &r.input
	n, ok := r.fits(&r.in[in.index])
	if !ok {
		return false
	}
	if codecOf(in.dataType).read == nil {
		s.path.push(part{name: "datatype"})
		tensor, _ := r.words()
		return s.failf(in.typeAt, "receiving %s data via JSON is not supported. Please use the binary data format for %s %s",
			in.dataType, tensor, r.in[in.index].Name)
	}
	s.path.push(part{name: "data"})
	s.space()
	at, t := s.i, &r.Inputs[in.index]
	hi := int(n)
	if n > s.most(in.dataType) {
		t, hi = nil, 0 // there cannot be as many: nothing is allocated for them
	} else if err := t.Reset(in.dataType, in.shape); err != nil {
		return s.fail(at, err.Error())
	} else {
		t.Name = r.in[in.index].Name
		s.reserve(t, hi)
	}
	got, ok := codecOf(in.dataType).read(s, t, 0, hi, dataLevels)
	if !ok {
		return false
	}
	if int64(got) != n {
		return s.failf(at, "%d elements, the shape %v has %d", got, in.shape, n)
	}
	s.path.pop()
	return true
}

// fits checks datatype and shape against the model's and returns the number of
// elements.
func (r *InferRequest) fits(want *inference.TensorInfo) (n int64, ok bool) {
	s, in := &r.s, &r.input
	if in.dataType != want.DataType {
		s.path.push(part{name: "datatype"})
		_, wants := r.words()
		return 0, s.failf(in.typeAt, "%s, %s %s", in.dataType, wants, want.DataType)
	}
	s.path.push(part{name: "shape"})
	n, err := inference.Elements(in.shape)
	if err != nil {
		return 0, s.fail(in.shapeAt, err.Error())
	}
	if !want.AnyShape && !fitsShape(in.shape, want.Shape) {
		_, wants := r.words()
		return 0, s.fail(in.shapeAt, fmt.Sprintf("%v, %s %v", in.shape, wants, want.Shape))
	}
	s.path.pop()
	return n, true
}

func fitsShape(shape, want []int64) bool {
	if len(shape) != len(want) {
		return false
	}
	for i, d := range want {
		if d >= 0 && shape[i] != d {
			return false
		}
	}
	return true
}

// readOutput reads an element of "outputs".
func (r *InferRequest) readOutput() bool {
	s := &r.s
	from := s.i
	r.wanted = unsaid
	seen, ok := s.object("an object", r.outputMember)
	if !ok {
		return false
	}
	if seen&keyName == 0 {
		s.path.push(part{name: "name"})
		return s.fail(from, "missing")
	}
	r.forms = append(r.forms, r.wanted)
	return true
}

func (r *InferRequest) outputMember(key []byte) bool {
	s, ok := &r.s, true
	switch string(key) {
	case "name":
		ok = s.once(keyName, "name") && r.outputName()
	case "parameters":
		ok = s.once(keyParameters, "parameters") && s.parameters(r.outputParameter)
	default:
		return s.skipUnknown(3)
	}
	if ok {
		s.path.pop()
	}
	return ok
}

func (r *InferRequest) outputName() bool {
	s := &r.s
	if s.peek() != '"' {
		return s.unexpected("a string")
	}
	at := s.i
	name, ok := s.str()
	if !ok {
		return false
	}
	i := find(r.out, name)
	if i < 0 {
		return s.failf(at, "the model has no output %q", clip(name))
	}
	for _, other := range r.Outputs {
		if other == i {
			return s.failf(at, "output %q already exists in request", clip(name))
		}
	}
	r.Outputs = append(r.Outputs, i)
	return true
}
