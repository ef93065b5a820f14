package codec

import (
	"math"
	"strconv"
)

// number is a number of RFC 8259, section 6, taken apart.
type number struct {
	mantissa uint64 // its digits without the point; exact while digits ≤ 19
	digits   int    // leading zeros of 0.001 included
	exponent int    // of ten: value = ±mantissa × 10^exponent
	negative bool
	whole    bool // neither a point nor an exponent
}

// maxExponent is where exponents are no longer counted: beyond any float.
const maxExponent = 1 << 20

// number reads a number.
func (s *scanner) number() (n number, ok bool) {
	b, i := s.b, s.i
	if i < len(b) && b[i] == '-' {
		n.negative = true
		i++
	}
	from := i
	for ; i < len(b); i++ {
		d := b[i] - '0'
		if d > 9 {
			break
		}
		n.mantissa = n.mantissa*10 + uint64(d)
	}
	n.digits = i - from
	n.whole = true
	if n.digits == 0 || n.digits > 1 && b[from] == '0' {
		s.i = from
		return n, s.badNumber(n.digits)
	}
	if i < len(b) && b[i] == '.' {
		i++
		from = i
		for ; i < len(b); i++ {
			d := b[i] - '0'
			if d > 9 {
				break
			}
			n.mantissa = n.mantissa*10 + uint64(d)
		}
		n.whole, n.exponent = false, from-i
		n.digits -= n.exponent
		if n.exponent == 0 {
			s.i = i
			return n, s.badNumber(0)
		}
	}
	s.i = i
	if i < len(b) && b[i]|0x20 == 'e' {
		return s.exponent(n)
	}
	return n, true
}

func (s *scanner) badNumber(digits int) bool {
	if digits > 1 {
		return s.fail(s.i, "a number with a leading zero")
	}
	return s.unexpected("a digit")
}

// exponent reads the exponent of n.
func (s *scanner) exponent(n number) (number, bool) {
	s.i++
	negative := false
	if s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
		negative = s.b[s.i] == '-'
		s.i++
	}
	from, e := s.i, 0
	for ; s.i < len(s.b) && s.b[s.i]-'0' <= 9; s.i++ {
		e = min(e*10+int(s.b[s.i]-'0'), maxExponent)
	}
	if s.i == from {
		return n, s.badNumber(0)
	}
	if negative {
		e = -e
	}
	n.exponent += e
	n.whole = false
	return n, true
}

func (s *scanner) skipNumber() bool {
	_, ok := s.number()
	return ok
}

// startsNumber tells whether c begins a number.
func startsNumber(c byte) bool { return c == '-' || c-'0' <= 9 }

// small reads one to seven digits that are all of a number: pixels, counts, words of a
// vocabulary. It reports false, having read nothing, where there is anything else.
func (s *scanner) small() (uint32, bool) {
	b, from := s.b, s.i
	v, i := uint32(0), from
	for ; i < len(b) && i < from+8; i++ {
		d := b[i] - '0'
		if d > 9 {
			break
		}
		v = v*10 + uint32(d)
	}
	n := i - from
	if n == 0 || n == 8 || i == len(b) || n > 1 && b[from] == '0' || b[i] != ',' && b[i] != ']' {
		return 0, false
	}
	s.i = i
	return v, true
}

// powers are those of ten that a float64 holds exactly.
var powers = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// float32 reads a number as the nearest float32, ties to even.
func (s *scanner) float32() (float32, bool) {
	if v, ok := s.small(); ok {
		return float32(v), true // exact: below 2^24
	}
	if s.anyFloat {
		if v, ok := s.notFinite(); ok {
			return float32(v), true
		}
	}
	if s.i >= len(s.b) || !startsNumber(s.b[s.i]) {
		return 0, s.unexpected("a number")
	}
	from := s.i
	n, ok := s.number()
	if !ok {
		return 0, false
	}
	if f, ok := n.float32(); ok {
		return f, true
	}
	// No string is made for a call that does not keep it, up to 32 bytes.
	f, err := strconv.ParseFloat(string(s.b[from:s.i]), 32)
	if err != nil { // the syntax has been checked: the range remains
		return 0, s.failf(from, "%s does not fit FP32", clip(s.b[from:s.i]))
	}
	return float32(f), true
}

// float32 returns n's value if a float64 tells it safely. mantissa and power of ten
// are rounded at most once each, so f is within two units in the last place of the
// value. Rounding f to a float32 then goes the value's way unless f is so near the
// middle of two float32 that the value may lie on its other side: there, below the
// normal float32 and near the largest, it reports false.
func (n *number) float32() (float32, bool) {
	if n.digits > 19 || n.exponent < -22 || n.exponent > 22 {
		return 0, false
	}
	f := n.scaled()
	return float32(f), safe(f)
}

// safe tells whether rounding f to a float32 goes the value's way.
func safe(f float64) bool {
	const (
		smallestNormal = 0x1p-126
		largest        = 3.4e38
		dropped        = 29 // bits of a float64's mantissa that a float32 has not
		middle         = 1 << (dropped - 1)
		near           = 4
	)
	rest, abs := math.Float64bits(f)&(1<<dropped-1), math.Abs(f)
	return rest-(middle-near) > 2*near && (abs >= smallestNormal || f == 0) && abs <= largest
}

// float64 reads a number as the nearest float64, ties to even.
func (s *scanner) float64() (float64, bool) {
	if v, ok := s.small(); ok {
		return float64(v), true
	}
	if s.anyFloat {
		if v, ok := s.notFinite(); ok {
			return v, true
		}
	}
	if s.i >= len(s.b) || !startsNumber(s.b[s.i]) {
		return 0, s.unexpected("a number")
	}
	from := s.i
	n, ok := s.number()
	if !ok {
		return 0, false
	}
	if n.digits <= 19 && n.mantissa < 1<<53 && -22 <= n.exponent && n.exponent <= 22 {
		return n.scaled(), true // both are exact, so that this rounds once
	}
	f, err := strconv.ParseFloat(string(s.b[from:s.i]), 64)
	if err != nil {
		return 0, s.failf(from, "%s does not fit FP64", clip(s.b[from:s.i]))
	}
	return f, true
}

// scaled is mantissa × 10^exponent, for exponents in powers.
func (n *number) scaled() float64 {
	f := float64(n.mantissa)
	if n.exponent < 0 {
		f /= powers[-n.exponent]
	} else {
		f *= powers[n.exponent]
	}
	if n.negative {
		f = -f
	}
	return f
}

// bool reads true, false, or a number that stands for one: 1 or 0.
func (s *scanner) bool() (bool, bool) {
	if s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == 't':
			return true, s.literal("true")
		case c == 'f':
			return false, s.literal("false")
		case startsNumber(c):
			from := s.i
			n, ok := s.number()
			if ok && (!n.whole || n.digits > 1 || n.mantissa > 1 || n.negative) {
				return false, s.failf(from, "%s is no BOOL: true, false, 1 and 0 are", clip(s.b[from:s.i]))
			}
			return n.mantissa == 1, ok
		}
	}
	return false, s.unexpected("true or false")
}

// Integers: digits, with a sign or without.

func (s *scanner) int8() (int8, bool)   { return signedOf[int8](s, math.MaxInt8, "INT8") }
func (s *scanner) int16() (int16, bool) { return signedOf[int16](s, math.MaxInt16, "INT16") }
func (s *scanner) int32() (int32, bool) { return signedOf[int32](s, math.MaxInt32, "INT32") }
func (s *scanner) int64() (int64, bool) { return signedOf[int64](s, math.MaxInt64, "INT64") }

func (s *scanner) uint8() (uint8, bool)   { return unsignedOf[uint8](s, math.MaxUint8, "UINT8") }
func (s *scanner) uint16() (uint16, bool) { return unsignedOf[uint16](s, math.MaxUint16, "UINT16") }
func (s *scanner) uint32() (uint32, bool) { return unsignedOf[uint32](s, math.MaxUint32, "UINT32") }
func (s *scanner) uint64() (uint64, bool) { return unsignedOf[uint64](s, math.MaxUint64, "UINT64") }

func signedOf[T signed](s *scanner, limit uint64, name string) (T, bool) {
	from := s.i
	n, ok := s.integer(name)
	if !ok {
		return 0, false
	}
	if n.negative {
		limit++
	}
	switch {
	case n.mantissa > limit:
		return 0, s.doesNotFit(from, name)
	case n.negative:
		return T(-n.mantissa), true // two's complement: also of the smallest
	}
	return T(n.mantissa), true
}

func unsignedOf[T unsigned](s *scanner, limit uint64, name string) (T, bool) {
	from := s.i
	n, ok := s.integer(name)
	if !ok {
		return 0, false
	}
	if n.mantissa > limit || n.negative && n.mantissa > 0 {
		return 0, s.doesNotFit(from, name)
	}
	return T(n.mantissa), true
}

// integer reads a number whose mantissa is its value, without the sign.
func (s *scanner) integer(name string) (n number, ok bool) {
	if v, ok := s.small(); ok {
		return number{mantissa: uint64(v)}, true
	}
	if s.i >= len(s.b) || !startsNumber(s.b[s.i]) {
		return n, s.unexpected("an integer")
	}
	from := s.i
	if n, ok = s.number(); !ok {
		return n, false
	}
	switch {
	case !n.whole:
		return n, s.failf(from, "%s is not written as an integer", clip(s.b[from:s.i]))
	// The largest number of 20 digits that a word holds begins with 1, and what has
	// overflowed is smaller than any of 20 digits.
	case n.digits > 20 || n.digits == 20 && (n.mantissa < 1e19 || s.b[s.i-20] != '1'):
		return n, s.doesNotFit(from, name)
	}
	return n, true
}

func (s *scanner) doesNotFit(from int, name string) bool {
	return s.failf(from, "%s does not fit %s", clip(s.b[from:s.i]), name)
}
