package api

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/ipc"
	"preforkd/internal/worker/accept"
	"preforkd/internal/worker/lab"
)

// samples has a request to each endpoint.
var samples = map[endpoint][]string{
	root: {"GET /"}, live: {"GET /livez", "GET /healthz", "GET /v2/health/live"}, ready: {"GET /readyz", "GET /ping", "GET /v2/health/ready"},
	server: {"GET /v2", "GET /v2/"}, model: {"GET /v2/models/digits", "GET /v2/models/none"}, modelReady: {"GET /v2/models/digits/ready"},
	infer: {"POST /v2/models/digits/infer", "POST /v2/models/digits/versions/1/infer", "GET /v2/models/digits/infer"}, predict: {"POST /predict", "POST /predict/digits"},
	stats: {"GET /v2/models/stats", "GET /v2/models/digits/stats"}, invocations: {"POST /invocations"},
	v1Models: {"GET /v1/models"}, v1Model: {"GET /v1/models/digits"}, v1Metadata: {"GET /v1/models/digits/metadata"},
	v1Predict: {"POST /v1/models/digits:predict"}, v1Refused: {"POST /v1/models/digits:classify"},
	openAPI: {"GET /openapi.json"}, docs: {"GET /docs"}, modelConfig: {"GET /v2/models/digits/config"},
	index: {"POST /v2/repository/index"}, control: {"POST /v2/repository/models/digits/load", "POST /v2/repository/models/digits/unload"},
	systemMemory: {"GET /v2/systemsharedmemory/status"}, cudaMemory: {"GET /v2/cudasharedmemory/status"},
	trace: {"GET /v2/trace/setting", "POST /v2/models/digits/trace/setting"}, logging: {"GET /v2/logging"},
	custom: {"GET /mine", "POST /mine"}, submitTask: {"POST /models/digits/tasks"}, listTasks: {"GET /tasks"},
	oneTask: {"GET /tasks/x", "DELETE /tasks/x"}, taskResult: {"GET /result/x", "GET /tasks/x/result"},
}

// wanted is the class of each endpoint, once more: who changes one says so twice.
var wanted = map[class][]endpoint{
	open:         {live, ready},
	docsClass:    {root, openAPI, docs},
	controlClass: {index, control, systemMemory, cudaMemory, trace, logging, listTasks},
	tasksClass:   {submitTask, oneTask, taskResult},
	inferClass:   {server, model, modelReady, infer, predict, stats, invocations, v1Models, v1Model, v1Metadata, v1Predict, v1Refused, modelConfig, custom},
}

func digested(tokens ...string) (all [][]byte) {
	for _, token := range tokens {
		digest := sha256.Sum256([]byte(token))
		all = append(all, digest[:])
	}
	return all
}

var tokens = map[string][][]byte{
	ipc.ClassInfer: digested("infer-old", "infer-new", "both"), ipc.ClassTasks: digested("tasks"),
	ipc.ClassControl: digested("control", "both"), ipc.ClassDocs: digested("docs"),
}

// TestTokens: every token with every endpoint.
func TestTokens(t *testing.T) {
	var denied []string
	a := newAPI(t, Options{Tokens: tokens, Routes: []Route{{Path: "/mine", Class: ipc.ClassInfer, Lab: &Lab{lab.Sleep, time.Millisecond}}}, Denied: func(class, why, client string) {
		denied = append(denied, class+" "+client)
	}})
	holders := map[string][]class{ // of a token
		"": nil, "Bearer": nil, "Bearer ": nil, "Basic aW5mZXItb2xk": nil, "infer-old": nil,
		"Bearer nonsense": {}, "Bearer infer-ol": {}, "Bearer infer-old1": {}, "Bearer infer-old infer-new": {}, "Bearer " + strings.Repeat("x", 4000): {},
		"Bearer infer-old": {inferClass}, "bearer infer-new": {inferClass}, "BEARER  both ": {inferClass, controlClass},
		"Bearer tasks": {tasksClass}, "Bearer control": {controlClass}, "Bearer docs": {docsClass},
	}
	for e := root; int(e) < len(endpoints); e++ {
		c := endpoints[e].class
		if c == unclassed || !slices.Contains(wanted[c], e) || len(samples[e]) == 0 {
			t.Errorf("endpoint %d: its class, %d, is not in the tables of this test, or it has no sample", e, c)
			continue
		}
		for _, sample := range samples[e] {
			method, path, _ := strings.Cut(sample, " ")
			if got := a.locate([]byte(path)).endpoint; got != e {
				t.Errorf("%s is endpoint %d, not %d", path, got, e)
			}
			for token, has := range holders {
				ctx := request(path, "{}")
				ctx.Request.Header.SetMethod(method)
				if token != "" {
					ctx.Request.Header.Set("Authorization", token)
				}
				denied = denied[:0]
				a.Handle(ctx)
				got, challenge := ctx.Response.StatusCode(), string(ctx.Response.Header.Peek("WWW-Authenticate"))
				want, header := 0, ""
				switch {
				case c == open || slices.Contains(has, c):
				case has == nil:
					want, header = 401, `Bearer realm="preforkd"`
				case len(has) == 0:
					want, header = 401, `Bearer realm="preforkd", error="invalid_token"`
				default:
					want, header = 403, fmt.Sprintf(`Bearer realm="preforkd", error="insufficient_scope", scope="%s"`, classNames[c])
				}
				if challenge != header || want == 0 && got == 401 || want != 0 && got != want || (len(denied) == 1) != (want != 0) {
					t.Errorf("%s with %.30q: %d, %q, want %d, %q; denied: %q", sample, token, got, challenge, want, header, denied)
				}
				text := string(ctx.Response.Body())
				if want != 0 && strings.HasPrefix(text, `{"detail":`) != (e == predict || e == invocations) || want != 0 && strings.Contains(text, "infer-old") {
					t.Errorf("%s with %.30q: %s", sample, token, text)
				}
			}
		}
	}
}

// TestOpenClasses: a class without a token asks for none, whatever others do, and unknown paths
// are unknown to everybody.
func TestOpenClasses(t *testing.T) {
	a := newAPI(t, Options{Tokens: map[string][][]byte{ipc.ClassControl: digested("control")}})
	for sample, want := range map[string]int{"GET /v2": 200, "GET /docs": 200, "POST /v2/repository/index": 401, "GET /nothing": 404, "GET /livez": 200} {
		method, path, _ := strings.Cut(sample, " ")
		ctx := request(path, "")
		ctx.Request.Header.SetMethod(method)
		if a.Handle(ctx); ctx.Response.StatusCode() != want {
			t.Errorf("%s: %d", sample, ctx.Response.StatusCode())
		}
	}
	for _, none := range []map[string][][]byte{nil, {}, {ipc.ClassInfer: nil}, {"nobody": digested("x")}} {
		if newGuard(none) != nil {
			t.Errorf("%v guards something", none)
		}
	}
}

// TestRefusedUnread: the answer comes before a large body, which is never read; a small one is,
// so that the connection goes on.
func TestRefusedUnread(t *testing.T) {
	var lock sync.Mutex
	var clients []string
	address := serve(t, newAPI(t, Options{Tokens: tokens, Denied: func(_, _, client string) {
		lock.Lock()
		defer lock.Unlock()
		clients = append(clients, client)
	}}), limits)
	const predict = "POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer docs\r\n"
	for name, text := range map[string]string{
		"announced":  predict + "Content-Length: 60000\r\n\r\n",
		"too large":  predict + "Content-Length: 6000000\r\n\r\n{",
		"in chunks":  predict + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"on request": predict + "Content-Length: 60000\r\nExpect: 100-continue\r\n\r\n",
		"elsewhere":  "POST http://x/v2/models/digits/infer?a=b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer docs\r\nContent-Length: 60000\r\n\r\n",
	} {
		c := dial(t, address)
		c.send(t, text)
		status, body, h := c.answer(t)
		if status != 403 || h.Get("Connection") != "close" || h.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d %s %v", name, status, body, h)
		}
		if _, err := c.r.ReadByte(); err == nil {
			t.Errorf("%s: the connection goes on", name)
		}
	}
	c := dial(t, address)
	for range 3 {
		c.send(t, strings.Replace(post("/predict", features), "Host: x", "Host: x\r\nAuthorization: Bearer docs", 1))
		if status, body, h := c.answer(t); status != 403 || h.Get("Connection") != "" {
			t.Errorf("%d %s %v", status, body, h)
		}
		c.send(t, strings.Replace(post("/predict", features), "Host: x", "Host: x\r\nAuthorization: Bearer both", 1))
		if status, body, _ := c.answer(t); status != 200 {
			t.Errorf("%d %s", status, body)
		}
	}
	lock.Lock()
	defer lock.Unlock()
	if len(clients) != 8 || slices.Compact(clients)[0] != "127.0.0.1" {
		t.Errorf("denied to %q", clients)
	}
}

// TestClient: whom a request is counted against, by what trusted proxies say.
func TestClient(t *testing.T) {
	a := newAPI(t, Options{Proxies: &accept.Proxies{Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}})
	for _, c := range []struct {
		peer, want string
		headers    []string
	}{
		{"192.0.2.9:1", "192.0.2.9", []string{"X-Forwarded-For: 1.1.1.1"}}, // a stranger is not believed
		{"10.0.0.1:1", "10.0.0.1", nil},
		{"10.0.0.1:1", "1.1.1.1", []string{"X-Forwarded-For: 1.1.1.1"}},
		{"[::ffff:10.0.0.1]:1", "1.1.1.1", []string{"X-Forwarded-For: 9.9.9.9, 1.1.1.1"}}, // the client invented the first
		{"10.0.0.1:1", "1.1.1.1", []string{"X-Forwarded-For: 9.9.9.9, 1.1.1.1, 10.9.9.9"}},
		{"10.0.0.1:1", "1.1.1.1", []string{"X-Forwarded-For: 9.9.9.9", "X-Forwarded-For: 1.1.1.1:443 ,fd00::1"}},
		{"10.0.0.1:1", "10.0.0.3", []string{"X-Forwarded-For: 10.0.0.3, 10.0.0.2"}},
		{"10.0.0.1:1", "10.0.0.2", []string{"X-Forwarded-For: 1.1.1.1, nonsense, 10.0.0.2"}},
		{"10.0.0.1:1", "10.0.0.1", []string{"X-Forwarded-For: "}},
		{"10.0.0.1:1", "2001:db8::1", []string{"X-Forwarded-For: [2001:db8::1]"}},
		{"10.0.0.1:1", "2001:db8::1", []string{`Forwarded: for=9.9.9.9, proto=https;For="[2001:db8::1]:4711";by=x, for=10.0.0.2`}},
		{"10.0.0.1:1", "10.0.0.2", []string{`Forwarded: for=1.1.1.1, for=_hidden, for=10.0.0.2`}},
		{"10.0.0.1:1", "10.0.0.2", []string{`Forwarded: for=1.1.1.1, by=x, for=10.0.0.2`}},
		{"10.0.0.1:1", "1.1.1.1", []string{"Forwarded: for=9.9.9.9", "X-Forwarded-For: 1.1.1.1"}},
	} {
		var ctx fasthttp.RequestCtx
		var r fasthttp.Request
		for _, h := range c.headers {
			name, value, _ := strings.Cut(h, ": ")
			r.Header.Add(name, value)
		}
		ctx.Init(&r, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.peer)), nil)
		if got := a.client(&ctx); got != c.want {
			t.Errorf("%s, %q: %s, want %s", c.peer, c.headers, got, c.want)
		}
	}
}

func FuzzForwarded(f *testing.F) {
	f.Add("1.1.1.1, [::1]:3", `for="[::1]:4711";proto=https, for=_x`)
	f.Add(",,", ";;=,")
	f.Fuzz(func(t *testing.T, xff, forwardedText string) {
		var h fasthttp.RequestHeader
		h.Add("Forwarded", forwardedText)
		for _, text := range forwarded(&h) {
			hop(text)
		}
		h.Add("X-Forwarded-For", xff)
		if n := len(forwarded(&h)); n != strings.Count(string(h.Peek("X-Forwarded-For")), ",")+1 {
			t.Errorf("%q: %d hops", xff, n)
		}
	})
}

// TestDocumentsOfTokens: the document says which paths ask for one, and the pages have a field for it,
// where any does.
func TestDocumentsOfTokens(t *testing.T) {
	guarded := newAPI(t, Options{Tokens: map[string][][]byte{ipc.ClassInfer: digested("infer")}})
	doc := document(t, guarded)
	if err := doc.Validate(context.Background()); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]bool{"/predict": true, "/v2": true, "/livez": false, "/docs": false, "/v2/repository/index": false} {
		for method, o := range doc.Paths.Value(path).Operations() {
			if got := o.Security != nil; got != want {
				t.Errorf("%s %s asks for a token: %v", method, path, got)
			}
		}
	}
	if document(t, newAPI(t, Options{})).Components.SecuritySchemes != nil {
		t.Error("a token is described where none is asked for")
	}
	for _, path := range []string{"/", "/docs"} {
		isWellFormed(t, get(guarded, path))
		for a, want := range map[*API]bool{guarded: true, newAPI(t, Options{}): false} {
			if got := strings.Contains(string(get(a, path).Body()), `id="token" type="password"`); got != want {
				t.Errorf("%s has a field for a token: %v", path, got)
			}
		}
	}
}
