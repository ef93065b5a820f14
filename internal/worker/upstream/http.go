package upstream

import (
	"crypto/tls"
	"io"
	"strconv"
	"time"
)

// Options are how a service is asked.
type Options struct {
	// Address is its host and port; Secure how TLS is spoken there; nil: it is not.
	Address string
	Secure  *tls.Config
	// Host is what requests name as their host.
	Host string
	// Connect is how long a new connection may take, Answer how long from the request until the
	// header of its answer; 0: until the call's end.
	Connect, Answer time.Duration
	// Of is the setting that says Answer.
	Of string
	// Keep is how long a connection may be idle; 0: none is kept.
	Keep time.Duration
	// MaxAnswer is how many bytes an answer may have; 0: any number.
	MaxAnswer int64
	// Retries is how often a request that may be repeated is, while nothing of an answer has come.
	Retries int
}

// HTTP is a service that speaks HTTP/1.1.
type HTTP struct {
	Options
	pool
}

// NewHTTP returns a client of one service. It opens nothing.
func NewHTTP(o Options) *HTTP {
	return &HTTP{o, pool{address: o.Address, secure: o.Secure, connect: o.Connect, keep: o.Keep}}
}

// Request is one to a service.
type Request struct {
	Method string
	Target []byte // path and query
	Lines  []byte // of its header, each with CR LF at its end; see Forward
	Body   []byte
	Sized  bool // the header says how long Body is, though that may be 0
}

// repeatable tells whether the request may be sent twice (RFC 9110, section 9.2.2).
func (r *Request) repeatable() bool {
	switch r.Method {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE":
		return true
	}
	return false
}

// Do sends r and returns the answer when its header has come. The error is an *Error.
func (h *HTTP) Do(call *Call, r *Request) (*Answer, error) {
	for attempt := 0; ; attempt++ {
		a, err := h.try(call, r)
		if err == nil {
			return a, nil
		}
		if e, ok := err.(*Error); !ok || !e.again || !r.repeatable() || attempt >= h.Retries {
			return nil, err
		}
	}
}

// try is Do once.
func (h *HTTP) try(call *Call, r *Request) (*Answer, error) {
	c, err := h.get(call)
	if err != nil {
		return nil, err
	}
	a := &Answer{http: h, call: call, conn: c, first: true}
	if err = h.exchange(a, r); err != nil {
		err = call.explain(failed(err, c.got), h.Answer, h.Of)
		call.rest()
		h.drop(c)
		return nil, err
	}
	return a, nil
}

// exchange sends r and reads the header of the answer.
func (h *HTTP) exchange(a *Answer, r *Request) error {
	c := a.conn
	if err := a.call.limit(c, h.Answer); err != nil {
		return err
	}
	sent := h.send(c, r) // it may have answered before it had read all of it
	for informed := 0; ; informed++ {
		if err := a.readHead(r.Method); err != nil {
			return err
		}
		if a.status >= 200 {
			break
		}
		if a.status == 101 || informed == 8 {
			return garbage("answered with %d, which was not asked for", a.status)
		}
	}
	if sent != nil {
		a.close = true
	}
	if h.MaxAnswer > 0 && a.framing == sized && a.length > h.MaxAnswer {
		return h.tooLarge()
	}
	if a.framing == sized {
		a.left = a.length
	}
	return a.call.limit(c, 0)
}

// smallBody is what is sent in one piece with the header.
const smallBody = 2 << 10

func (h *HTTP) send(c *conn, r *Request) error {
	b := (*c.buf)[:0] // nothing has been read yet
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, r.Target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, h.Host...)
	b = append(b, "\r\n"...)
	b = append(b, r.Lines...)
	if r.Sized || len(r.Body) > 0 {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(r.Body)), 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, "\r\n"...)
	if len(r.Body) <= smallBody {
		b = append(b, r.Body...)
		_, err := c.Write(b)
		return err
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err := c.Write(r.Body)
	return err
}

// readHead reads the header of an answer.
func (a *Answer) readHead(method string) error {
	c := a.conn
	for {
		if n := endOfHead(c.rest()); n > 0 {
			b := c.rest()[:n]
			c.lo += n
			return a.parseHead(b, method)
		}
		if b := c.rest(); len(b) >= 5 && string(b[:5]) != "HTTP/" {
			return garbage("answered with %.40q, which is no HTTP", b[:min(len(b), 40)])
		}
		switch err := c.fill(maxHead); {
		case err == io.EOF && c.got > 0:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
	}
}

func (h *HTTP) tooLarge() error {
	return &Error{Kind: Large, Text: "answered with more than " + strconv.FormatInt(h.MaxAnswer, 10) + " bytes (max_answer)"}
}
