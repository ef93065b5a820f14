package upstream

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// said is a connection on which bytes have arrived, and nothing follows.
type said struct {
	net.Conn
	in   io.Reader
	sent bytes.Buffer
}

func (s *said) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *said) Write(p []byte) (int, error) { return s.sent.Write(p) }
func (s *said) Close() error                { return nil }
func (s *said) SetDeadline(time.Time) error { return nil }

// saying returns a connection on which text has arrived, in pieces of so many bytes.
func saying(text []byte, piece int) *conn {
	c := &conn{Conn: &said{in: &pieces{bytes.NewReader(text), piece}}}
	c.begin()
	return c
}

// pieces returns at most so many bytes at once.
type pieces struct {
	io.Reader
	most int
}

func (r *pieces) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), r.most)]) }

// answerTo reads an answer that text is, with its body.
func answerTo(method string, text []byte, piece int) (*Answer, []byte, error) {
	h := NewHTTP(Options{MaxAnswer: 1 << 20})
	a := &Answer{http: h, call: &Call{}, conn: saying(text, piece), first: true}
	if err := h.exchange(a, &Request{Method: method, Target: []byte("/")}); err != nil {
		return nil, nil, failed(err, a.conn.got)
	}
	body, err := io.ReadAll(a)
	return a, body, err
}

// FuzzAnswer: what is read is what net/http reads, in whatever pieces it comes; what net/http
// refuses is refused.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nok", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
	} {
		f.Add([]byte(text), byte(3), false)
	}
	f.Fuzz(func(t *testing.T, text []byte, piece byte, head bool) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		a, body, err := answerTo(method, text, int(piece)+1)
		if _, whole, again := answerTo(method, text, len(text)+1); (err == nil) != (again == nil) || err == nil && !bytes.Equal(body, whole) {
			t.Fatalf("in pieces %q, %v; whole %q, %v", body, err, whole, again)
		}
		if err != nil {
			return
		}
		in := bufio.NewReader(bytes.NewReader(text))
		var want *http.Response
		for {
			if want, err = http.ReadResponse(in, &http.Request{Method: method}); err != nil {
				t.Fatalf("%d %q was read, net/http says %v", a.Status(), body, err)
			}
			if want.StatusCode >= 200 {
				break
			}
		}
		theirs, err := io.ReadAll(want.Body)
		if err != nil || want.StatusCode != a.Status() || !bytes.Equal(theirs, body) {
			t.Fatalf("%d %q, net/http has %d %q %v", a.Status(), body, want.StatusCode, theirs, err)
		}
	})
}

// FuzzForward: nothing that is for one connection is passed on, and no line becomes two.
func FuzzForward(f *testing.F) {
	for _, text := range []string{
		"Connection: close, X-A\r\nX-A: 1\r\nX-B: 2\r\n", "Host: a\r\nTE: trailers\r\nCookie: a=b\r\n",
		"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "A : b\r\n", " A: b\r\n", "A: b\x00\r\n", "A: b\rc: d\r\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		lines, err := Forward(nil, raw, func(name []byte) bool { return fold(name, "X-Drop") })
		if err != nil {
			return
		}
		var skip Hops
		if err := fields(raw, func(name, value []byte) { skip.Note(name, value) }); err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(string(lines), "\r\n") {
			name, value, _ := strings.Cut(line, ": ")
			switch strings.ToLower(name) {
			case "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "content-length", "expect", "x-drop":
				t.Fatalf("%q was passed on", line)
			}
			if line != "" && (skip.Has([]byte(name)) || strings.ContainsAny(value, "\r\n\x00") || !token([]byte(name))) {
				t.Fatalf("%q was passed on", line)
			}
		}
	})
}

// FuzzReplies: whatever a Redis sends, as many values as were asked for come, or an error.
func FuzzReplies(f *testing.F) {
	for _, text := range []string{
		"+OK\r\n*2\r\n$1\r\na\r\n$-1\r\n", "-NOAUTH x\r\n", "+OK\r\n*2\r\n$99999999999999\r\n", "+OK\r\n*-1\r\n", "HTTP/1.1 400\r\n\r\n",
	} {
		f.Add([]byte(text), byte(2))
	}
	f.Fuzz(func(t *testing.T, text []byte, piece byte) {
		r := NewRedis(RedisOptions{Password: "p", Options: Options{MaxAnswer: 64}})
		var values []string
		err := r.exchange(&Call{}, saying(text, int(piece)+1), &Query{Keys: [][]byte{[]byte("k")}, Fields: []string{"a", "b"}, Value: func(key, field int, value []byte) error {
			if key != 0 || field != len(values) || len(value) > 64 {
				t.Fatalf("value %d of key %d, of %d bytes", field, key, len(value))
			}
			values = append(values, string(value))
			return nil
		}})
		if err == nil && len(values) != 2 {
			t.Fatalf("%d values", len(values))
		}
	})
}
