package codec

import (
	"math"
	"strconv"
	"unicode/utf8"

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

// codecs has an entry for each data type that JSON tensors may have: all but the short
// floats, which the protocol carries in binary form only.
var codecs = [...]elementCodec{
	inference.Bool:   {readAs((*scanner).bool, nil), appendBools},
	inference.Uint8:  {readAs((*scanner).uint8, integers[uint8]), appendUints[uint8]},
	inference.Uint16: {readAs((*scanner).uint16, integers[uint16]), appendUints[uint16]},
	inference.Uint32: {readAs((*scanner).uint32, integers[uint32]), appendUints[uint32]},
	inference.Uint64: {readAs((*scanner).uint64, integers[uint64]), appendUints[uint64]},
	inference.Int8:   {readAs((*scanner).int8, integers[int8]), appendInts[int8]},
	inference.Int16:  {readAs((*scanner).int16, integers[int16]), appendInts[int16]},
	inference.Int32:  {readAs((*scanner).int32, integers[int32]), appendInts[int32]},
	inference.Int64:  {readAs((*scanner).int64, integers[int64]), appendInts[int64]},
	inference.FP32:   {readAs((*scanner).float32, float32s), appendFloat32s},
	inference.FP64:   {readAs((*scanner).float64, float64s), appendFloat64s},
	inference.Bytes:  {readTexts, appendTexts},
}

// codecOf returns the codec of dt; its functions are nil when there is none.
func codecOf(dt inference.DataType) elementCodec {
	if int(dt) < len(codecs) {
		return codecs[dt]
	}
	return elementCodec{}
}

// readAs makes a read of one, which reads an element, and many, which reads as many plain
// ones as follow one another, at most len(dst), and ends before an element; nil: none.
func readAs[T inference.Number](one func(*scanner) (T, bool), many func(s *scanner, dst []T) int) func(*scanner, *inference.Tensor, int, int, int) (int, bool) {
	return func(s *scanner, t *inference.Tensor, lo, hi, levels int) (int, bool) {
		var dst []T
		if t != nil {
			dst = inference.View[T](t)[lo:hi]
		}
		return elements(s, dst, one, many, levels)
	}
}

// most returns how many elements of type dt there can be in the rest of the text, each with a
// comma: the shortest are a digit and two quotes.
func (s *scanner) most(dt inference.DataType) int64 {
	shortest := len("0,")
	if dt == inference.Bytes {
		shortest = len(`"",`)
	}
	return int64((len(s.b)-s.i)/shortest + 1)
}

func readTexts(s *scanner, t *inference.Tensor, _, hi, levels int) (int, bool) {
	s.texts, s.room = t, hi
	n, ok := elements[struct{}](s, nil, (*scanner).text, nil, levels)
	s.texts = nil
	return n, ok
}

// text reads a string as the next element of s.texts.
func (s *scanner) text() (struct{}, bool) {
	if s.i >= len(s.b) || s.b[s.i] != '"' {
		return struct{}{}, s.unexpected("a string")
	}
	text, ok := s.str()
	if ok && s.texts != nil && s.texts.Len() < s.room {
		s.texts.AppendText(text)
	}
	return struct{}{}, ok
}

// elements reads an array, whose elements are read by one and many or are arrays, up to
// levels of them in all. It stores them in the order of the text, which is row-major, as
// far as dst has room, and returns how many there are. As in the reference server, only
// their number counts, not how they are nested.
func elements[T any](s *scanner, dst []T, one func(*scanner) (T, bool), many func(*scanner, []T) int, levels int) (n int, ok bool) {
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
		if many != nil && n < len(dst) {
			n += many(s, dst[n:])
			*at = n
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

func appendInts[T signed](dst []byte, t *inference.Tensor, lo, hi int) ([]byte, int) {
	for i, v := range inference.View[T](t)[lo:hi] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, int64(v), 10)
	}
	return dst, -1
}

func appendUints[T unsigned](dst []byte, t *inference.Tensor, lo, hi int) ([]byte, int) {
	for i, v := range inference.View[T](t)[lo:hi] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(dst, uint64(v), 10)
	}
	return dst, -1
}

// appendBools looks at bytes: an engine's may be any, and true is what is not zero.
func appendBools(dst []byte, t *inference.Tensor, lo, hi int) ([]byte, int) {
	for i, v := range t.Raw()[lo:hi] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendBool(dst, v != 0)
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
		dst = appendFloat(dst, float64(v), 32)
	}
	return dst, -1
}

func appendFloat64s(dst []byte, t *inference.Tensor, lo, hi int) ([]byte, int) {
	for i, v := range inference.View[float64](t)[lo:hi] {
		if v-v != 0 {
			return dst, lo + i
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendFloat(dst, v, 64)
	}
	return dst, -1
}

func appendTexts(dst []byte, t *inference.Tensor, lo, hi int) ([]byte, int) {
	for i := lo; i < hi; i++ {
		text := t.Text(i)
		if !utf8.Valid(text) {
			return dst, i
		}
		if i > lo {
			dst = append(dst, ',')
		}
		dst = appendString(dst, text)
	}
	return dst, -1
}

// appendFloat appends the shortest text that reads back as v, which has so many bits, in
// the form that JavaScript and encoding/json use: an exponent only below 1e-6 and from
// 1e21 on.
func appendFloat(dst []byte, v float64, bits int) []byte {
	format := byte('f')
	if abs := math.Abs(v); abs != 0 {
		// In its own precision: a float32 of 1e-6 is less than that as a float64.
		if bits == 32 && (float32(abs) < 1e-6 || float32(abs) >= 1e21) || bits == 64 && (abs < 1e-6 || abs >= 1e21) {
			format = 'e'
		}
	}
	return strconv.AppendFloat(dst, v, format, -1, bits)
}
