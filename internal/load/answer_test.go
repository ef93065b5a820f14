package load

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestAnswersAreRead(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, c := range []struct {
		in   string
		want string // the body, or part of the protocol error
		err  bool
	}{
		{ok + "Content-Length: 2\r\n\r\nhi", "hi", false},
		{ok + "content-length:2\r\n\r\nhi", "hi", false},
		{ok + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", "hi", false},
		{"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103\r\nLink: x\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nhi", "hi", false},
		{ok + "Transfer-Encoding: chunked\r\n\r\n1;x=y\r\nh\r\n001 \r\ni\r\n0\r\nTrailer: x\r\n\r\n", "hi", false},
		{ok + "\r\nhi", "hi", false},
		{"HTTP/1.1 204 No Content\r\n\r\n", "", false},
		{"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "", false},
		{"HTTP/2.0 200 OK\r\n\r\n", "begins with", true},
		{"HTTP/1.1 2x0 OK\r\n\r\n", "status line", true},
		{"HTTP/1.1 099 OK\r\n\r\n", "status line", true},
		{"HTTP/1.1 2000\r\n\r\n", "status line", true},
		{"HTTP/1.1 101 Switching\r\n\r\n", "switches", true},
		{ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi", "header line", true},
		{ok + "Content-Length: -2\r\n\r\nhi", "header line", true},
		{ok + "Content-Length: 9999999999\r\n\r\nhi", "header line", true},
		{ok + "no colon\r\n\r\n", "header line", true},
		{ok + ": no name\r\n\r\n", "header line", true},
		{ok + "Transfer-Encoding: gzip\r\n\r\n", "header line", true},
		{ok + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "both", true},
		{ok + "Transfer-Encoding: chunked\r\n\r\nx\r\n", "chunk size", true},
		{ok + "Transfer-Encoding: chunked\r\n\r\n\r\n", "chunk size", true},
		{ok + "Transfer-Encoding: chunked\r\n\r\n123456789\r\n", "chunk size", true},
		{ok + "Transfer-Encoding: chunked\r\n\r\n1\r\nhi\r\n", "longer than", true},
		{ok + "X: " + strings.Repeat("x", maxHead) + "\r\n\r\n", "header does not end", true},
	} {
		for name, src := range map[string]io.Reader{"at once": strings.NewReader(c.in), "by bytes": iotest.OneByteReader(strings.NewReader(c.in))} {
			var r reader
			var a answer
			r.reset(src)
			err := r.read(&a, false)
			var p protocolError
			if errors.As(err, &p) != c.err || err != nil != c.err {
				t.Errorf("%.80q %s: %v", c.in, name, err)
			} else if got := string(a.body) + string(p); !strings.Contains(got, c.want) || !c.err && got != c.want {
				t.Errorf("%.80q %s: %q", c.in, name, got)
			}
		}
	}
}

// FuzzAnswer reads any bytes at once and one by one: both find the same.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Preforkd-Worker: a/0/1\r\n\r\nhi"))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\n\r\nmore"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var whole, bytewise reader
		var a, b answer
		whole.reset(bytes.NewReader(in))
		bytewise.reset(iotest.OneByteReader(bytes.NewReader(in)))
		errA, errB := whole.read(&a, false), bytewise.read(&b, false)
		if (errA == nil) != (errB == nil) {
			t.Fatalf("at once %v, by bytes %v", errA, errB)
		}
		if errA != nil {
			return
		}
		if a.status != b.status || a.close != b.close || !bytes.Equal(a.body, b.body) || !bytes.Equal(a.worker, b.worker) {
			t.Fatalf("at once %+v, by bytes %+v", a, b)
		}
	})
}
