package api

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// CORS is which pages of other origins may use a route from a browser (Fetch, section 3.3).
type CORS struct {
	Origins     []string // "*": all
	Methods     []string
	Headers     []string // "*": any
	Expose      []string
	Credentials bool
	MaxAge      time.Duration
}

// cors is a CORS as it is answered.
type cors struct {
	CORS
	any                      bool
	methods, headers, expose string
	maxAge                   string
}

func newCORS(c *CORS) *cors {
	if c == nil {
		return nil
	}
	return &cors{
		CORS: *c, any: slices.Contains(c.Origins, "*"),
		methods: strings.Join(c.Methods, ", "), headers: strings.Join(c.Headers, ", "), expose: strings.Join(c.Expose, ", "),
		maxAge: strconv.Itoa(int(c.MaxAge / time.Second)),
	}
}

// allows returns what Access-Control-Allow-Origin says to a page of that origin; empty: nothing.
func (c *cors) allows(origin []byte) string {
	if c.any {
		return "*"
	}
	for _, o := range c.Origins {
		if o == string(origin) {
			return o
		}
	}
	return ""
}

// crossOrigin says in the answer to ctx whether the page that asks may read it.
func (a *API) crossOrigin(ctx *fasthttp.RequestCtx, r *route) {
	c := r.cors
	if c == nil {
		return
	}
	h := &ctx.Response.Header
	if !c.any {
		h.Add(fasthttp.HeaderVary, fasthttp.HeaderOrigin)
	}
	origin := ctx.Request.Header.Peek(fasthttp.HeaderOrigin)
	if len(origin) == 0 {
		return
	}
	allowed := c.allows(origin)
	if allowed == "" {
		return
	}
	h.Set(fasthttp.HeaderAccessControlAllowOrigin, allowed)
	if c.Credentials {
		h.Set(fasthttp.HeaderAccessControlAllowCredentials, "true")
	}
	if c.expose != "" {
		h.Set(fasthttp.HeaderAccessControlExposeHeaders, c.expose)
	}
}

var errOrigin = describe(errForbidden, "pages of this origin, or with this method or header, may not use the path (cors of the route)")

// preflight answers a browser that asks whether a page may send a request, and tells whether it was
// such a question. It asks without a token.
func (a *API) preflight(ctx *fasthttp.RequestCtx, r *route) bool {
	method := ctx.Request.Header.Peek(fasthttp.HeaderAccessControlRequestMethod)
	if !ctx.IsOptions() || len(method) == 0 || len(ctx.Request.Header.Peek(fasthttp.HeaderOrigin)) == 0 {
		return false
	}
	c, h := r.cors, &ctx.Response.Header
	h.Add(fasthttp.HeaderVary, "Access-Control-Request-Method, Access-Control-Request-Headers")
	asked := ctx.Request.Header.Peek(fasthttp.HeaderAccessControlRequestHeaders)
	// crossOrigin has said who may.
	if len(h.Peek(fasthttp.HeaderAccessControlAllowOrigin)) == 0 || !slices.Contains(c.Methods, string(method)) || !c.takes(asked) {
		a.fail(ctx, errOrigin)
		return true
	}
	h.Set(fasthttp.HeaderAccessControlAllowMethods, c.methods)
	if c.headers != "" {
		h.Set(fasthttp.HeaderAccessControlAllowHeaders, c.headers)
	}
	h.Set(fasthttp.HeaderAccessControlMaxAge, c.maxAge)
	ctx.SetStatusCode(fasthttp.StatusNoContent)
	return true
}

// takes tells whether all of a list of headers may be sent.
func (c *cors) takes(list []byte) bool {
	if len(list) == 0 || slices.Contains(c.Headers, "*") {
		return true
	}
	for name := range bytes.SplitSeq(list, []byte(",")) {
		name = bytes.Trim(name, " \t")
		if !slices.ContainsFunc(c.Headers, func(h string) bool { return isField(name, h) }) {
			return false
		}
	}
	return true
}
