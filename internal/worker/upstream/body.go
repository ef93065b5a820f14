package upstream

import (
	"bytes"
	"io"
	"slices"
	"strconv"
)

const (
	maxChunkLine = 4 << 10 // the line before a chunk, and a line of a trailer
	maxTrailer   = 64 << 10
)

// Answer is an answer whose header has been read. Whoever got it calls Close, once.
type Answer struct {
	head

	http  *HTTP
	call  *Call
	conn  *conn
	left  int64 // bytes of the body, or of the chunk
	read  int64
	first bool // no chunk has been read
	whole bool // its end has been seen
	err   error
}

// Status returns the answer's status.
func (a *Answer) Status() int { return a.status }

// Fields returns the lines of the header, which are valid until the first Read.
func (a *Answer) Fields() []Field { return a.fields }

// Passes tells whether a field of the header is for whoever asks, and not for this connection
// or about how the body is sent.
func (a *Answer) Passes(name []byte) bool {
	return !a.hops.Has(name) && !fold(name, "Content-Length")
}

// Length returns how long the body is, or would be after GET; -1: the header does not say.
func (a *Answer) Length() int64 { return a.length }

// Bodiless tells whether there is no body, whatever the header says.
func (a *Answer) Bodiless() bool { return a.framing == none }

// Read implements io.Reader for the body. Its errors are io.EOF, at the end, and *Error.
func (a *Answer) Read(p []byte) (n int, err error) {
	if a.err != nil {
		return 0, a.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err = a.next(p)
	if a.read += int64(n); err == nil && a.http.MaxAnswer > 0 && a.read > a.http.MaxAnswer {
		err = a.http.tooLarge()
	}
	if err != nil && err != io.EOF {
		err = a.call.explain(failed(err, a.conn.got), 0, "")
	}
	a.err = err
	if err != nil && err != io.EOF {
		return 0, err
	}
	return n, err
}

// next is Read without its bookkeeping.
func (a *Answer) next(p []byte) (n int, err error) {
	for {
		switch a.framing {
		case none:
			a.whole = true
			return 0, io.EOF
		case ended:
			n, err = a.take(p)
			if err == io.EOF {
				a.whole = true
			}
			return n, err
		case sized:
			if a.left == 0 {
				a.whole = true
				return 0, io.EOF
			}
		case chunked:
			if a.left == 0 {
				if err := a.chunk(); err != nil || a.left == 0 {
					return 0, err
				}
			}
		}
		n, err = a.take(p[:min(int64(len(p)), a.left)])
		if a.left -= int64(n); n > 0 || err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
	}
}

// take reads what is there, from the buffer first.
func (a *Answer) take(p []byte) (int, error) {
	c := a.conn
	if c.lo < c.hi {
		n := copy(p, c.rest())
		c.lo += n
		return n, nil
	}
	if len(p) < smallBuffer {
		if err := c.fill(smallBuffer); err != nil {
			return 0, err
		}
		n := copy(p, c.rest())
		c.lo += n
		return n, nil
	}
	n, err := c.Conn.Read(p)
	c.got += n
	if n > 0 {
		return n, nil
	}
	return n, err
}

// chunk reads the line before a chunk, and after the last one the trailer, which is thrown away.
// Then left is 0 and the error io.EOF.
func (a *Answer) chunk() error {
	if !a.first {
		if line, err := a.line(); err != nil || len(line) > 0 {
			return cmpErr(err, "sent a chunk that is longer than it says")
		}
	}
	a.first = false
	line, err := a.line()
	if err != nil {
		return err
	}
	size, _, _ := bytes.Cut(line, []byte(";"))
	size = bytes.TrimRight(size, " \t")
	n, err := strconv.ParseUint(string(size), 16, 62)
	if err != nil || len(size) > 15 {
		return garbage("sent %.20q where the length of a chunk is expected", line)
	}
	if a.left = int64(n); n > 0 {
		return nil
	}
	for total := 0; ; total += len(line) {
		if line, err = a.line(); err != nil {
			return err
		}
		if len(line) == 0 {
			a.whole = true
			return io.EOF
		}
		if total > maxTrailer {
			return &Error{Kind: Large, Text: "sent a trailer that is too long"}
		}
	}
}

func cmpErr(err error, text string) error {
	if err != nil {
		return err
	}
	return garbage("%s", text)
}

// line reads a line that ends with CR LF, and returns it without. It is valid until the next read.
func (a *Answer) line() ([]byte, error) {
	c := a.conn
	for from := 0; ; {
		b := c.rest()
		if i := bytes.IndexByte(b[from:], '\n'); i >= 0 {
			i += from
			if i == 0 || b[i-1] != '\r' {
				return nil, garbage("sent a line between chunks that does not end with CR LF")
			}
			c.lo += i + 1
			return b[:i-1], nil
		}
		if from = len(b); from >= maxChunkLine {
			return nil, garbage("sent a line between chunks that is longer than %d bytes", maxChunkLine)
		}
		if err := c.fill(2 * maxChunkLine); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// Append reads the body into b, but no more than most bytes of it; whole: that is all of it.
func (a *Answer) Append(b []byte, most int) (_ []byte, whole bool, err error) {
	from := len(b)
	if a.framing == sized && a.length <= int64(most) {
		b = slices.Grow(b, int(a.length))
	}
	for {
		if len(b)-from >= most {
			return b, a.whole, nil
		}
		b = slices.Grow(b, min(512, most-(len(b)-from)))
		room := b[len(b):min(cap(b), from+most)]
		n, err := a.Read(room)
		b = b[:len(b)+n]
		if err == io.EOF || a.framing == sized && a.left == 0 && err == nil {
			a.whole = true
			return b, true, nil
		}
		if err != nil {
			return b, false, err
		}
	}
}

// Close ends the exchange. The connection is kept where it can be.
func (a *Answer) Close() error {
	if a.conn == nil {
		return nil
	}
	if a.framing == none || a.framing == sized && a.left == 0 {
		a.whole = true
	}
	a.call.rest()
	if a.whole && !a.close && a.err != errAborted {
		a.http.put(a.conn)
	} else {
		a.http.drop(a.conn)
	}
	a.conn = nil
	return nil
}
