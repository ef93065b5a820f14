package codec

import (
	"encoding/binary"
	"math/bits"
)

// A tensor's text is long runs of plain numbers: digits, a point, a comma. The functions
// here read such runs in one loop that keeps everything in registers. They stop before
// the first element that is not plain, or that a comma and another element do not follow,
// and leave it to the functions that know all of JSON and every error.

type (
	signed   interface{ int8 | int16 | int32 | int64 }
	unsigned interface {
		uint8 | uint16 | uint32 | uint64
	}
)

// plainNumber is a number without an exponent, of at most 19 digits.
type plainNumber struct {
	mantissa uint64
	fraction int // digits behind the point
	end      int // what follows it in the text
	negative bool
}

// plainAt reads the number that begins at b[i].
func plainAt(b []byte, i int) (n plainNumber, ok bool) {
	if i < len(b) && b[i] == '-' {
		n.negative = true
		i++
	}
	from := i
	n.mantissa, i = digits(b, i, 0)
	count := i - from
	if count == 0 || count > 1 && b[from] == '0' {
		return n, false
	}
	if i < len(b) && b[i] == '.' {
		from = i + 1
		n.mantissa, i = digits(b, from, n.mantissa)
		n.fraction = i - from
		if n.fraction == 0 {
			return n, false
		}
	}
	n.end = i
	return n, count+n.fraction <= 19
}

// digits reads digits from b[i] on, as the continuation of v, which is of no use if that
// are more than 19 in all. How many digits there are decides no branch: numbers of mixed
// lengths would be guessed wrong each time.
func digits(b []byte, i int, v uint64) (uint64, int) {
	for i+8 <= len(b) {
		word := binary.LittleEndian.Uint64(b[i:])
		other := otherThanDigits(word)
		if other == 0 {
			v, i = v*1e8+eightDigits(word), i+8
			continue
		}
		n := bits.TrailingZeros64(other) / 8
		// What follows the digits is shifted out; zeros come before them.
		return v*tens[n] + eightDigits(word<<(64-8*n)), i + n
	}
	for ; i < len(b); i++ {
		d := b[i] - '0'
		if d > 9 {
			break
		}
		v = v*10 + uint64(d)
	}
	return v, i
}

var tens = [8]uint64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7}

// otherThanDigits has a bit in the first byte of word that is no digit, none in those
// before it, and any after it; 0: all are digits. Those are 0x30 to 0x39: the upper half is
// 3, also after 6 has been added, which carries into the next byte only from 0xFA on.
func otherThanDigits(word uint64) uint64 {
	const upper, three, six = 0xF0F0F0F0F0F0F0F0, 0x3030303030303030, 0x0606060606060606
	return ((word ^ three) | ((word + six) ^ three)) & upper
}

// eightDigits is the number that the digits in word make, the first in its lowest byte:
// neighbours are joined to pairs, these to fours, these to eight.
func eightDigits(word uint64) uint64 {
	word &= 0x0F0F0F0F0F0F0F0F
	word = (word*10 + word>>8) & 0x00FF00FF00FF00FF
	word = (word*100 + word>>16) & 0x0000FFFF0000FFFF
	return (word*10000 + word>>32) & 0xFFFFFFFF
}

// nextPlain returns where the next number begins, if b[i] is the comma before it. One space
// is what Python's json writes.
func nextPlain(b []byte, i int) (next int, ok bool) {
	if i+2 >= len(b) || b[i] != ',' {
		return 0, false
	}
	i++
	if b[i] == ' ' {
		i++
	}
	return i, startsNumber(b[i])
}

// shortAt reads a whole number of up to 7 digits that begins at b[i] and that a comma and
// another number follow: what pixels are. One word has it and the comma.
func shortAt(b []byte, i int) (v uint64, next int, ok bool) {
	if i+10 > len(b) {
		return 0, 0, false
	}
	word := binary.LittleEndian.Uint64(b[i:])
	n := bits.TrailingZeros64(otherThanDigits(word)) &^ 7 // bits of the digits; 64: there are 8
	if n == 0 || n == 64 || word>>(n&63)&0xFF != ',' || n > 8 && word&0xFF == '0' {
		return 0, 0, false
	}
	next = i + n/8 + 1
	if b[next] == ' ' {
		next++
	}
	return eightDigits(word << (64 - n)), next, startsNumber(b[next])
}

func float32s(s *scanner, dst []float32) int {
	b, i := s.b, s.i
	short := true // the number before was one
	for k := range dst {
		if short {
			if v, next, ok := shortAt(b, i); ok {
				dst[k], i = float32(v), next // exact: below 2^24
				continue
			}
		}
		n, ok := plainAt(b, i)
		next, more := nextPlain(b, n.end)
		if !ok || !more {
			s.i = i
			return k
		}
		short = n.fraction == 0
		f := float64(n.mantissa) / powers[n.fraction]
		if !safe(f) {
			s.i = i
			return k
		}
		if n.negative {
			f = -f
		}
		dst[k], i = float32(f), next
	}
	s.i = i
	return len(dst)
}

func float64s(s *scanner, dst []float64) int {
	b, i := s.b, s.i
	for k := range dst {
		n, ok := plainAt(b, i)
		next, more := nextPlain(b, n.end)
		if !ok || !more || n.mantissa >= 1<<53 {
			s.i = i
			return k
		}
		f := float64(n.mantissa) / powers[n.fraction] // both are exact: it rounds once
		if n.negative {
			f = -f
		}
		dst[k], i = f, next
	}
	s.i = i
	return len(dst)
}

func integers[T signed | unsigned](s *scanner, dst []T) int {
	b, i := s.b, s.i
	for k := range dst {
		n, ok := plainAt(b, i)
		next, more := nextPlain(b, n.end)
		if !ok || !more || n.fraction > 0 || n.mantissa >= 1<<63 {
			s.i = i
			return k
		}
		v := int64(n.mantissa)
		if n.negative {
			v = -v
		}
		if T(v) < 0 != (v < 0) || int64(T(v)) != v {
			s.i = i
			return k
		}
		dst[k], i = T(v), next
	}
	s.i = i
	return len(dst)
}
