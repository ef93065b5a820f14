package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestAnswersThatAreNone: what can be read in two ways, and what is no answer, is refused.
func TestAnswersThatAreNone(t *testing.T) {
	for _, c := range []struct {
		name, text string
		kind       Kind
		says       string
	}{
		{"another protocol", "SSH-2.0-OpenSSH_9\r\n", Garbage, `"SSH-2.0-OpenSSH_9\r\n", which is no HTTP`},
		{"another version", "HTTP/2 200\r\n\r\n", Garbage, "which is no HTTP/1.1"},
		{"no status", "HTTP/1.1 2x0 OK\r\n\r\n", Garbage, "no HTTP"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", Garbage, "two lengths, 2 and 3"},
		{"a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", Garbage, "no length"},
		{"a sign", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", Garbage, "no length"},
		{"length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Garbage, "both Content-Length and Transfer-Encoding"},
		{"two codings", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Garbage, "chunked is read"},
		{"chunks of 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Garbage, "HTTP/1.0 has not"},
		{"a folded line", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", Garbage, "begins with a blank"},
		{"a blank before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", Garbage, "no line of a header"},
		{"bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok", Garbage, "do not end with CR LF"},
		{"a control character", "HTTP/1.1 200 OK\r\nA: b\x01\r\n\r\n", Garbage, "control character"},
		{"a switch", "HTTP/1.1 101 Switching Protocols\r\n\r\n", Garbage, "101"},
		{"too many fields", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 201) + "\r\n", Large, "more than 200 fields"},
		{"a long header", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", 70_000), Large, "more than is read"},
		{"a large answer", "HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n", Large, "1048576 bytes (max_answer)"},
		{"a large chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n" + strings.Repeat("a", 0x100001), Large, "max_answer"},
		{"a negative chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", Garbage, "length of a chunk"},
		{"a chunk in text", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Garbage, "length of a chunk"},
		{"a chunk too long", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", Garbage, "longer than it says"},
		{"no answer", "", Closed, "without an answer"},
		{"half a header", "HTTP/1.1 200 OK\r\nConte", Closed, "in the middle"},
		{"half a body", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", Closed, "in the middle"},
		{"half a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok", Closed, "in the middle"},
		{"no last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", Closed, "in the middle"},
	} {
		_, _, err := answerTo("GET", []byte(c.text), 1000)
		var e *Error
		if !errors.As(err, &e) || e.Kind != c.kind || !strings.Contains(e.Text, c.says) {
			t.Errorf("%s: %#v, want %d with %q", c.name, err, c.kind, c.says)
		}
	}
}

func TestAnswersThatAre(t *testing.T) {
	for _, c := range []struct {
		text, method, body string
		keeps              bool
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "GET", "ok", true},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nok", "GET", "ok", true},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Close\r\n\r\nok", "GET", "ok", false},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more", "GET", "ok", false},
		{"HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\no\r\n1 ;x\r\nk\r\n00\r\nT: x\r\n\r\n", "GET", "ok", true},
		{"HTTP/1.1 200 OK\r\n\r\nok", "GET", "ok", false},
		{"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "GET", "ok", false},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "HEAD", "", true},
		{"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET", "", true},
	} {
		a, body, err := answerTo(c.method, []byte(c.text), 7)
		if err != nil || string(body) != c.body {
			t.Errorf("%q: %q, %v", c.text, body, err)
			continue
		}
		a.http.keep = time.Hour
		_ = a.Close()
		if keeps := a.http.Idle() == 1; keeps != c.keeps {
			t.Errorf("%q: connection kept: %v", c.text, keeps)
		}
	}
}

func TestForwardRefuses(t *testing.T) {
	for raw, want := range map[string]string{
		"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n": "both",
		"Content-Length: 1\r\nContent-Length: 1\r\n":          "more than once",
		"A: b\r\n c\r\n": "blank",
		"A b: c\r\n":     "no line of a header",
		"Connection: " + strings.Repeat("a,", 40) + "\r\n":          "Connection names more than 32",
		"Connection: x\r\nA: " + string([]byte{'b', 0x0b}) + "\r\n": "control character",
	} {
		if _, err := Forward(nil, []byte(raw), func([]byte) bool { return false }); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", raw, err)
		}
	}
	got, err := Forward(nil, []byte("Host: h\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nAccept:  a \r\nExpect: 100-continue\r\nContent-Length: 3\r\nCookie: a\r\nCookie: b\r\n"), func([]byte) bool { return false })
	if err != nil || string(got) != "Accept: a\r\nCookie: a\r\nCookie: b\r\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// listen serves each connection by serve, in a goroutine of its own, with its number.
func listen(t *testing.T, serve func(c net.Conn, in *bufio.Reader, n int)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with the listener
		for n := 0; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c, bufio.NewReader(c), n)
			}()
		}
	}()
	return ln.Addr().String()
}

// request reads a request without a body.
func request(in *bufio.Reader) bool {
	for {
		line, err := in.ReadString('\n')
		if err != nil || line == "\r\n" {
			return err == nil
		}
	}
}

func ask(h *HTTP, call *Call, method string) (string, error) {
	a, err := h.Do(call, &Request{Method: method, Target: []byte("/")})
	if err != nil {
		return "", err
	}
	defer a.Close()
	body, err := io.ReadAll(a)
	return string(body), err
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// TestRetries: what may be repeated is, while nothing of an answer has come.
func TestRetries(t *testing.T) {
	for _, c := range []struct {
		method, first string
		conns         int32
		fails         bool
	}{
		{"GET", "", 2, false},
		{"PUT", "", 2, false},
		{"POST", "", 1, true},
		{"PATCH", "", 1, true},
		{"GET", "HTTP/1.1 200 OK\r\nContent-", 1, true},
		{"GET", "nonsense\r\n\r\n", 1, true},
	} {
		var conns atomic.Int32
		address := listen(t, func(nc net.Conn, in *bufio.Reader, n int) {
			conns.Add(1)
			request(in)
			if n == 0 {
				_, _ = io.WriteString(nc, c.first)
				return
			}
			_, _ = io.WriteString(nc, ok)
		})
		_, err := ask(NewHTTP(Options{Address: address, Retries: 1}), &Call{}, c.method)
		if (err != nil) != c.fails || conns.Load() != c.conns {
			t.Errorf("%s after %q: %v, %d connections", c.method, c.first, err, conns.Load())
		}
	}
}

// TestConnections: they are kept, looked at before they are used again, and closed when idle for
// too long.
func TestConnections(t *testing.T) {
	closing := make(chan struct{})
	closed := make(chan struct{}, 1)
	var conns atomic.Int32
	address := listen(t, func(c net.Conn, in *bufio.Reader, n int) {
		conns.Add(1)
		for range 2 {
			if !request(in) {
				break
			}
			_, _ = io.WriteString(c, ok)
		}
		if n == 0 {
			<-closing
			_ = c.Close()
			closed <- struct{}{}
		}
		request(in)
	})
	h := NewHTTP(Options{Address: address, Keep: time.Minute})
	defer h.Close()
	for range 2 {
		if body, err := ask(h, &Call{}, "GET"); err != nil || body != "ok" {
			t.Fatal(body, err)
		}
	}
	if conns.Load() != 1 || h.Idle() != 1 {
		t.Errorf("%d connections, %d idle", conns.Load(), h.Idle())
	}
	close(closing)
	<-closed
	// POST is not repeated: it goes over a new connection, as the service has closed the idle one.
	if body, err := ask(h, &Call{}, "POST"); err != nil || body != "ok" || conns.Load() != 2 {
		t.Errorf("%q, %v, %d connections", body, err, conns.Load())
	}
	h.Sweep(time.Now())
	if h.Idle() != 1 {
		t.Error("a fresh connection was closed")
	}
	h.Sweep(time.Now().Add(time.Hour))
	if h.Idle() != 0 {
		t.Error("an old connection was kept")
	}
}

// TestEnds: an exchange ends by its own limits, by the call's, and when nobody waits.
func TestEnds(t *testing.T) {
	got := make(chan struct{}, 10)
	address := listen(t, func(c net.Conn, in *bufio.Reader, _ int) {
		request(in)
		got <- struct{}{}
		request(in)
	})
	kind := func(err error) Error {
		var e *Error
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		return *e
	}
	_, err := ask(NewHTTP(Options{Address: address, Answer: 10 * time.Millisecond, Of: "response_timeout"}), &Call{}, "GET")
	if e := kind(err); e.Kind != Slow || e.Of != "response_timeout" || e.Within != 10*time.Millisecond {
		t.Errorf("%+v", e)
	}
	_, err = ask(NewHTTP(Options{Address: address, Answer: time.Hour}), &Call{End: time.Now().Add(10 * time.Millisecond)}, "GET")
	if e := kind(err); e.Kind != Slow || e.Of != "" {
		t.Errorf("%+v", e)
	}
	<-got
	<-got
	call := &Call{}
	go func() { // ends with the test's request
		<-got
		call.Abort()
	}()
	_, err = ask(NewHTTP(Options{Address: address}), call, "GET")
	if e := kind(err); e.Kind != Aborted {
		t.Errorf("%+v", e)
	}
	if _, err = ask(NewHTTP(Options{Address: address}), call, "GET"); kind(err).Kind != Aborted {
		t.Error("a call that was aborted went on")
	}
	_, err = ask(NewHTTP(Options{Address: "127.0.0.1:1", Connect: time.Second}), &Call{}, "GET")
	if e := kind(err); e.Kind != Unreachable || e.Text != "cannot be reached: connection refused" {
		t.Errorf("%+v", e)
	}
}

// TestRedis: what logs in is sent once for each connection, all keys at once; what Redis refuses is
// said in its words.
func TestRedis(t *testing.T) {
	greeted := atomic.Int32{}
	address := listen(t, func(c net.Conn, in *bufio.Reader, n int) {
		skip := func(lines int) bool {
			for range lines {
				if _, err := in.ReadString('\n'); err != nil {
					return false
				}
			}
			return true
		}
		if n == 0 {
			skip(7 + 5)
			greeted.Add(1)
			_, _ = io.WriteString(c, "+OK\r\n+OK\r\n")
		}
		for n == 0 && skip(9*2) {
			_, _ = io.WriteString(c, "*2\r\n$1\r\n1\r\n$-1\r\n*2\r\n$-1\r\n$0\r\n\r\n")
		}
		skip(12)
		_, _ = io.WriteString(c, "-WRONGPASS invalid username-password pair\r\n")
	})
	r := NewRedis(RedisOptions{Options: Options{Address: address, Keep: time.Minute}, User: "u", Password: "p", Database: 3})
	defer r.Close()
	query := func() (string, error) {
		var got []string
		err := r.Do(&Call{}, &Query{Keys: [][]byte{[]byte("k1"), []byte("k2")}, Fields: []string{"a", "b"}, Value: func(key, field int, value []byte) error {
			got = append(got, fmt.Sprintf("%d%d%q%v", key, field, value, value == nil))
			return nil
		}})
		return strings.Join(got, " "), err
	}
	for range 2 {
		if got, err := query(); err != nil || got != `00"1"false 01""true 10""true 11""false` {
			t.Fatal(got, err)
		}
	}
	if greeted.Load() != 1 || r.Idle() != 1 {
		t.Errorf("greeted %d times, %d idle", greeted.Load(), r.Idle())
	}
	r.Close()
	var e *Error
	if _, err := query(); !errors.As(err, &e) || e.Kind != Refused || e.Text != "refused the command: WRONGPASS invalid username-password pair" {
		t.Error(err)
	}
}
