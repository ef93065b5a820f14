package load

import (
	"bytes"
	"strconv"
)

// parse reads a header section, status line first and empty line last, into a.
func (a *answer) parse(head []byte) (framing, error) {
	*a = answer{}
	f := framing{length: -1}
	line, rest := cutLine(head)
	// HTTP/1.x SP 3DIGIT SP reason, RFC 9112 section 4
	if len(line) < len("HTTP/1.1 200") || line[8] != ' ' || (len(line) > 12 && line[12] != ' ') {
		return f, protocolError("status line " + strconv.Quote(string(line)))
	}
	status, ok := number(line[9:12])
	if !ok || status < 100 {
		return f, protocolError("status line " + strconv.Quote(string(line)))
	}
	a.status = status
	for {
		if line, rest = cutLine(rest); len(line) == 0 {
			break
		}
		if err := a.field(&f, line); err != nil {
			return f, err
		}
	}
	if f.chunked && f.length >= 0 { // how requests are smuggled, RFC 9112 section 6.1
		return f, protocolError("both Content-Length and Transfer-Encoding")
	}
	if head[7] == '0' && !f.keep {
		a.close = true
	}
	return f, nil
}

// cutLine splits b, which contains CRLF, after the first one.
func cutLine(b []byte) (line, rest []byte) {
	i := bytes.Index(b, []byte("\r\n"))
	return b[:i], b[i+2:]
}

// field takes what matters from one header line.
func (a *answer) field(f *framing, line []byte) error {
	i := bytes.IndexByte(line, ':')
	if i <= 0 {
		return protocolError("header line " + strconv.Quote(string(line)))
	}
	name, value := line[:i], bytes.Trim(line[i+1:], " \t")
	switch {
	case is(name, "content-length"):
		n, ok := number(value)
		if !ok || n > maxBody || (f.length >= 0 && f.length != n) {
			return protocolError("header line " + strconv.Quote(string(line)))
		}
		f.length = n
	case is(name, "transfer-encoding"):
		if !is(value, "chunked") {
			return protocolError("header line " + strconv.Quote(string(line)))
		}
		f.chunked = true
	case is(name, "connection"):
		a.close = a.close || is(value, "close")
		f.keep = f.keep || is(value, "keep-alive")
	case is(name, "x-preforkd-worker"):
		a.worker = value
	}
	return nil
}

// is tells whether b is lower, which is in lower case, in any case.
func is(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// number reads a decimal number of at most 18 digits.
func number(b []byte) (n int, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}
