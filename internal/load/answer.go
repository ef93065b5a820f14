package load

import (
	"bytes"
	"io"
	"strconv"
)

// bounds of an answer; a service under test that passes them is broken.
const (
	maxHead  = 64 << 10
	maxBody  = 256 << 20
	firstBuf = 4 << 10
)

// A protocolError says why what was received is no HTTP/1.1 answer.
type protocolError string

func (e protocolError) Error() string { return string(e) }

// answer is one HTTP answer. Its slices lie in the reader's buffer: they are valid
// until the next read.
type answer struct {
	status int
	body   []byte
	worker []byte // X-Preforkd-Worker
	close  bool   // the connection ends with this answer, as its header says
}

// reader reads HTTP/1.1 answers (RFC 9112) from one connection. Its buffer is kept from
// answer to answer, and for the next connection: it grows to the largest answer.
type reader struct {
	src io.Reader
	buf []byte
	n   int // buf[:n] was received and not yet consumed
}

// framing is how an answer's body ends.
type framing struct {
	length  int // Content-Length, -1 without one
	chunked bool
	keep    bool // Connection: keep-alive
}

func (r *reader) reset(src io.Reader) { r.src, r.n = src, 0 }

// fill receives more bytes. Without any it returns an error.
func (r *reader) fill() error {
	if r.n == len(r.buf) {
		grown := make([]byte, max(2*len(r.buf), firstBuf))
		copy(grown, r.buf[:r.n])
		r.buf = grown
	}
	n, err := r.src.Read(r.buf[r.n:])
	r.n += n
	if n > 0 {
		return nil // an error comes again
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// started tells whether any byte of the next answer has been received.
func (r *reader) started() bool { return r.n > 0 }

// read reads one answer to a request; noBody: that was a HEAD. Interim answers (1xx)
// are passed over. An error is a protocolError or the connection's.
func (r *reader) read(a *answer, noBody bool) error {
	for {
		end, err := r.head()
		if err != nil {
			return err
		}
		f, err := a.parse(r.buf[:end])
		if err != nil {
			return err
		}
		if a.status/100 == 1 {
			if a.status == 101 {
				return protocolError("the service switches to a protocol that was not asked for")
			}
			r.drop(end)
			continue
		}
		if noBody || a.status == 204 || a.status == 304 {
			f = framing{length: 0}
		}
		return r.body(a, f, end)
	}
}

// drop consumes the first n bytes.
func (r *reader) drop(n int) {
	copy(r.buf, r.buf[n:r.n])
	r.n -= n
}

// head receives until the end of the header section and returns where that is.
func (r *reader) head() (end int, err error) {
	const version = "HTTP/1."
	for from := 0; ; {
		got := r.buf[:r.n]
		if l := min(len(got), len(version)); string(got[:l]) != version[:l] {
			return 0, protocolError("the answer begins with " + strconv.Quote(string(got[:min(len(got), 40)])))
		}
		i := bytes.Index(got[from:], []byte("\r\n\r\n"))
		switch {
		case i >= 0 && from+i <= maxHead:
			return from + i + 4, nil
		case len(got) > maxHead+4:
			return 0, protocolError("the answer's header does not end")
		}
		from = max(len(got)-3, 0)
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
}

// body receives what follows the header section and consumes the answer.
func (r *reader) body(a *answer, f framing, at int) error {
	var from, end int // the body, and what follows it
	var err error
	switch {
	case f.chunked:
		from, end, err = r.chunks(at)
	case f.length >= 0:
		from, end = at+f.length, at+f.length
		for r.n < end && err == nil {
			err = r.fill()
		}
	default: // until the connection's end, RFC 9112 section 6.3
		a.close = true
		for err == nil && r.n-at <= maxBody {
			err = r.fill()
		}
		switch err {
		case nil:
			err = protocolError("the answer's body does not end")
		case io.EOF:
			err = nil
		}
		from, end = r.n, r.n
	}
	if err != nil {
		return err
	}
	a.body = r.buf[at:from:from]
	if r.n > end {
		// The next answer's bytes came already: nobody asked. They are kept behind a
		// copy of the body, for the check that precedes the next request.
		a.body = bytes.Clone(a.body)
		a.worker = bytes.Clone(a.worker)
	}
	r.drop(end)
	return nil
}

// chunks receives a chunked body that begins at at, and closes the gaps between its
// chunks. It returns the body's end and where what follows it begins.
func (r *reader) chunks(at int) (bodyEnd, end int, err error) {
	bodyEnd = at
	for {
		size, next, err := r.chunkSize(at)
		if err != nil {
			return 0, 0, err
		}
		if size == 0 {
			end, err = r.trailer(next)
			return bodyEnd, end, err
		}
		if bodyEnd+size > maxBody {
			return 0, 0, protocolError("the answer's body does not end")
		}
		for r.n < next+size+2 {
			if err := r.fill(); err != nil {
				return 0, 0, err
			}
		}
		if string(r.buf[next+size:next+size+2]) != "\r\n" {
			return 0, 0, protocolError("a chunk is longer than its size")
		}
		copy(r.buf[bodyEnd:], r.buf[next:next+size])
		bodyEnd += size
		at = next + size + 2
	}
}

// chunkSize reads the line at at and returns the size in it and where the next begins.
func (r *reader) chunkSize(at int) (size, next int, err error) {
	line, next, err := r.line(at)
	if err != nil {
		return 0, 0, err
	}
	if i := bytes.IndexByte(line, ';'); i >= 0 { // extensions
		line = line[:i]
	}
	line = bytes.TrimRight(line, " \t")
	if len(line) == 0 || len(line) > 8 {
		return 0, 0, protocolError("chunk size " + strconv.Quote(string(line)))
	}
	for _, c := range line {
		digit, ok := hex(c)
		if !ok {
			return 0, 0, protocolError("chunk size " + strconv.Quote(string(line)))
		}
		size = size<<4 | digit
	}
	return size, next, nil
}

func hex(c byte) (int, bool) {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0'), true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10, true
	}
	return 0, false
}

// trailer reads the lines after the last chunk.
func (r *reader) trailer(at int) (end int, err error) {
	for {
		line, next, err := r.line(at)
		if err != nil || len(line) == 0 {
			return next, err
		}
		at = next
	}
}

// line receives until the end of the line at at.
func (r *reader) line(at int) (line []byte, next int, err error) {
	for {
		i := bytes.Index(r.buf[at:r.n], []byte("\r\n"))
		switch {
		case i >= 0 && i <= maxHead:
			return r.buf[at : at+i], at + i + 2, nil
		case r.n-at > maxHead+2:
			return nil, 0, protocolError("a line in a chunked body does not end")
		}
		if err := r.fill(); err != nil {
			return nil, 0, err
		}
	}
}
