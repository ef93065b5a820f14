package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/testkit"
)

// TestProxyFaults: whatever a service does, its route says so in time, and the next request is answered.
func TestProxyFaults(t *testing.T) {
	u := newUpstream(t)
	s := testkit.Start(t, testkit.Options{Workers: 1, Config: fmt.Sprintf(`routes:
  /async: {layer: async, proxy: {url: "http://%[1]s/x", max_answer: 4KiB, max_body: 1KiB}}
  /sync: {proxy: {url: "http://%[1]s/x", max_answer: 4KiB}}
  /slow: {layer: async, proxy: {url: "http://%[1]s", response_timeout: 50ms}}
  /short: {layer: async, proxy: {url: "http://%[1]s", timeout: 50ms}}
  /down: {layer: async, proxy: "http://127.0.0.1:1"}
  /unknown: {layer: async, proxy: "http://none.invalid"}
`, u.address)})
	worker := s.Workers()[0]
	for _, c := range []struct {
		path   string
		status int
		says   string
	}{
		{"/down", 502, "the service behind route /down cannot be reached: connection refused"},
		{"/unknown", 502, "the service behind route /unknown cannot be reached: its name is not known"},
		{"/slow?do=hang", 504, "the service behind route /slow gave no answer within 50ms (response_timeout)"},
		{"/short?do=hang", 504, "gave no answer within 50ms (the route's timeout)"},
		{"/async?do=garbage", 502, "which is no HTTP"},
		{"/async?do=lengths", 502, "answered with two lengths, 2 and 3"},
		{"/async?do=both", 502, "both Content-Length and Transfer-Encoding"},
		{"/async?do=nothing", 502, "closed the connection without an answer"},
		{"/async?do=reset", 502, "closed the connection without an answer"},
		{"/async?do=half", 502, "closed the connection in the middle of its answer"},
		{"/async?do=middle", 502, "closed the connection in the middle of its answer"},
		{"/async?do=chunk", 502, "closed the connection in the middle of its answer"},
		{"/async?do=large", 502, "more than 4096 bytes (max_answer)"},
		{"/async?do=switch", 502, "answered with 101"},
		{"/async?do=busy", 503, "busy"},
		{"/sync?do=middle", 502, "closed the connection in the middle of its answer"},
		{"/async", 200, "ok"},
		{"/sync", 200, "ok"},
	} {
		status, body := get(t, s.URL+c.path)
		if status != c.status || !strings.Contains(strings.ReplaceAll(body, `\"`, `"`), c.says) {
			t.Errorf("%s: %d %s, want %d %s", c.path, status, body, c.status, c.says)
		}
	}
	req, _ := http.NewRequest("GET", s.URL+"/async?do=hang", nil)
	req.Header.Set("X-Request-Timeout", "60ms")
	resp, err := fresh.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if status, body := answered(t, resp); status != 504 || !strings.Contains(body, "within 60ms (X-Request-Timeout)") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := post(t, s.URL+"/async", strings.Repeat("x", 1025)); status != 413 || !strings.Contains(body, "max_body of route /async") {
		t.Errorf("%d %s", status, body)
	}
	if testkit.Await(func() bool { return strings.Contains(s.LogText(), `msg="service behind a route failed"`) }) != nil || !strings.Contains(s.LogText(), "service=http://127.0.0.1:1") {
		t.Error("the log does not say it")
	}
	if now := s.Workers(); len(now) != 1 || now[0] != worker {
		t.Errorf("the worker was replaced: %v", now)
	}
}

// TestProxyPasses: what is for both ends is passed on in either direction, what is for one connection
// is not; a redirect is the client's to follow.
func TestProxyPasses(t *testing.T) {
	u := newUpstream(t)
	tokens := inFile(t, "the-token-of-these-tests")
	s := testkit.Start(t, testkit.Options{Workers: 1, Config: fmt.Sprintf(`http: {trusted_proxies: [unix]}
auth: {infer: %s}
routes:
  /in: {layer: async, class: docs, proxy: "http://%[2]s/base/path"}
  /own: {layer: async, class: docs, proxy: {url: "http://%[2]s", authorization_file: %[3]s, methods: [GET]}}
  /guarded: {layer: async, proxy: "http://%[2]s"}
`, tokens, u.address, inFile(t, "Bearer of-the-service"))})
	ask := func(method, path, body string, header ...string) *http.Response {
		t.Helper()
		req, err := http.NewRequest(method, s.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := (&http.Transport{DisableKeepAlives: true, DisableCompression: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	sent := strings.Repeat("0123456789abcdef", 20_000)
	resp := ask("POST", "/in?do=echo&a=%20b", sent, "Connection", "X-Hop", "X-Hop", "1", "Keep-Alive", "5", "Te", "trailers", "Proxy-Authorization", "x", "Upgrade", "h2c",
		"X-Forwarded-For", "6.6.6.6", "Forwarded", "for=6.6.6.6", "X-Forwarded-Host", "evil", "Authorization", "Basic of-the-client", "X-Kept", "1", "X-Request-Timeout", "20s", "X-Request-Id", "r1")
	if status, body := answered(t, resp); status != 201 || body != sent || resp.Header.Get("Content-Type") != "application/x-echo" || resp.Header.Get("X-Request-Id") != "r1" {
		t.Errorf("%d, %d bytes, %v", status, len(body), resp.Header)
	}
	head, body := u.last()
	if body != sent || !strings.HasPrefix(head, "POST /base/path?do=echo&a=%20b HTTP/1.1\r\nHost: "+u.address+"\r\n") {
		t.Errorf("%s", head)
	}
	for _, want := range []string{"X-Kept: 1", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: " + strings.TrimPrefix(s.URL, "http://"), "Via: 1.1 preforkd", "Authorization: Basic of-the-client", "Content-Length: 320000", "X-Request-Timeout: 19"} {
		if !strings.Contains(head, "\r\n"+want) {
			t.Errorf("no %s in\n%s", want, head)
		}
	}
	for _, not := range []string{"X-Hop", "Keep-Alive", "\r\nTe:", "Proxy-Authorization", "Upgrade", "6.6.6.6", "evil", "\r\nConnection", "Transfer-Encoding"} {
		if strings.Contains(head, not) {
			t.Errorf("%s in\n%s", not, head)
		}
	}
	resp = ask("GET", "/in?do=hops", "")
	if got := resp.Header; got.Get("X-Kept") != "1" || len(got["Set-Cookie"]) != 2 || got.Get("X-Hop")+got.Get("Keep-Alive")+got.Get("Proxy-Authenticate")+got.Get("Upgrade") != "" {
		t.Errorf("%v", got)
	}
	if resp = ask("GET", "/in?do=redirect", ""); resp.StatusCode != 302 || resp.Header.Get("Location") != "http://127.0.0.1:1/elsewhere" {
		t.Errorf("%v", resp)
	}
	if resp = ask("GET", "/in?do=none", ""); resp.StatusCode != 204 {
		t.Errorf("%v", resp)
	}
	if resp = ask("DELETE", "/in", ""); resp.StatusCode != 200 {
		t.Errorf("%v", resp)
	}
	if resp = ask("POST", "/own", ""); resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET" {
		t.Errorf("%v", resp)
	}
	ask("GET", "/own", "", "Authorization", "Basic of-the-client")
	if head, _ = u.last(); !strings.Contains(head, "Authorization: Bearer of-the-service\r\n") || strings.Contains(head, "of-the-client") {
		t.Errorf("%s", head)
	}
	if resp = ask("GET", "/guarded", ""); resp.StatusCode != 401 {
		t.Errorf("%v", resp)
	}
	if resp = ask("GET", "/guarded", "", "Authorization", "Bearer the-token-of-these-tests"); resp.StatusCode != 200 {
		t.Errorf("%v", resp)
	}
	if head, _ = u.last(); strings.Contains(head, "the-token") {
		t.Errorf("the token was passed on:\n%s", head)
	}
	if resp = ask("GET", "/in?do=big", ""); resp.ContentLength != 1<<20 {
		t.Errorf("%v", resp)
	} else if _, body := answered(t, resp); len(body) != 1<<20 {
		t.Errorf("%d bytes", len(body))
	}
	if resp = ask("GET", "/in?do=cut", ""); resp.StatusCode != 200 {
		t.Errorf("%v", resp)
	} else if n, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Errorf("an answer that was cut is whole, with %d bytes", n)
	}
	resp = ask("GET", "/in?do=events", "")
	in := bufio.NewReader(resp.Body)
	if first, err := in.ReadString('1'); err != nil || first != "data: 1" {
		t.Errorf("%q %v", first, err)
	}
	close(u.release)
	if rest, err := io.ReadAll(in); err != nil || string(rest) != "data: 2" {
		t.Errorf("%q %v", rest, err)
	}
}

// TestProxySmuggling: a request that can be read in two ways reaches no service.
func TestProxySmuggling(t *testing.T) {
	u := newUpstream(t)
	s := testkit.Start(t, testkit.Options{Workers: 1, Config: "routes:\n  /x: {layer: async, proxy: \"http://" + u.address + "\"}\n"})
	for _, lines := range []string{
		"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
		"Content-Length: 0\r\nContent-Length: 4\r\n\r\nabcd",
		"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
		"Content-Length: 4, 4\r\n\r\nabcd",
		"Content-Length: +4\r\n\r\nabcd",
		"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
		"A: b\r\n Content-Length: 4\r\nContent-Length: 0\r\n\r\n",
	} {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(testkit.Limit))
		fmt.Fprintf(c, "POST /x HTTP/1.1\r\nHost: x\r\n%sGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n", lines)
		answer, err := io.ReadAll(c)
		if text := string(answer); err != nil || !strings.HasPrefix(text, "HTTP/1.1 400 ") && !strings.HasPrefix(text, "HTTP/1.1 501 ") || strings.Count(text, "HTTP/1.1 ") != 1 {
			t.Errorf("%q: %q %v", lines, answer, err)
		}
		c.Close()
	}
	if head, _ := u.last(); u.conns.Load() != 0 {
		t.Errorf("the service was asked:\n%s", head)
	}
}

// TestRoutesKeepTheirPools: a service that hangs takes its own route's places, on either layer, and
// nobody else's; who closes the connection is waited for no longer.
func TestRoutesKeepTheirPools(t *testing.T) {
	u, well := newUpstream(t), newUpstream(t)
	s := testkit.Start(t, testkit.Options{Workers: 1, Config: fmt.Sprintf(`layers: {async: {max: 8}, sync: {pool: 4, max: 20}}
routes:
  /async/hangs: {layer: async, proxy: "http://%[1]s"}
  /async/well: {layer: async, proxy: "http://%[2]s"}
  /sync/hangs: {proxy: "http://%[1]s"}
  /sync/well: {proxy: "http://%[2]s"}
`, u.address, well.address)})
	leaveAsync := waiting(t, s.URL+"/async/hangs?do=hang", 4)
	leaveSync := waiting(t, s.URL+"/sync/hangs?do=hang", 10)
	if testkit.Await(func() bool { return u.conns.Load() == 4+2 }) != nil {
		t.Fatalf("%d connections", u.conns.Load())
	}
	if status, body := get(t, s.URL+"/async/hangs"); status != 503 || !strings.Contains(body, "as many requests of route /async/hangs are under way as may") {
		t.Errorf("%d %s", status, body)
	}
	for _, path := range []string{"/async/well", "/sync/well", "/healthz"} {
		for range 8 {
			if status, body := get(t, s.URL+path); status != 200 {
				t.Errorf("%s: %d %s", path, status, body)
			}
		}
	}
	leaveSync()
	leaveAsync()
	if testkit.Await(func() bool { return u.lost.Load() == u.conns.Load() }) != nil {
		t.Errorf("%d of %d were given up", u.lost.Load(), u.conns.Load())
	}
	for _, path := range []string{"/async/hangs", "/sync/hangs"} {
		if status, body := get(t, s.URL+path); status != 200 {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

// TestProxyDrains: a request that waits for a service is in flight when the worker leaves.
func TestProxyDrains(t *testing.T) {
	u := newUpstream(t)
	s := testkit.Start(t, testkit.Options{Workers: 1, Config: "routes:\n  /x: {layer: async, proxy: \"http://" + u.address + "\"}\n"})
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Limit)
	defer cancel()
	answer := make(chan string, 1)
	go func() {
		req, _ := http.NewRequestWithContext(ctx, "GET", s.URL+"/x?do=hang", nil)
		resp, err := fresh.Do(req)
		if err != nil {
			answer <- err.Error()
			return
		}
		status, body := answered(t, resp)
		answer <- fmt.Sprint(status, " ", body)
	}()
	if testkit.Await(func() bool { return u.conns.Load() == 1 }) != nil {
		t.Fatal("nothing is asked")
	}
	s.Signal(syscall.SIGTERM)
	if testkit.Await(func() bool {
		return strings.Contains(s.LogText(), "stopping") || strings.Contains(s.LogText(), "draining") || s.Reported("STOPPING=1")
	}) != nil {
		t.Fatal("it does not stop")
	}
	close(u.release)
	if got := <-answer; got != "200 ok" {
		t.Error(got)
	}
	if status := s.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}
