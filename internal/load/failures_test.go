package load

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

// TestEachFailureIsCountedOnce meets servers that misbehave in one way each.
func TestEachFailureIsCountedOnce(t *testing.T) {
	ended := make(chan struct{})
	defer close(ended)
	for _, c := range misbehaviours(ended) {
		for _, keep := range []bool{true, false} {
			if c.answers > 0 && !keep {
				continue
			}
			o := c.o
			o.Addr, o.Keepalive, o.Requests = serve(t, c.handle), keep, 3
			r := run(t, o)
			want := only(c.want, 3-c.answers)
			if r.Failures != want || r.Answers != c.answers {
				t.Errorf("%s, keep-alive %v: want %v, have\n%v", c.name, keep, want, r)
			}
			for _, f := range r.First {
				if f.Class != c.want || f.Reset != c.reset || !strings.Contains(f.Text, c.text) {
					t.Errorf("%s, keep-alive %v: %+v", c.name, keep, f)
				}
			}
		}
	}
}

type misbehaviour struct {
	name    string
	handle  func(v *visit) // of each connection
	o       Options
	want    Class
	reset   bool
	text    string
	answers uint64 // among 3 requests; the others fail
}

// misbehaviours are servers that fail requests in one way each. ended is closed when
// none of them is needed any more.
func misbehaviours(ended <-chan struct{}) []misbehaviour {
	big := Post("/", "text/plain", bytes.Repeat([]byte("x"), 16<<20))
	return []misbehaviour{
		{name: "closed unanswered", handle: func(v *visit) { v.request() }, want: Unanswered, text: "EOF"},
		{name: "reset unanswered", handle: func(v *visit) { v.request(); v.reset() }, want: Unanswered, reset: true, text: "reset by peer"},
		{
			name: "reset while written", o: Options{Request: big}, handle: func(v *visit) { _, _ = v.r.ReadByte(); v.reset() },
			want: Unwritten, reset: true,
		},
		{name: "closed in the header", handle: func(v *visit) { v.request(); v.say("HTTP/1.1 200 OK\r\nContent-") }, want: Partial, text: "EOF"},
		{
			name: "closed in the body", handle: func(v *visit) { v.request(); v.say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi") },
			want: Partial,
		},
		{name: "closed between chunks", handle: func(v *visit) {
			v.request()
			v.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
		}, want: Partial},
		{name: "closed in an interim answer", handle: func(v *visit) { v.request(); v.say("HTTP/1.1 100 Con") }, want: Partial},
		{
			name: "silent", o: Options{Timeout: 30 * time.Millisecond}, handle: func(v *visit) { v.request(); v.request() },
			want: Timeout, text: "i/o timeout",
		},
		{name: "silent in the body", o: Options{Timeout: 30 * time.Millisecond}, handle: func(v *visit) {
			v.request()
			v.say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi")
			v.request()
		}, want: Timeout},
		{name: "never reads", o: Options{Request: big, Timeout: 50 * time.Millisecond}, handle: func(*visit) { <-ended }, want: Timeout},
		{name: "status", handle: func(v *visit) {
			for v.request() {
				v.say("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
			}
		}, want: Status, text: "status 503"},
		{name: "status other than expected", o: Options{Status: 404}, handle: polite, want: Status, text: "status 200"},
		{name: "answers before it has read", o: Options{Request: big}, handle: func(v *visit) {
			_, _ = v.r.ReadByte()
			v.say("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		}, want: Status, text: "status 413"},
		{name: "garbage", handle: func(v *visit) { v.request(); v.say("220 smtp.example.org\r\n") }, want: Protocol, text: `begins with "220`},
		{name: "mismatch", handle: polite, want: Mismatch, text: "unwanted", o: Options{Check: func(status int, body []byte) error {
			return errors.New("unwanted " + string(body))
		}}},
		{name: "fails every second time", handle: func(v *visit) {
			for v.request() {
				v.ok("w")
				if !v.request() {
					return
				}
				v.say("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n")
			}
		}, want: Protocol, answers: 2},
	}
}

func TestFailedDials(t *testing.T) {
	for _, c := range []struct {
		addr string
		want Class
	}{
		{nobody(t), Refused},
		{"unix:" + socketPath(t), Dial},
		{"127.0.0.1:notaport", Dial},
	} {
		r := run(t, Options{Addr: c.addr, Requests: 3, Conns: 2, Pause: -1})
		if r.Failures != only(c.want, 3) || r.Dials != 0 {
			t.Errorf("%s:\n%v", c.addr, r)
		}
	}
}

// TestIdleCloses: a server that closes a connection between two requests fails none,
// and is caught doing it.
func TestIdleCloses(t *testing.T) {
	gone := make(chan struct{}, 1)
	afterClose := func(int, []byte) error { <-gone; return nil } // the answer counts once the connection is closed
	once := func(v *visit, end string) {
		v.request()
		v.ok("main/0/7")
		v.say(end)
		v.Close()
		gone <- struct{}{}
	}
	for _, c := range []struct {
		name   string
		handle func(v *visit)
		want   Closes
		failed Counts
		dials  uint64
	}{
		{"closed", func(v *visit) { once(v, "") }, Closes{Idle: 3}, Counts{}, 3},
		{"reset", func(v *visit) { v.reset(); once(v, "") }, Closes{Idle: 3}, Counts{}, 3},
		{"a word before", func(v *visit) { once(v, "HTTP/1.1 408 Request Time-out\r\n\r\n") }, Closes{Unasked: 3}, Counts{}, 3},
		{"the next request fails", func(v *visit) {
			if v.n%2 == 0 {
				once(v, "")
			} else {
				v.request()
			}
		}, Closes{Idle: 2, IdleThenFailed: 1}, Counts{Unanswered: 1}, 3},
	} {
		r := run(t, Options{Addr: serve(t, c.handle), Keepalive: true, Requests: 3, Check: afterClose})
		if r.Closes != c.want || r.Failures != c.failed || r.Dials != c.dials {
			t.Errorf("%s: %+v\n%v", c.name, r.Closes, r)
		}
		if n := r.Workers[len(r.Workers)-1].IdleCloses; n != c.want.Idle {
			t.Errorf("%s: %d of the worker", c.name, n)
		}
		ports := map[string]bool{"": true}
		for _, one := range r.Closed {
			if ports[one.Local] || one.Worker != "main/0/7" {
				t.Errorf("%s: %+v", c.name, one)
			}
			ports[one.Local] = true
		}
		if uint64(len(r.Closed)) != c.want.Idle {
			t.Errorf("%s: %d listed", c.name, len(r.Closed))
		}
	}
}

// TestLateClose: the close meets the request, so the request fails.
func TestLateClose(t *testing.T) {
	r := run(t, Options{Keepalive: true, Requests: 4, Addr: serve(t, func(v *visit) {
		v.request()
		v.ok("main/1/8")
		v.request()
	})})
	if r.Closes != (Closes{Late: 2}) || r.Failures != (Counts{Unanswered: 2}) || r.Answers != 2 {
		t.Errorf("%v", r)
	}
	for i, f := range r.First {
		if f.Worker != "main/1/8" || f.Answers != 1 || f.Serial != uint64(i+1) || f.Announced || f.Local == "" {
			t.Errorf("%+v", f)
		}
	}
	if len(r.Workers) != 1 || r.Workers[0].Failures.Total() != 2 {
		t.Errorf("%+v", r.Workers)
	}
}

func TestAnnouncedClose(t *testing.T) {
	for _, head := range []string{
		"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/1.1 200 OK\r\n\r\nhi", // framed by the connection's end
	} {
		r := run(t, Options{Keepalive: true, Requests: 3, Addr: serve(t, func(v *visit) { v.request(); v.say(head) }), Check: want("hi")})
		if r.Closes != (Closes{Announced: 3}) || r.Answers != 3 || r.Dials != 3 {
			t.Errorf("%q: %v", head, r)
		}
	}
}

func TestFailuresAreBounded(t *testing.T) {
	r, err := Run(t.Context(), Options{Addr: nobody(t), Request: Get("/"), Requests: 50, Pause: -1, KeepFailures: 7})
	if err != nil || len(r.First) != 7 || r.Failures[Refused] != 50 {
		t.Errorf("%d listed, %v", len(r.First), err)
	}
}

// only counts n failures of one class.
func only(c Class, n uint64) (counts Counts) {
	counts[c] = n
	return counts
}

// want returns a Check for a body.
func want(text string) func(int, []byte) error {
	return func(_ int, body []byte) error {
		if string(body) != text {
			return errors.New("body " + string(body))
		}
		return nil
	}
}
