package codec

import (
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"preforkd/internal/inference"
)

// str reads a string; its opening quote is next. The result is a part of the body, or
// of scratch when the string has escapes: it is valid until the next string is read.
func (s *scanner) str() ([]byte, bool) {
	s.i++
	from := s.i
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return s.b[from : s.i-1], true
		case c == '\\':
			s.scratch = slices.Grow(s.scratch[:0], s.closing(from-1)-from) // no escape is longer than it is written
			s.scratch = append(s.scratch, s.b[from:s.i]...)
			return s.escaped()
		case c < ' ':
			return nil, s.failf(s.i, "control character %q in a string", c)
		case c < utf8.RuneSelf:
			s.i++
		default:
			if !s.rune() {
				return nil, false
			}
		}
	}
	return nil, s.unexpected("the end of a string")
}

// escaped reads the rest of a string from its first escape on, into scratch.
func (s *scanner) escaped() ([]byte, bool) {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return s.scratch, true
		case c == '\\':
			if !s.escape() {
				return nil, false
			}
		case c < ' ':
			return nil, s.failf(s.i, "control character %q in a string", c)
		default:
			from := s.i
			if !s.rune() {
				return nil, false
			}
			s.scratch = append(s.scratch, s.b[from:s.i]...)
		}
	}
	return nil, s.unexpected("the end of a string")
}

// largeText is how many bytes of strings are counted before they are read, so that memory
// is taken for them once: as it doubles it would be a multiple of the body.
const largeText = 64 << 10

// reserve makes room in t, if it has strings, for the count of the value that is next.
func (s *scanner) reserve(t *inference.Tensor, count int) {
	if t.DataType == inference.Bytes && len(s.b)-s.i >= largeText {
		t.ReserveText(count, s.textBytes())
	}
}

// textBytes returns how long the strings in the value that is next are at most. It looks
// ahead, without reading; what makes it err is an error when it is read.
func (s *scanner) textBytes() (n int) {
	depth := 0
	for i := s.i; i < len(s.b); i++ {
		switch s.b[i] {
		case '"':
			end := s.closing(i)
			n += end - i - 1
			i = end
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		}
		if depth <= 0 {
			break
		}
	}
	return n
}

// rune skips one character.
func (s *scanner) rune() bool {
	r, size := utf8.DecodeRune(s.b[s.i:])
	if r == utf8.RuneError && size <= 1 {
		return s.fail(s.i, "invalid UTF-8 in a string")
	}
	s.i += size
	return true
}

// escapes are those of RFC 8259, section 7, other than \u.
var escapes = [256]byte{
	'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

// escape reads an escape into scratch.
func (s *scanner) escape() bool {
	at := s.i
	if at+1 >= len(s.b) {
		s.i = len(s.b)
		return s.unexpected("the end of a string")
	}
	c := s.b[at+1]
	if e := escapes[c]; e != 0 {
		s.scratch = append(s.scratch, e)
		s.i += 2
		return true
	}
	if c != 'u' {
		return s.failf(at, "unknown escape \\%s", clip(s.b[at+1:at+2]))
	}
	r, ok := s.hex4(at)
	if !ok {
		return false
	}
	s.i += 6
	if utf16.IsSurrogate(r) {
		low, ok := rune(0), s.i+1 < len(s.b) && s.b[s.i] == '\\' && s.b[s.i+1] == 'u'
		if ok {
			low, ok = s.hex4(s.i)
		}
		if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
			return s.fail(at, "half of a surrogate pair in a string")
		}
		s.i += 6
	}
	s.scratch = utf8.AppendRune(s.scratch, r)
	return true
}

// hex4 returns the number of the \uXXXX at offset at.
func (s *scanner) hex4(at int) (r rune, ok bool) {
	if at+6 > len(s.b) {
		s.i = len(s.b)
		return 0, s.unexpected("a hexadecimal digit")
	}
	for _, c := range s.b[at+2 : at+6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, s.fail(at, "\\u without four hexadecimal digits")
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

const hexDigits = "0123456789abcdef"

// appendString appends text, which is UTF-8, as a JSON string.
func appendString[T string | []byte](dst []byte, text T) []byte {
	dst = append(dst, '"')
	from := 0
	for i := range len(text) {
		c := text[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, text[from:i]...)
		from = i + 1
		if c >= ' ' {
			dst = append(dst, '\\', c)
		} else {
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	dst = append(dst, text[from:]...)
	return append(dst, '"')
}

// AppendError appends the body of an error answer: {"error":"…"}. What is not UTF-8 in
// text is replaced.
func AppendError(dst []byte, text string) []byte {
	dst = append(dst, `{"error":`...)
	dst = AppendString(dst, text)
	return append(dst, '}')
}

// AppendString appends text as a JSON string. What is not UTF-8 in it is replaced.
func AppendString(dst []byte, text string) []byte {
	return appendString(dst, strings.ToValidUTF8(text, "\uFFFD"))
}
