package codec

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"preforkd/internal/inference"
)

// maxDepth is how many arrays and objects may lie in one another. Bodies need five or
// so; the bound keeps the stack small whatever is sent.
const maxDepth = 64

// scanner reads a body from left to right. Its methods return false once it has found
// an error, which err then holds.
type scanner struct {
	b       []byte
	i       int // what is read next
	path    path
	scratch []byte // the last string that had escapes
	rawKey  []byte // the last key as it is written
	seen    int    // known keys of the object that is being read: see once
	err     *Error

	// anyFloat takes NaN, Infinity and -Infinity for floating-point numbers.
	anyFloat bool

	texts *inference.Tensor // takes the strings that are elements; nil: none
	room  int               // how many it takes
}

// start begins with body. What the scanner allocated is kept.
func (s *scanner) start(body []byte) bool {
	*s = scanner{b: body, scratch: s.scratch[:0]}
	if bytes.HasPrefix(body, []byte("\xef\xbb\xbf")) {
		return s.fail(0, "starts with a byte order mark, which JSON has not (RFC 8259, section 8.1)")
	}
	s.space()
	if s.i == len(s.b) {
		return s.fail(-1, "empty, a JSON object is expected")
	}
	return true
}

// end checks that nothing but white space follows.
func (s *scanner) end() bool {
	s.space()
	if s.i < len(s.b) {
		return s.fail(s.i, "text after the end of the JSON object")
	}
	return true
}

// fail notes an error at offset at in the field where the scanner is.
func (s *scanner) fail(at int, text string) bool {
	s.err = &Error{Field: s.path.String(), Offset: at, Text: text, loc: s.path.loc()}
	return false
}

func (s *scanner) failf(at int, format string, args ...any) bool {
	return s.fail(at, fmt.Sprintf(format, args...))
}

// unexpected fails at what is read next, where want should be.
func (s *scanner) unexpected(want string) bool {
	if s.i >= len(s.b) {
		return s.failf(s.i, "the text ends where %s is expected", want)
	}
	r, size := utf8.DecodeRune(s.b[s.i:])
	if r == utf8.RuneError && size <= 1 {
		return s.failf(s.i, "invalid UTF-8 where %s is expected", want)
	}
	return s.failf(s.i, "%q where %s is expected", r, want)
}

// space skips white space: the four characters of RFC 8259, section 2.
func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// peek returns the next byte after white space; 0 at the end, which no JSON text has
// outside of strings.
func (s *scanner) peek() byte {
	s.space()
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// open reads the character that begins an array or object.
func (s *scanner) open(c byte, what string) bool {
	if s.peek() != c {
		return s.unexpected(what)
	}
	s.i++
	return true
}

// more reads what stands before an array's or object's next element: nothing before
// the first, a comma before another. It reports false, without an error, after it has
// read end.
func (s *scanner) more(end byte, first bool) (more, ok bool) {
	c := s.peek()
	switch {
	case c == end:
		s.i++
		return false, true
	case first:
		return true, true
	case c != ',':
		return false, s.unexpected("',' or '" + string(rune(end)) + "'")
	}
	s.i++
	return true, true
}

// key reads an object's key and colon, after more. The key is valid until the next
// string is read.
func (s *scanner) key() (key []byte, ok bool) {
	if s.peek() != '"' {
		return nil, s.unexpected("a key")
	}
	from := s.i + 1
	if key, ok = s.str(); !ok {
		return nil, false
	}
	s.rawKey = s.b[from : s.i-1]
	if s.peek() != ':' {
		return nil, s.unexpected("':'")
	}
	s.i++
	return key, true
}

// object reads an object; member reads the value of a key. It returns the known keys
// that occurred, as member told once.
func (s *scanner) object(what string, member func(key []byte) bool) (seen int, ok bool) {
	if !s.open('{', what) {
		return 0, false
	}
	around := s.seen
	s.seen = 0
	for first := true; ; first = false {
		more, ok := s.more('}', first)
		if !ok {
			return 0, false
		}
		if !more {
			seen, s.seen = s.seen, around
			return seen, true
		}
		if key, ok := s.key(); !ok || !member(key) {
			return 0, false
		}
	}
}

// once pushes a known key on the path, and fails if the object had it already. bit
// stands for the key among those of its object.
func (s *scanner) once(bit int, name string) bool {
	at := s.i
	s.path.push(part{name: name})
	if s.seen&bit != 0 {
		return s.fail(at, "given twice")
	}
	s.seen |= bit
	return true
}

// skip checks the next value and throws it away. depth is how many arrays and objects
// are open around it.
func (s *scanner) skip(depth int) bool {
	switch c := s.peek(); {
	case c == '"':
		_, ok := s.str()
		return ok
	case c == '{':
		return s.skipObject(depth + 1)
	case c == '[':
		return s.skipArray(depth + 1)
	case c == '-' || '0' <= c && c <= '9':
		return s.skipNumber()
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.literal("null")
	}
	return s.unexpected("a value")
}

// skipUnknown is skip for the value of the key that was read last: the path names it.
func (s *scanner) skipUnknown(depth int) bool {
	s.path.push(part{key: s.rawKey})
	if !s.skip(depth) {
		return false
	}
	s.path.pop()
	return true
}

func (s *scanner) tooDeep() bool {
	return s.failf(s.i, "nested deeper than %d levels", maxDepth)
}

func (s *scanner) skipObject(depth int) bool {
	if depth > maxDepth {
		return s.tooDeep()
	}
	s.i++
	for first := true; ; first = false {
		more, ok := s.more('}', first)
		if !more || !ok {
			return ok
		}
		if _, ok := s.key(); !ok || !s.skip(depth) {
			return false
		}
	}
}

func (s *scanner) skipArray(depth int) bool {
	if depth > maxDepth {
		return s.tooDeep()
	}
	s.i++
	for first := true; ; first = false {
		more, ok := s.more(']', first)
		if !more || !ok {
			return ok
		}
		if !s.skip(depth) {
			return false
		}
	}
}

func (s *scanner) literal(text string) bool {
	if !bytes.HasPrefix(s.b[s.i:], []byte(text)) {
		return s.unexpected("a value")
	}
	s.i += len(text)
	return true
}
