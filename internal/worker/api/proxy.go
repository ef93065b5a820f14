package api

import (
	"bytes"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/worker/upstream"
)

// Proxy is what a route does that another HTTP service answers.
type Proxy struct {
	Service *upstream.HTTP
	// Path is what is asked for there.
	Path string
	// Methods are those that are passed on.
	Methods []string
	// Timeout is how long all of it may take, MaxBody the largest body; 0: as long and as large as
	// any.
	Timeout time.Duration
	MaxBody int
	// Authorization is sent in place of the client's; empty: the client's is, unless it is a token
	// of this service.
	Authorization string
	// Connections is how many requests may be under way at once; 0: a share of the layer's.
	Connections int
}

// How much of an answer is read before it is sent: what ends too early until then is answered with
// 502, from then on with the end of the connection.
const wholeBytes = 256 << 10

// proxy answers a request to a route that another service answers.
func (a *API) proxy(ctx *fasthttp.RequestCtx, t target) error {
	p := t.route.Proxy
	limit := timeLimit{a.RequestTimeout, "timeouts.request"}
	limit.narrow(p.Timeout, "the route's timeout")
	w, err := a.newWait(ctx, t, limit)
	if err != nil {
		return err
	}
	if err := a.pass(w, p); err != nil {
		w.recycle()
		return err
	}
	if err := a.board(w); err != nil {
		w.recycle()
		return err
	}
	answer, err := p.Service.Do(&w.call, &w.request)
	if err == nil {
		err = a.relay(w, answer)
	}
	if err != nil {
		w.route.model.Learn(time.Duration(now()-w.start), 1)
		err = a.failure(w, err)
		a.land(w)
		w.recycle()
	}
	return err
}

// done ends a request whose answer has been read.
func (a *API) done(w *wait, answer *upstream.Answer) {
	w.route.model.Learn(time.Duration(now()-w.start), 1)
	_ = answer.Close()
	a.land(w)
	w.recycle()
}

// pass makes what is sent to the service of what the client has sent.
func (a *API) pass(w *wait, p *Proxy) (err error) {
	ctx := w.ctx
	body := ctx.Request.Body()
	sized := framed(ctx)
	if len(body) == 0 && !sized && (ctx.IsPost() || ctx.IsPut() || ctx.IsPatch()) {
		ctx.SetConnectionClose() // a body without a length may follow: it is no request
		return errLength
	}
	if p.MaxBody > 0 && len(body) > p.MaxBody {
		return describe(fasthttp.ErrBodyTooLarge, "body: larger than max_body of route %s, which is %d bytes", w.route.Path, p.MaxBody)
	}
	a.tidy(body)
	w.target = append(w.target[:0], p.Path...)
	if query := ctx.URI().QueryString(); len(query) > 0 {
		if slices.ContainsFunc(query, func(c byte) bool { return c <= ' ' || c >= 0x7f }) {
			return describe(errRequest, "query: has a blank or a character beyond ASCII, write it with its escape")
		}
		w.target = append(append(w.target, '?'), query...)
	}
	if w.lines, err = a.forward(w, p); err != nil {
		ctx.SetConnectionClose()
		return describe(errRequest, "header: %v", err)
	}
	w.request = upstream.Request{
		Method: string(ctx.Method()), Target: w.target, Lines: w.lines, Body: body, Sized: sized,
	}
	return nil
}

// Fields of requests that say for whom they are, or what this service reads itself.
var (
	forwardedFields = []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Forwarded"}
	deadlineFields  = []string{timeoutHeader, envoyHeader}
)

// forward makes the header that the service gets.
func (a *API) forward(w *wait, p *Proxy) ([]byte, error) {
	ctx := w.ctx
	h := &ctx.Request.Header
	trusted := a.Proxies != nil && a.Proxies.Trusts(ctx.RemoteAddr())
	ours := p.Authorization != "" || a.guard.asks(w.route.class)
	is := func(name []byte, list []string) bool {
		return slices.ContainsFunc(list, func(n string) bool { return len(n) == len(name) && bytes.EqualFold(name, []byte(n)) })
	}
	limited := false
	b, err := upstream.Forward(w.lines[:0], h.RawHeaders(), func(name []byte) bool {
		switch {
		case is(name, deadlineFields):
			limited = true
			return true
		case is(name, forwardedFields):
			return !trusted || is(name, forwardedFields[:3])
		}
		return ours && is(name, []string{fasthttp.HeaderAuthorization})
	})
	if err != nil {
		return b, err
	}
	line := func(name, value string) {
		b = append(append(append(append(b, name...), ": "...), value...), "\r\n"...)
	}
	said := func(name, otherwise string) string {
		if v := h.Peek(name); trusted && len(v) > 0 {
			return string(v)
		}
		return otherwise
	}
	chain := ""
	if trusted {
		for _, v := range h.PeekAll(fasthttp.HeaderXForwardedFor) {
			chain += string(v) + ", "
		}
	}
	if client := asPeer(ctx.RemoteAddr()); client != "" {
		line(fasthttp.HeaderXForwardedFor, chain+client)
	} else if chain != "" {
		line(fasthttp.HeaderXForwardedFor, chain[:len(chain)-2])
	}
	scheme := "http"
	if ctx.IsTLS() {
		scheme = "https"
	}
	line("X-Forwarded-Proto", said("X-Forwarded-Proto", scheme))
	if host := said("X-Forwarded-Host", string(h.Host())); host != "" {
		line("X-Forwarded-Host", host)
	}
	line("Via", "1.1 "+serverName) // RFC 9110, section 7.6.3
	if p.Authorization != "" {
		line(fasthttp.HeaderAuthorization, p.Authorization)
	}
	if limited { // what is left of it
		left := max(time.Duration(w.limit.end(w.start)-now()).Milliseconds(), 1)
		line(timeoutHeader, strconv.FormatInt(left, 10)+"ms")
	}
	return b, nil
}

// relay answers with what the service has answered. After an error nothing of it is left.
func (a *API) relay(w *wait, answer *upstream.Answer) error {
	ctx, r := w.ctx, &w.ctx.Response
	ctx.SetStatusCode(answer.Status())
	r.Header.SetNoDefaultContentType(true)
	streams := false
	for _, f := range answer.Fields() {
		if !answer.Passes(f.Name) || a.owns(w, f.Name) {
			continue
		}
		streams = streams || isField(f.Name, fasthttp.HeaderContentType) && bytes.HasPrefix(f.Value, []byte("text/event-stream"))
		r.Header.AddBytesKV(f.Name, f.Value)
	}
	if answer.Bodiless() {
		if ctx.IsHead() {
			r.Header.SetContentLength(int(answer.Length())) // -1: in chunks, as there would be
		}
		a.done(w, answer)
		return nil
	}
	most := wholeBytes
	switch {
	case !ctx.Request.Header.IsHTTP11(): // who cannot be sent chunks gets all at once
		most = int(w.route.Proxy.Service.MaxAnswer) + 1
	case streams:
		most = 0
	}
	body, whole, err := answer.Append(r.SwapBody(nil)[:0], most)
	if err != nil {
		_ = answer.Close()
		r.Reset()
		a.identify(ctx, r)
		a.crossOrigin(ctx, w.route)
		return err
	}
	if whole {
		setBody(ctx, body)
		a.done(w, answer)
		return nil
	}
	r.ImmediateHeaderFlush = streams
	r.SetBodyStream(&stream{a: a, w: w, answer: answer, begun: body}, int(answer.Length()))
	return nil
}

func isField(name []byte, other string) bool {
	return len(name) == len(other) && bytes.EqualFold(name, []byte(other))
}

// owns tells whether a field of the answer is this service's to set: when it was sent, what the
// client finds it again by, and who else's pages may read it.
func (a *API) owns(w *wait, name []byte) bool {
	const crossOrigin = "Access-Control-"
	switch {
	case isField(name, fasthttp.HeaderDate):
		return true
	case isField(name, "X-Request-Id"), isField(name, "Traceparent"):
		return len(w.ctx.Request.Header.PeekBytes(name)) > 0
	}
	return w.route.CORS != nil && len(name) > len(crossOrigin) && bytes.EqualFold(name[:len(crossOrigin)], []byte(crossOrigin))
}

// stream is the rest of an answer that is sent while it is read. It keeps the request's place until
// fasthttp closes it.
type stream struct {
	a      *API
	w      *wait
	answer *upstream.Answer
	begun  []byte // what has been read
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if len(s.begun) > 0 {
		n := copy(p, s.begun)
		s.begun = s.begun[n:]
		return n, nil
	}
	n, err := s.answer.Read(p)
	if err != nil && err != io.EOF {
		err = s.a.failure(s.w, err)
	}
	return n, err
}

// Close implements io.Closer.
func (s *stream) Close() error {
	if s.w != nil {
		s.a.done(s.w, s.answer)
		s.w = nil
	}
	return nil
}
