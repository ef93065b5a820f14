package codec

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strings"
	"unicode/utf8"

	"preforkd/internal/inference"
)

// AppendResponse appends the answer to r, which a model gave with out: "predictions" with
// an element for each row, or "outputs" with whole tensors. The values of a model with one
// output stand for themselves, those of several are objects.
//
// An error is an *Error where the request asked for rows of what has none, else an
// *OutputError; then nothing of b is of use.
func (r *ServingRequest) AppendResponse(b []byte, out []inference.Tensor) ([]byte, error) {
	if !r.HasRows {
		b = append(b, `{"outputs":`...)
		b, err := appendValues(b, out, func(b []byte, t *inference.Tensor) ([]byte, error) {
			return appendNested(b, t, t.Shape, 0)
		})
		return append(b, '}'), err
	}
	for i := range out {
		if shape := out[i].Shape; len(shape) == 0 || shape[0] != int64(r.Rows) {
			return b, rowless(&out[i], r.Rows)
		}
	}
	b = append(b, `{"predictions":[`...)
	for k := range r.Rows {
		if k > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendValues(b, out, func(b []byte, t *inference.Tensor) ([]byte, error) {
			return appendNested(b, t, t.Shape[1:], k*stride(t.Shape))
		}); err != nil {
			return b, err
		}
	}
	return append(b, `]}`...), nil
}

func rowless(t *inference.Tensor, rows int) error {
	var s scanner
	s.path.push(part{name: "instances"})
	s.failf(-1, "output %q has the shape %v, which is not a row for each of %d instances; send \"inputs\" to get whole tensors", t.Name, t.Shape, rows)
	return s.err
}

// appendValues appends what one appends for the only tensor, or an object with that for
// each of several.
func appendValues(b []byte, out []inference.Tensor, one func([]byte, *inference.Tensor) ([]byte, error)) (_ []byte, err error) {
	if len(out) == 1 {
		return one(b, &out[0])
	}
	b = append(b, '{')
	for i := range out {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendString(b, out[i].Name)
		b = append(b, ':')
		if b, err = one(b, &out[i]); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

// stride returns how many elements each element of a shape's first size has.
func stride(shape []int64) int {
	n := 1
	for _, size := range shape[1:] {
		n *= int(size)
	}
	return n
}

// appendNested appends a part of t, which begins with element lo, as arrays of the shape.
func appendNested(b []byte, t *inference.Tensor, shape []int64, lo int) (_ []byte, err error) {
	if len(shape) == 0 {
		return appendLoosely(b, t, lo, lo+1)
	}
	b = append(b, '[')
	if len(shape) == 1 {
		if b, err = appendLoosely(b, t, lo, lo+int(shape[0])); err != nil {
			return b, err
		}
		return append(b, ']'), nil
	}
	each := stride(shape)
	for k := range int(shape[0]) {
		if k > 0 {
			b = append(b, ',')
		}
		if b, err = appendNested(b, t, shape[1:], lo+k*each); err != nil {
			return b, err
		}
	}
	return append(b, ']'), nil
}

// appendLoosely appends elements lo to hi of t, separated by commas: also such as JSON
// cannot carry.
func appendLoosely(b []byte, t *inference.Tensor, lo, hi int) ([]byte, error) {
	if t.DataType == inference.Bytes {
		return appendEncoded(b, t, lo, hi), nil
	}
	write := codecOf(t.DataType).write
	if write == nil {
		return appendElements(b, t, lo, hi) // which says so
	}
	for {
		var bad int
		if b, bad = write(b, t, lo, hi); bad < 0 {
			return b, nil
		}
		if bad > lo {
			b = append(b, ',')
		}
		b = append(b, notFiniteText(t, bad)...)
		if lo = bad + 1; lo == hi {
			return b, nil
		}
		b = append(b, ',')
	}
}

// notFiniteText returns the text of element i of t, a floating-point number that is not
// finite.
func notFiniteText(t *inference.Tensor, i int) string {
	var v float64
	if raw := t.Raw(); t.DataType == inference.FP64 {
		v = math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:]))
	} else {
		v = float64(math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])))
	}
	switch {
	case math.IsInf(v, 1):
		return "Infinity"
	case math.IsInf(v, -1):
		return "-Infinity"
	}
	return "NaN"
}

// appendEncoded appends strings. As in TensorFlow Serving an output whose name ends in
// _bytes has base64; here, too, what is no text.
func appendEncoded(b []byte, t *inference.Tensor, lo, hi int) []byte {
	encoded := strings.HasSuffix(t.Name, "_bytes")
	for i := lo; i < hi; i++ {
		if i > lo {
			b = append(b, ',')
		}
		text := t.Text(i)
		if !encoded && utf8.Valid(text) {
			b = appendString(b, text)
			continue
		}
		b = append(b, `{"b64":"`...)
		b = base64.StdEncoding.AppendEncode(b, text)
		b = append(b, `"}`...)
	}
	return b
}
