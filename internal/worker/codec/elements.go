package codec

import (
	"strconv"

	"preforkd/internal/inference"
)

// elementCodec reads and writes the elements of one data type as JSON.
type elementCodec struct {
	// read reads an array into elements lo to hi of t, or only counts and checks
	// them when t is nil. Elements beyond hi are counted and checked as well.
	read func(s *scanner, t *inference.Tensor, lo, hi, levels int) (n int, ok bool)
	// write appends elements lo to hi, separated by commas; bad is the first element
	// that JSON cannot carry, or -1.
	write func(dst []byte, t *inference.Tensor, lo, hi int) (b []byte, bad int)
}

// codecs has an entry for each data type that JSON tensors may have here.
var codecs = [...]elementCodec{
	inference.FP32:  {readFloat32s, appendFloat32s},
	inference.Int64: {readInt64s, appendInt64s},
}

// codecOf returns the codec of dt; its functions are nil when there is none.
func codecOf(dt inference.DataType) elementCodec {
	if int(dt) < len(codecs) {
		return codecs[dt]
	}
	return elementCodec{}
}

func readFloat32s(s *scanner, t *inference.Tensor, lo, hi, levels int) (int, bool) {
	var dst []float32
	if t != nil {
		dst = t.Float32s()[lo:hi]
	}
	return elements(s, dst, (*scanner).float32, levels)
}

func readInt64s(s *scanner, t *inference.Tensor, lo, hi, levels int) (int, bool) {
	var dst []int64
	if t != nil {
		dst = t.Int64s()[lo:hi]
	}
	return elements(s, dst, (*scanner).int64, levels)
}

// elements reads an array, whose elements are read by one or are arrays, up to levels
// of them in all. It stores them in the order of the text, which is row-major, as far
// as dst has room, and returns how many there are. As in the reference server, only
// their number counts, not how they are nested.
func elements[T any](s *scanner, dst []T, one func(*scanner) (T, bool), levels int) (n int, ok bool) {
	if !s.open('[', "'['") {
		return 0, false
	}
	s.path.push(part{})
	at := &s.path.parts[s.path.n-1].index
	for depth, first := 1, true; depth > 0; {
		switch c := s.peek(); {
		case c == ']': // after an element, or of an empty array
			s.i++
			depth--
			first = false
			continue
		case first:
		case c == ',':
			s.i++
			s.space()
		default:
			return n, s.unexpected("',' or ']'")
		}
		*at = n
		if levels > 1 && s.i < len(s.b) && s.b[s.i] == '[' {
			if depth == levels {
				return n, s.tooDeep()
			}
			s.i++
			depth++
			first = true
			continue
		}
		v, ok := one(s)
		if !ok {
			return n, false
		}
		if n < len(dst) {
			dst[n] = v
		}
		n++
		first = false
	}
	s.path.pop()
	return n, true
}

func appendInt64s(dst []byte, t *inference.Tensor, lo, hi int) ([]byte, int) {
	for i, v := range t.Int64s()[lo:hi] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, v, 10)
	}
	return dst, -1
}

func appendFloat32s(dst []byte, t *inference.Tensor, lo, hi int) ([]byte, int) {
	for i, v := range t.Float32s()[lo:hi] {
		if v-v != 0 { // NaN, and for infinities NaN again
			return dst, lo + i
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendFloat32(dst, v)
	}
	return dst, -1
}

// appendFloat32 appends the shortest text that reads back as v, in the form that
// JavaScript and encoding/json use: an exponent only below 1e-6 and from 1e21 on.
func appendFloat32(dst []byte, v float32) []byte {
	format := byte('f')
	if abs := max(v, -v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, float64(v), format, -1, 32)
}
