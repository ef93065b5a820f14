package helper

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/worker/peer"
)

// Conn is a connection to a helper, and a place there.
type Conn struct {
	pool  *Pool
	seat  *seat
	net   net.Conn // nil: closed
	in    *bufio.Reader
	head  []byte
	parts net.Buffers
}

const (
	// dialLimit is how long a connection may take: the kernel makes it at once, or the helper's
	// queue is full.
	dialLimit = time.Second
	// bufferBytes is also the most that the header of an answer may have.
	bufferBytes = 8 << 10
	// joinBelow is from which size on a body is sent from where it lies, and not copied.
	joinBelow = 16 << 10
	// keepBytes is how much of a buffer is kept for the next request.
	keepBytes = 1 << 20
)

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// connect returns a connection to s: one that is there and open, or a new one.
func (p *Pool) connect(s *seat, until time.Time) (*Conn, error) {
	for {
		p.mu.Lock()
		var c *Conn
		if last := len(s.idle) - 1; last >= 0 {
			c, s.idle = s.idle[last], s.idle[:last]
		}
		p.mu.Unlock()
		if c == nil {
			break
		}
		if !peer.Gone(c.net) {
			return c, nil
		}
		c.close()
	}
	limit := dialLimit
	if !until.IsZero() {
		limit = max(min(limit, time.Until(until)), 1)
	}
	n, err := net.DialTimeout("unix", s.path, limit)
	if err != nil {
		return nil, err
	}
	return &Conn{pool: p, seat: s, net: n, in: bufio.NewReaderSize(n, bufferBytes)}, nil
}

// Release gives c back. Whoever took it does so once.
func (p *Pool) Release(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := c.seat
	if c.net != nil {
		if p.alive(s, time.Now()) && len(s.idle) < p.o.Connections {
			s.idle = append(s.idle, c)
		} else {
			c.close()
		}
	}
	p.free(s)
}

// Who is the helper at the other end of c.
func (c *Conn) Who() Who { return Who{c.pool.o.Name, c.seat.row.Slot(), c.seat.row.PID()} }

// String names the helper.
func (c *Conn) String() string { return c.Who().String() }

// Who is a helper, for errors.
type Who struct {
	Pool      string
	Slot, PID int
}

// String names it.
func (w Who) String() string {
	return fmt.Sprintf("helper %s (slot %d, pid %d)", w.Pool, w.Slot, w.PID)
}

// Closed tells whether the helper has closed c with its last answer, as one does that leaves: c is then of no
// more use than to be released.
func (c *Conn) Closed() bool { return c.net == nil }

// Met tells whether Meet has been called for this helper process and that model.
func (c *Conn) Met(model string) bool {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	for _, m := range c.seat.met {
		if m == model {
			return true
		}
	}
	return false
}

// Meet notes that what the helper process says of model is what it shall.
func (c *Conn) Meet(model string) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	c.seat.met = append(c.seat.met, model)
}

func (c *Conn) close() {
	if c.net != nil {
		_ = c.net.Close()
		c.net = nil
	}
}

// Answer is what a helper has answered. The zero value is ready to use; its body is valid until
// the next use.
type Answer struct {
	r fasthttp.Response
}

// Status is the HTTP status.
func (a *Answer) Status() int { return a.r.StatusCode() }

// Body is the body.
func (a *Answer) Body() []byte { return a.r.Body() }

// Trim frees the body's memory if it is large.
func (a *Answer) Trim() { a.r.ReleaseBody(keepBytes) }

// headerLength is how much of a body is JSON; binary data follow.
const headerLength = "Inference-Header-Content-Length"

// JSON is how many bytes of the body are JSON: all, unless the helper says something else.
func (a *Answer) JSON() (int, error) {
	text := a.r.Header.Peek(headerLength)
	if len(text) == 0 {
		return len(a.r.Body()), nil
	}
	n, err := fasthttp.ParseUint(text)
	if err != nil || n > len(a.r.Body()) {
		return 0, fmt.Errorf("%s: %.20q, of a body of %d bytes", headerLength, text, len(a.r.Body()))
	}
	return n, nil
}

// Request is a request to a helper: a GET without a body, else a POST.
type Request struct {
	Path  string
	Body  []byte // the first JSON bytes of which are that
	JSON  int
	More  []byte    // what follows Body
	ID    []byte    // the client's own for its request; empty: none
	Until time.Time // when nobody waits for the answer any more; zero: never
}

// Ask sends r and reads the answer. An error wraps ErrLate or ErrBroken, and says of which helper
// and why; c is then of no more use than to be released.
func (c *Conn) Ask(r *Request, a *Answer) error {
	start := time.Now()
	c.seat.row.Helped.Add(1)
	err := c.ask(r, start, a)
	if err != nil || a.r.ConnectionClose() || c.in.Buffered() > 0 {
		c.close()
	}
	c.pool.o.Served(err == nil && a.r.StatusCode() < fasthttp.StatusInternalServerError, time.Since(start))
	return err
}

func (c *Conn) ask(r *Request, start time.Time, a *Answer) error {
	if c.Closed() {
		return c.broken("it has closed the connection")
	}
	if err := c.net.SetDeadline(r.Until); err != nil {
		return c.broken("its connection cannot be used: %v", err)
	}
	sendErr := c.send(r, start)
	// Who refuses a body may answer before it has read all of it.
	err := readAnswer(c.in, c.pool.o.MaxAnswer, a)
	if err != nil && sendErr != nil {
		err = sendErr
	}
	switch {
	case err == nil:
		return nil
	case isTimeout(err):
		return fmt.Errorf("%s gave no answer in time: %w", c, ErrLate)
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return c.broken("its answer is larger than %d bytes (http.max_body)", c.pool.o.MaxAnswer)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), isReset(err):
		return c.broken("it closed the connection before its answer was complete")
	}
	return c.broken("its answer is no HTTP: %.200v", err)
}

func (c *Conn) broken(format string, args ...any) error {
	return &brokenError{c.String() + ": " + fmt.Sprintf(format, args...)}
}

// brokenError is ErrBroken in the words that operators and clients read.
type brokenError struct{ text string }

func (e *brokenError) Error() string { return e.text }
func (e *brokenError) Unwrap() error { return ErrBroken }

// isTimeout tells whether err is of a deadline of the connection, also in fasthttp's words.
func isTimeout(err error) bool {
	var e interface{ Timeout() bool }
	return errors.As(err, &e) && e.Timeout()
}

// send writes r, a small one in one piece.
func (c *Conn) send(r *Request, start time.Time) error {
	h := append(c.head[:0], "GET "...)
	if r.Body != nil {
		h = append(c.head[:0], "POST "...)
	}
	h = append(h, r.Path...)
	h = append(h, " HTTP/1.1\r\nHost: helper\r\n"...)
	if len(r.ID) > 0 {
		h = append(append(append(h, "X-Request-Id: "...), r.ID...), "\r\n"...)
	}
	if !r.Until.IsZero() {
		h = append(h, "X-Request-Timeout: "...)
		h = strconv.AppendInt(h, max(r.Until.Sub(start).Microseconds(), 1), 10)
		h = append(h, "us\r\n"...)
	}
	if r.Body != nil {
		h = append(h, "Content-Type: application/octet-stream\r\n"+headerLength+": "...)
		h = strconv.AppendInt(h, int64(r.JSON), 10)
		h = append(h, "\r\nContent-Length: "...)
		h = strconv.AppendInt(h, int64(len(r.Body)+len(r.More)), 10)
		h = append(h, "\r\n"...)
	}
	h = append(h, "\r\n"...)
	if len(r.Body)+len(r.More) <= joinBelow {
		h = append(append(h, r.Body...), r.More...)
		c.head = h
		_, err := c.net.Write(h)
		return err
	}
	c.head = h
	parts := append(c.parts[:0], h, r.Body, r.More)
	c.parts = parts
	_, err := parts.WriteTo(c.net)
	clear(c.parts)
	return err
}

// errLength is of an answer whose end only the end of the connection tells: then nobody knows
// whether all of it has come.
var errLength = errors.New("neither Content-Length nor chunks")

// readAnswer reads one answer from in.
func readAnswer(in *bufio.Reader, most int, a *Answer) error {
	a.r.Reset()
	h := &a.r.Header
	for {
		if err := h.Read(in); err != nil {
			return err
		}
		if h.StatusCode() != fasthttp.StatusContinue {
			break
		}
	}
	const chunks, untilEnd = -1, -2 // fasthttp's
	switch n := h.ContentLength(); {
	case h.StatusCode() < 200 || h.StatusCode() > 599:
		return fmt.Errorf("status %d", h.StatusCode())
	case n == untilEnd && h.StatusCode() != fasthttp.StatusNoContent:
		return errLength
	case n == untilEnd:
		return nil
	case n == chunks:
		if err := a.r.ReadBody(in, most); err != nil {
			return err
		}
		if err := h.ReadTrailer(in); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		return nil
	}
	return a.r.ReadBody(in, most)
}

// isReset tells whether err is of a connection whose other end has gone.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
