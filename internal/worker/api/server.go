package api

import (
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/valyala/fasthttp"
)

// headerBytes is the largest request header: what fasthttp's read buffer holds. Every
// open connection keeps such a buffer.
const headerBytes = 8 << 10

// What is read, and thrown away, of a request that is refused for its size: see discard.
const (
	discardBytes = 256 << 20
	discardTime  = 5 * time.Second
	discardGap   = 200 * time.Millisecond
)

// ServerOptions are the limits of an HTTP server.
type ServerOptions struct {
	MaxBody        int           // bytes
	HeaderTimeout  time.Duration // for a request's header; kept by the connections, named in answers
	RequestTimeout time.Duration // for its body
	MaxConnections int
	bodyOf         string // the setting that MaxBody is of; see narrow
}

// Server returns a server that answers with a. It is called once, before anything is served. The caller serves and stops it.
func (a *API) Server(o ServerOptions) *fasthttp.Server {
	a.limits = o
	return &fasthttp.Server{
		Handler:       a.Handle,
		Name:          serverName,
		ErrorHandler:  func(ctx *fasthttp.RequestCtx, err error) { a.reject(ctx, err, &o) },
		ExpectHandler: func(ctx *fasthttp.RequestCtx) int { return a.expect(ctx, &o) },
		HeaderReceived: func(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
			if a.unwelcome(h) {
				return fasthttp.RequestConfig{}
			}
			return received(h, a.narrow(h, &o))
		},

		MaxRequestBodySize: o.MaxBody,
		ReadBufferSize:     headerBytes,
		// worker/accept keeps to MaxConnections by not accepting. This is the bound
		// beyond which fasthttp refuses, and only there so that it is not lower: a
		// worker that leaves may serve a few more.
		Concurrency: max(2*o.MaxConnections, fasthttp.DefaultConcurrency),

		CloseOnShutdown:              true,
		DisablePreParseMultipartForm: true, // a body is JSON, whatever its type says
		LazyRequestTime:              true, // nothing asks for it
		SecureErrorLogMessage:        true, // clients' bytes stay out of the log
		Logger:                       printer{a.Log},
	}
}

// received gives a body the time of a request. What holds until here is the header's,
// which the connection keeps (worker/accept), as all other clocks.
func received(h *fasthttp.RequestHeader, o *ServerOptions) fasthttp.RequestConfig {
	if n := h.ContentLength(); n == 0 || n == -2 { // -2: neither a length nor chunks
		return fasthttp.RequestConfig{}
	}
	return fasthttp.RequestConfig{ReadTimeout: o.RequestTimeout, MaxRequestBodySize: o.MaxBody}
}

// expect answers Expect: 100-continue. A body that would be refused is refused before
// it is sent (RFC 9110, section 10.1.1).
func (a *API) expect(ctx *fasthttp.RequestCtx, o *ServerOptions) int {
	c := a.classOf(ctx.URI().PathOriginal())
	if err := a.guard.check(&ctx.Request.Header, c); err != nil {
		a.identify(ctx, &ctx.Response)
		a.challenge(ctx, c, err)
		a.fail(ctx, err)
		return status(err)
	}
	if ctx.Request.Header.ContentLength() <= a.narrow(&ctx.Request.Header, o).MaxBody {
		return fasthttp.StatusContinue
	}
	a.refuse(ctx, fasthttp.ErrBodyTooLarge, o)
	return fasthttp.StatusRequestEntityTooLarge
}

// reject answers a request that could not be read. fasthttp closes the connection.
func (a *API) reject(ctx *fasthttp.RequestCtx, err error, o *ServerOptions) {
	a.refuse(ctx, err, o)
	switch ctx.Response.StatusCode() {
	case fasthttp.StatusRequestEntityTooLarge, fasthttp.StatusRequestHeaderFieldsTooLarge:
		discard(ctx.Conn())
	}
}

func (a *API) refuse(ctx *fasthttp.RequestCtx, err error, o *ServerOptions) {
	a.identify(ctx, &ctx.Response)
	a.fail(ctx, rejected(err, a.narrow(&ctx.Request.Header, o)))
}

// discard reads what a client still sends. Closing a connection on which bytes are
// unread resets it, and a reset may reach the client before it has read the answer
// (RFC 9112, section 9.6): many clients send all of a request before they read. How much
// is left is not known, since some of it was in a buffer: a gap is taken for the end.
func discard(c net.Conn) {
	_ = c.SetReadDeadline(time.Time{})
	for { // of worker/accept: exact deadlines; below TLS
		below, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = below.NetConn()
	}
	buffer := make([]byte, 64<<10)
	end := time.Now().Add(discardTime)
	for total := 0; total < discardBytes; {
		gap := time.Now().Add(discardGap)
		if gap.After(end) {
			gap = end
		}
		if c.SetReadDeadline(gap) != nil {
			return
		}
		n, err := c.Read(buffer)
		if err != nil {
			return
		}
		total += n
	}
}

// printer is fasthttp's logger: what a client did wrong, which is nobody's concern but
// that of who looks for it.
type printer struct{ log *slog.Logger }

// Printf logs one line.
func (p printer) Printf(format string, args ...any) {
	p.log.Debug("http", "err", fmt.Sprintf(format, args...))
}
