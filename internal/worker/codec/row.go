package codec

import (
	"encoding/binary"
	"math"

	"preforkd/internal/inference"
)

// RowReader reads rows as a store holds them into a tensor that has been laid out for them. The
// zero value is ready to use. Its errors are *Error, about the text that it was given.
type RowReader struct {
	s     scanner
	array []byte // one element as an array of its own
	had   []bool // by index of the fields
}

// ReadsText tells whether elements of dt are read from text, and not from bytes alone.
func ReadsText(dt inference.DataType) bool { return dt != inference.Bytes && codecOf(dt).read != nil }

// Number reads text, which is one number, as element at of t. NaN, Infinity and -Infinity are
// numbers here where t has floating-point ones.
func (r *RowReader) Number(t *inference.Tensor, at int, text []byte) error {
	r.array = append(append(append(r.array[:0], '['), text...), ']')
	return r.elements(t, at, at+1, r.array)
}

// Numbers reads text, an array in JSON, as the elements lo to hi of t. It may be nested.
func (r *RowReader) Numbers(t *inference.Tensor, lo, hi int, text []byte) error {
	return r.elements(t, lo, hi, text)
}

func (r *RowReader) elements(t *inference.Tensor, lo, hi int, text []byte) error {
	s := &r.s
	ok := s.start(text)
	s.anyFloat = true
	if ok {
		var n int
		if n, ok = codecOf(t.DataType).read(s, t, lo, hi, maxRank); ok && n != hi-lo {
			ok = s.failf(-1, "%d numbers where %d are expected", n, hi-lo)
		}
	}
	return r.ended(ok && s.end())
}

func (r *RowReader) ended(ok bool) error {
	err := r.s.err
	r.s.b, r.s.rawKey, r.s.path, r.s.err = nil, nil, path{}, nil
	if !ok {
		return err
	}
	return nil
}

// Members reads text, an object in JSON, as the elements of t from lo on: of each member that is
// one of fields, at its index there. missing is called with the index of each that is not there, or
// null; its error is returned.
func (r *RowReader) Members(t *inference.Tensor, lo int, fields map[string]int, text []byte, missing func(field int) error) error {
	r.had = resize(r.had, len(fields))
	clear(r.had)
	var inner RowReader
	inner.array = r.array
	s := &r.s
	read := func(key []byte) bool {
		i, ok := fields[string(key)]
		if !ok {
			return s.skipUnknown(1)
		}
		s.path.push(part{key: s.rawKey})
		s.space()
		from := s.i
		switch {
		case r.had[i]:
			return s.fail(from, "given twice")
		case !s.skip(1):
			return false
		}
		value := s.b[from:s.i]
		s.path.pop()
		if string(value) == "null" {
			return true
		}
		r.had[i] = true
		if err := inner.Number(t, lo+i, value); err != nil {
			return s.failf(from, "%s is no %s", clip(value), t.DataType)
		}
		return true
	}
	ok := s.start(text)
	if ok {
		_, ok = s.object("'{'", read)
	}
	ok = ok && s.end()
	r.array = inner.array
	if err := r.ended(ok); err != nil {
		return err
	}
	for i, had := range r.had {
		if !had {
			if err := missing(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// Bytes copies memory, elements in little endian, to the elements lo to hi of t.
func (r *RowReader) Bytes(t *inference.Tensor, lo, hi int, memory []byte) error {
	size := t.DataType.Size()
	r.s.start(nothing) // for its errors
	if len(memory) != (hi-lo)*size {
		return r.ended(r.s.failf(-1, "%d bytes where %d are expected, %d of %s", len(memory), (hi-lo)*size, hi-lo, t.DataType))
	}
	if t.DataType == inference.Bool {
		for i, b := range memory {
			if b > 1 {
				return r.ended(r.s.failf(i, "%d is no BOOL: 0 and 1 are", b))
			}
		}
	}
	copy(t.Raw()[lo*size:hi*size], memory)
	return r.ended(true)
}

// Blank makes element at of t zero, or NaN where t has floating-point elements of 32 or 64 bits.
func Blank(t *inference.Tensor, at int, nan bool) {
	size := t.DataType.Size()
	b := t.Raw()[at*size : (at+1)*size]
	clear(b)
	switch {
	case nan && t.DataType == inference.FP32:
		binary.LittleEndian.PutUint32(b, math.Float32bits(float32(math.NaN())))
	case nan && t.DataType == inference.FP64:
		binary.LittleEndian.PutUint64(b, math.Float64bits(math.NaN()))
	}
}

// Ask begins a request of the server's own: no input is given yet, and all outputs are wanted in
// JSON, for a model with inputs in and outputs out.
func (r *InferRequest) Ask(in, out []inference.TensorInfo) {
	r.reset(in, out)
	for i := range r.Inputs {
		r.Inputs[i].DataType = inference.Invalid
	}
	for i := range out {
		r.Outputs, r.forms = append(r.Outputs, i), append(r.forms, inJSON)
	}
	r.in, r.out = nil, nil
}

// Writes tells whether elements of dt can be sent in JSON.
func Writes(dt inference.DataType) bool { return codecOf(dt).write != nil }
