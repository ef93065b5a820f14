package api

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net"
	"net/netip"
	"strings"

	"github.com/valyala/fasthttp"

	"preforkd/internal/ipc"
)

// class is who may use an endpoint.
type class uint8

const (
	unclassed    class = iota // a mistake in the table endpoints
	open                      // whoever connects: load balancers and orchestrators have no token
	inferClass                // whoever may use models
	tasksClass                // background tasks
	controlClass              // what changes or lists what is loaded
	docsClass                 // people who look at the service
	classes                   // number of the above
)

// classNames are those of the settings, and of the scope in an answer.
var classNames = [classes]string{inferClass: ipc.ClassInfer, tasksClass: ipc.ClassTasks, controlClass: ipc.ClassControl, docsClass: ipc.ClassDocs}

// guard knows the tokens of each class, by their digests. A class without any is open.
type guard struct {
	digests [classes][][sha256.Size]byte
}

// newGuard returns nil where nobody is asked for a token.
func newGuard(tokens map[string][][]byte) *guard {
	var g *guard
	for c := inferClass; c < classes; c++ {
		for _, digest := range tokens[classNames[c]] {
			if g == nil {
				g = &guard{}
			}
			g.digests[c] = append(g.digests[c], [sha256.Size]byte(digest))
		}
	}
	return g
}

// asks tells whether c is for those with a token.
func (g *guard) asks(c class) bool { return g != nil && c > open && len(g.digests[c]) > 0 }

var (
	errUnauthorized = errors.New("no token")
	errForbidden    = errors.New("the token is for other paths")
)

// Errors of requests that are not let in, by class.
var (
	errNoToken  = describe(errUnauthorized, "this path asks for a token: send Authorization: Bearer TOKEN")
	errBadToken = describe(errUnauthorized, "the token is none that is valid here")
	errScope    = func() (all [classes]error) {
		for c, name := range classNames {
			all[c] = describe(errForbidden, "the token is valid, but not for paths of the class %s", name)
		}
		return all
	}()
)

// check says why a request with that header may not use paths of c. The token is compared by its digest
// with every one there is: how long that takes tells nothing of them.
func (g *guard) check(h *fasthttp.RequestHeader, c class) error {
	if !g.asks(c) {
		return nil
	}
	token := bearer(h.Peek(fasthttp.HeaderAuthorization))
	if len(token) == 0 {
		return errNoToken
	}
	digest := sha256.Sum256(token)
	own, any := 0, 0
	for k := range g.digests {
		for i := range g.digests[k] {
			same := subtle.ConstantTimeCompare(digest[:], g.digests[k][i][:])
			any |= same
			own |= same & subtle.ConstantTimeByteEq(uint8(k), uint8(c))
		}
	}
	switch {
	case own == 1:
		return nil
	case any == 1:
		return errScope[c]
	}
	return errBadToken
}

// bearer returns the token of an Authorization header (RFC 6750, section 2.1); the scheme's
// name is in any case (RFC 9110, section 11.1).
func bearer(authorization []byte) []byte {
	scheme, token, _ := bytes.Cut(authorization, []byte(" "))
	if !bytes.EqualFold(scheme, []byte("Bearer")) {
		return nil
	}
	return bytes.Trim(token, " ")
}

// challenge says in the answer to ctx what would have been needed (RFC 6750, section 3), and
// tells the operator.
func (a *API) challenge(ctx *fasthttp.RequestCtx, c class, err error) {
	value := `Bearer realm="preforkd"`
	switch {
	case errors.Is(err, errForbidden):
		value += `, error="insufficient_scope", scope="` + classNames[c] + `"`
	case err == errBadToken:
		value += `, error="invalid_token"`
	}
	ctx.Response.Header.Set(fasthttp.HeaderWWWAuthenticate, value)
	if a.Denied != nil {
		a.Denied(classNames[c], err.Error(), a.client(ctx))
	}
}

// smallBody is what is read of a request that is refused all the same, so that its connection
// can go on: no more than a header.
const smallBody = headerBytes

// unwelcome tells whether a request with a body is refused by its header alone, and makes it one
// without: neither memory nor time is spent on the body. As that still follows, the connection ends.
func (a *API) unwelcome(h *fasthttp.RequestHeader) bool {
	if n := h.ContentLength(); a.guard == nil || n == -2 || n >= 0 && n <= smallBody { // -2: there is none
		return false
	}
	if a.guard.check(h, a.classOf(pathOf(h.RequestURI()))) == nil {
		return false
	}
	h.SetContentLength(0)
	h.SetConnectionClose()
	return true
}

// dismiss throws away what is sent of a body that was not read: see discard.
func dismiss(ctx *fasthttp.RequestCtx) {
	if h := &ctx.Request.Header; h.ContentLength() == 0 && h.ConnectionClose() && framed(ctx) {
		discard(ctx.Conn())
	}
}

// client returns the address for which ctx is: that of the peer, or where that is a trusted
// proxy, the rightmost one that it and others like it have passed on and that is none of them.
func (a *API) client(ctx *fasthttp.RequestCtx) string {
	peer := ctx.RemoteAddr()
	if a.Proxies == nil || !a.Proxies.Trusts(peer) {
		return hostOf(peer)
	}
	hops := forwarded(&ctx.Request.Header)
	last := hostOf(peer)
	for i := len(hops) - 1; i >= 0; i-- {
		ip, ok := hop(hops[i])
		if !ok { // obfuscated, or nonsense: nothing beyond it can be believed
			break
		}
		last = ip.String()
		if !a.Proxies.TrustsIP(ip) {
			break
		}
	}
	return last
}

// forwarded returns the hops that proxies have named, the farthest first. Where both headers are
// there X-Forwarded-For counts: a proxy that knows only that one passes the other on as it is.
func forwarded(h *fasthttp.RequestHeader) (hops []string) {
	for _, line := range h.PeekAll(fasthttp.HeaderXForwardedFor) {
		hops = append(hops, strings.Split(string(line), ",")...)
	}
	if len(hops) > 0 {
		return hops
	}
	for _, line := range h.PeekAll(fasthttp.HeaderForwarded) { // RFC 7239, section 4
		for element := range strings.SplitSeq(string(line), ",") {
			hop := "unknown"
			for pair := range strings.SplitSeq(element, ";") {
				name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
				if strings.EqualFold(name, "for") {
					hop = strings.Trim(value, `"`)
				}
			}
			hops = append(hops, hop)
		}
	}
	return hops
}

// hop reads an address as proxies write it: bare, in brackets, or with a port.
func hop(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(text)
	if full, err := netip.ParseAddrPort(text); err == nil {
		return full.Addr().Unmap(), true
	}
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	return ip.Unmap(), err == nil
}

func hostOf(a net.Addr) string {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().String()
	}
	return "unix socket"
}
