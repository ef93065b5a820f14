package codec

import (
	"encoding/binary"
	"fmt"

	"preforkd/internal/inference"
)

// The binary tensor data extension of the protocol (Triton: docs/protocol/
// extension_binary_data.md): after the JSON text follow the elements of the inputs that
// have a binary_data_size, in their order and without gaps; little endian, a BOOL as one
// byte, a string as its length in four bytes and then itself.

// headerField names the HTTP header that says how long the JSON text is.
const headerField = "Inference-Header-Content-Length"

// borrowFrom is how many bytes of elements are read where they lie, if they are aligned,
// rather than copied: a copy of fewer is quicker than what follows from another's memory.
// inference/onnx does not copy such tensors either, so that the model reads the body. Where
// they are not aligned the one copy is made here.
const borrowFrom = 64 << 10

// lengthBytes is how many bytes say how long a string is.
const lengthBytes = 4

// binary takes the data of the input that has been read.
func (r *InferRequest) binary() bool {
	s, in := &r.s, &r.input
	n, ok := r.fits(&r.in[in.index])
	if !ok {
		return false
	}
	s.path.push(part{name: "parameters"})
	s.path.push(part{name: "binary_data_size"})
	info := &r.in[in.index]
	if left := len(r.body) - r.next; in.binary > left {
		tensor, _ := r.words()
		return s.failf(in.binaryAt, "unexpected size for %s '%s', expecting %d additional bytes", tensor, info.Name, in.binary-left)
	}
	if size := in.dataType.Size(); size > 0 && int64(in.binary) != n*int64(size) {
		return s.failf(in.binaryAt, "%d bytes, the shape %v of %s has %d", in.binary, in.shape, in.dataType, n*int64(size))
	}
	data := r.body[r.next : r.next+in.binary]
	if !r.take(data, n) {
		return false
	}
	r.next += len(data)
	s.path.pop()
	s.path.pop()
	return true
}

// take makes data, the n elements at r.next, the value of the input that has been read.
func (r *InferRequest) take(data []byte, n int64) bool {
	in := &r.input
	t := &r.Inputs[in.index]
	t.Name = r.in[in.index].Name
	if in.dataType == inference.Bytes {
		return r.takeTexts(t, data, n)
	}
	if len(data) >= borrowFrom && t.Borrow(in.dataType, in.shape, data) {
		return true
	}
	if err := t.Reset(in.dataType, in.shape); err != nil {
		return r.s.fail(in.shapeAt, err.Error())
	}
	copy(t.Raw(), data)
	return true
}

// takeTexts reads n strings that are all of data.
func (r *InferRequest) takeTexts(t *inference.Tensor, data []byte, n int64) bool {
	s, in := &r.s, &r.input
	if n > int64(len(data)/lengthBytes) {
		return s.failf(in.binaryAt, "%d bytes cannot hold the %d strings of the shape %v", len(data), n, in.shape)
	}
	if err := t.Reset(inference.Bytes, in.shape); err != nil {
		return s.fail(in.shapeAt, err.Error())
	}
	t.ReserveText(int(n), len(data)-int(n)*lengthBytes)
	at := 0
	for k := range int(n) {
		if len(data)-at < lengthBytes {
			return s.failf(r.next+at, "the data of %s ends before string %d of %d", in.name(r), k, n)
		}
		length := int64(binary.LittleEndian.Uint32(data[at:]))
		if left := int64(len(data) - at - lengthBytes); length > left {
			return s.failf(r.next+at, "string %d of %s is %d bytes long, %d are left", k, in.name(r), length, left)
		}
		at += lengthBytes
		t.AppendText(data[at : at+int(length)])
		at += int(length)
	}
	if at < len(data) {
		return s.failf(r.next+at, "%d bytes of %s follow its last string", len(data)-at, in.name(r))
	}
	return true
}

// name is what messages call the input, or output, that is being read.
func (in *input) name(r *InferRequest) string {
	tensor, _ := r.words()
	return tensor + " '" + r.in[in.index].Name + "'"
}

// allTaken checks that nothing follows the data of the last input.
func (r *InferRequest) allTaken() bool {
	if left := len(r.body) - r.next; left > 0 {
		tensor, _ := r.words()
		return r.s.failf(r.next, "unexpected additional %s data: %d bytes belong to no %s", tensor, left, tensor)
	}
	return true
}

// raw takes the whole body as the model's only input. All outputs are sent as binary
// data.
func (r *InferRequest) raw() bool {
	in := &r.input
	*in = input{index: -1, shape: in.shape[:0]}
	for i := range r.in {
		if r.in[i].Optional {
			r.Inputs[i].DataType = inference.Invalid
			continue
		}
		if in.index >= 0 {
			return r.notRaw("the model has more than one input")
		}
		in.index = i
	}
	if in.index < 0 {
		return r.notRaw("the model has no input that must be given")
	}
	info := &r.in[in.index]
	in.dataType = info.DataType
	if info.AnyShape {
		return r.notRaw(fmt.Sprintf("input %q takes any shape", info.Name))
	}
	if why := r.rawShape(info); why != "" {
		return r.notRaw(why)
	}
	for i := range r.out {
		r.Outputs, r.forms = append(r.Outputs, i), append(r.forms, inBinary)
	}
	if in.dataType == inference.Bytes { // the bare string
		t := &r.Inputs[in.index]
		if err := t.Reset(inference.Bytes, in.shape); err != nil {
			return r.notRaw(err.Error())
		}
		t.Name = info.Name
		t.AppendText(r.body)
		return true
	}
	return r.take(r.body, 0)
}

// rawShape finds the shape that the body has as a value of info: a batch of one where more
// than the batch is open, and one size that the body's length tells. why is what is in the
// way of that.
func (r *InferRequest) rawShape(info *inference.TensorInfo) (why string) {
	in, open, rest := &r.input, -1, int64(1)
	for i, d := range info.Shape {
		in.shape = append(in.shape, d)
		switch {
		case d >= 0:
			if d != 0 && rest > inference.MaxElements/d {
				return "the model's input is larger than memory"
			}
			rest *= d
		case open == 0: // the batch, and this is another one
			in.shape[0], open = 1, i
		case open < 0:
			open = i
		default:
			return fmt.Sprintf("of input %q with the shape %v more than one size is open beside the batch", info.Name, info.Shape)
		}
	}
	size, elements := int64(info.DataType.Size()), int64(1)
	if size > 0 {
		elements = int64(len(r.body)) / size
	}
	switch {
	case open >= 0 && rest > 0 && elements%rest == 0:
		in.shape[open] = elements / rest
		rest = elements
	case open >= 0:
		rest = 0
	}
	if size == 0 && rest != 1 {
		return fmt.Sprintf("input %q with the shape %v is not a single string", info.Name, info.Shape)
	}
	if size > 0 && (rest == 0 || rest*size != int64(len(r.body))) {
		return fmt.Sprintf("%d bytes are no value of input %q with the shape %v of %s", len(r.body), info.Name, info.Shape, info.DataType)
	}
	return ""
}

// notRaw fails because the whole body cannot be the only input.
func (r *InferRequest) notRaw(why string) bool {
	r.s.err = &Error{Field: headerField, Offset: -1, Text: "0 says that the whole body is the model's only input, but " + why}
	return false
}

// binarySize is how many bytes t takes in binary form.
func binarySize(t *inference.Tensor) int {
	if t.DataType == inference.Bytes {
		return t.TextBytes() + lengthBytes*t.Len()
	}
	return len(t.Raw())
}

// appendBinary appends the elements of t in binary form.
func appendBinary(b []byte, t *inference.Tensor) []byte {
	if t.DataType != inference.Bytes {
		return append(b, t.Raw()...)
	}
	for i := range t.Len() {
		text := t.Text(i)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
		b = append(b, text...)
	}
	return b
}
