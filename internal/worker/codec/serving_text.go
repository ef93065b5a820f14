package codec

import (
	"encoding/base64"
	"math"
	"slices"

	"preforkd/internal/inference"
)

// text reads a string, or bytes as {"b64":"…"}, and appends it to t.
func (r *ServingRequest) text(t *inference.Tensor) bool {
	s := &r.s
	var text []byte
	var ok bool
	switch s.peek() {
	case '"':
		text, ok = s.str()
	case '{':
		text, ok = r.bytes()
	default:
		return s.unexpected(`a string or {"b64":"…"}`)
	}
	if ok && t != nil {
		t.AppendText(text)
	}
	return ok
}

// bytes reads {"b64":"…"}. The result is valid until the next scalar is read.
func (r *ServingRequest) bytes() ([]byte, bool) {
	s := &r.s
	s.i++
	key, ok := s.key()
	if !ok {
		return nil, false
	}
	s.path.push(part{key: s.rawKey})
	if string(key) != "b64" {
		return nil, s.fail(s.i, `unknown, only "b64" is known here`)
	}
	if s.peek() != '"' {
		return nil, s.unexpected("a string")
	}
	at := s.i
	text, ok := s.str()
	if !ok {
		return nil, false
	}
	r.cell = slices.Grow(r.cell[:0], base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(r.cell[:cap(r.cell)], text)
	if err != nil {
		return nil, s.failf(at, "no base64 (RFC 4648, section 4): %v", err)
	}
	s.path.pop()
	if s.peek() != '}' {
		return nil, s.unexpected("'}'")
	}
	s.i++
	return r.cell[:n], true
}

// notFinites are the numbers that JSON has not, as Python and JavaScript write them.
var notFinites = [...]struct {
	text  string
	value float64
}{
	{"NaN", math.NaN()},
	{"Infinity", math.Inf(1)},
	{"-Infinity", math.Inf(-1)},
}

// notFinite reads one of notFinites. It reports false, having read nothing, where there is
// anything else.
func (s *scanner) notFinite() (float64, bool) {
	for _, x := range notFinites {
		if rest := s.b[s.i:]; len(rest) >= len(x.text) && string(rest[:len(x.text)]) == x.text {
			s.i += len(x.text)
			return x.value, true
		}
	}
	return 0, false
}
