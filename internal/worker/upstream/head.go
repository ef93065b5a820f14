package upstream

import (
	"bytes"
	"strconv"
)

// Bounds of an answer's header.
const (
	maxHead   = 64 << 10
	maxFields = 200
)

// Field is one line of an answer's header.
type Field struct{ Name, Value []byte }

// Ways to tell where an answer's body ends (RFC 9112, section 6.3).
type framing int

const (
	none    framing = iota // there is no body
	sized                  // after so many bytes
	chunked                // after its last chunk
	ended                  // where the connection does
)

// head is the header of an answer.
type head struct {
	status  int
	fields  []Field
	framing framing
	length  int64 // of sized, and what the answer to HEAD would have; -1: not said
	close   bool  // nothing follows on this connection
	hops    Hops
}

// end returns how long the header is that b begins with, its last line included; 0: it goes on.
func endOfHead(b []byte) int {
	if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
		return i + 4
	}
	return 0
}

// parseHead reads a header, b being all of it, in answer to a request with that method.
func (h *head) parseHead(b []byte, method string) error {
	*h = head{fields: h.fields[:0], length: -1}
	line, rest, _ := bytes.Cut(b, []byte("\r\n"))
	old, err := h.statusLine(line)
	if err != nil {
		return err
	}
	var lengths, codings [][]byte
	for len(rest) > 2 {
		if line, rest, _ = bytes.Cut(rest, []byte("\r\n")); bytes.IndexByte(line, '\n') >= 0 {
			return garbage("answered with a header whose lines do not end with CR LF")
		}
		name, value, err := field(line)
		if err != nil {
			return garbage("answered with a header that is none: %v", err)
		}
		if len(h.fields) == maxFields {
			return &Error{Kind: Large, Text: "answered with more than " + strconv.Itoa(maxFields) + " fields in its header"}
		}
		h.fields = append(h.fields, Field{name, value})
		switch {
		case fold(name, "Content-Length"):
			lengths = append(lengths, value)
		case fold(name, "Transfer-Encoding"):
			codings = append(codings, value)
		case fold(name, "Connection"):
			h.hops.Note(name, value)
			h.close = h.close || named(value, "close")
		}
	}
	h.close = h.close || old
	if h.hops.most {
		return garbage("answered with a header whose Connection names more than %d fields", maxNamed)
	}
	return h.frame(method, old, lengths, codings)
}

// statusLine reads HTTP/1.1 200 OK; old: it is HTTP/1.0.
func (h *head) statusLine(line []byte) (old bool, err error) {
	version, rest, _ := bytes.Cut(line, []byte(" "))
	code, _, _ := bytes.Cut(rest, []byte(" "))
	if bytes.IndexByte(line, '\n') >= 0 {
		return false, garbage("answered with a header whose lines do not end with CR LF")
	}
	n := 0
	for _, c := range code {
		if c < '0' || c > '9' || len(code) != 3 {
			return false, garbage("answered with %.40q, which is no HTTP", line)
		}
		n = 10*n + int(c-'0')
	}
	switch {
	case n < 100 || n > 599:
	case string(version) == "HTTP/1.1", string(version) == "HTTP/1.0":
		h.status = n
		return string(version) == "HTTP/1.0", nil
	}
	return false, garbage("answered with %.40q, which is no HTTP/1.1", line)
}

// frame decides where the body ends. What can be read in two ways is refused: whoever is behind
// the service, or behind us, may read it in the other (RFC 9112, section 11.2).
func (h *head) frame(method string, old bool, lengths, codings [][]byte) error {
	for i, text := range lengths {
		n, ok := length(text)
		switch {
		case !ok:
			return garbage("answered with the Content-Length %.40q, which is no length", text)
		case i > 0 && n != h.length:
			return garbage("answered with two lengths, %d and %d", h.length, n)
		}
		h.length = n
	}
	switch {
	case len(codings) > 0 && len(lengths) > 0:
		return garbage("answered with both Content-Length and Transfer-Encoding")
	case len(codings) > 0 && old:
		return garbage("answered with Transfer-Encoding, which HTTP/1.0 has not")
	case len(codings) > 1 || len(codings) == 1 && !fold(codings[0], "chunked"):
		return garbage("answered with the Transfer-Encoding %.40q; chunked is read", bytes.Join(codings, []byte(", ")))
	}
	switch bodiless := method == "HEAD" || h.status < 200 || h.status == 204 || h.status == 304; {
	case bodiless:
		h.framing = none
		// What says that there is a body here may send one.
		h.close = h.close || h.status == 204 && (h.length > 0 || len(codings) > 0)
	case len(codings) > 0:
		h.framing = chunked
	case len(lengths) > 0:
		h.framing = sized
	default:
		h.framing, h.close = ended, true
	}
	return nil
}

// length reads digits.
func length(text []byte) (n int64, ok bool) {
	if len(text) == 0 || len(text) > 18 {
		return 0, false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}

// named tells whether an element of a list is word.
func named(list []byte, word string) bool {
	for element := range bytes.SplitSeq(list, []byte(",")) {
		if fold(bytes.Trim(element, " \t"), word) {
			return true
		}
	}
	return false
}
