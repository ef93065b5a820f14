package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"preforkd/internal/testkit"
)

// upstream is a service of the test's own, which answers what the query of each request says.
type upstream struct {
	address string
	conns   atomic.Int32 // that were made to it
	lost    atomic.Int32 // that ended while it was to hang
	mu      sync.Mutex   // guards the last request
	head    string
	body    string
	release chan struct{} // ends what hangs
}

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// behaviours are answers by the query that asks for them; those that keep the connection are asked again.
var behaviours = map[string]string{
	"garbage":  "SSH-2.0-OpenSSH_9.2\r\n",
	"lengths":  "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
	"both":     "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"nothing":  "",
	"half":     "HTTP/1.1 200 OK\r\nContent-Type: te",
	"middle":   "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok",
	"chunk":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok",
	"large":    "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
	"switch":   "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
	"busy":     "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy",
	"redirect": "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/elsewhere\r\nContent-Length: 0\r\n\r\n",
	"hops":     "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\nUpgrade: y\r\nX-Kept: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: a=2; Path=/x\r\nContent-Length: 2\r\n\r\nok",
	"none":     "HTTP/1.1 204 No Content\r\n\r\n",
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{address: ln.Addr().String(), release: make(chan struct{})}
	var all sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			u.conns.Add(1)
			all.Go(func() { u.serve(c) })
		}
	})
	return u
}

// last is the last request that was answered.
func (u *upstream) last() (head, body string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.head, u.body
}

func (u *upstream) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		var head strings.Builder
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			head.WriteString(line)
			if line == "\r\n" {
				break
			}
		}
		req, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(head.String()), in)))
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		u.mu.Lock()
		u.head, u.body = head.String(), string(body)
		u.mu.Unlock()
		if !u.answer(c, in, req, body) {
			return
		}
	}
}

// answer tells whether the connection goes on.
func (u *upstream) answer(c net.Conn, in *bufio.Reader, req *http.Request, body []byte) bool {
	what := req.URL.Query().Get("do")
	switch what {
	case "hang":
		gone := make(chan struct{})
		go func() { // ends with the connection
			defer close(gone)
			_, _ = in.ReadByte()
		}()
		select {
		case <-gone:
			u.lost.Add(1)
		case <-u.release:
			_, _ = io.WriteString(c, okAnswer)
		}
		return false
	case "reset":
		_ = c.(*net.TCPConn).SetLinger(0)
		return false
	case "echo":
		fmt.Fprintf(c, "HTTP/1.1 201 Created\r\nContent-Type: application/x-echo\r\nContent-Length: %d\r\n\r\n", len(body))
		_, _ = c.Write(body)
		return true
	case "events":
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ndata: 1\r\n")
		<-u.release
		_, _ = io.WriteString(c, "7\r\ndata: 2\r\n0\r\n\r\n")
		return true
	case "big", "cut": // more than is read before it is sent
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", 1<<20)
		n := 1 << 20
		if what == "cut" {
			n /= 2
		}
		_, _ = c.Write(make([]byte, n))
		return what == "big"
	}
	text, known := behaviours[what]
	if !known {
		text = okAnswer
	}
	_, _ = io.WriteString(c, text)
	switch what {
	case "", "busy", "redirect", "hops", "none":
		return true
	}
	return false
}

// redis is Debian's, with nothing in it.
type redis struct {
	t       *testing.T
	address string
	args    []string
	cmd     *exec.Cmd
	login   [][]string // what commands come after
}

func startRedis(t *testing.T, more ...string) *redis {
	t.Helper()
	r := &redis{t: t, address: freePort(t)}
	_, port, _ := net.SplitHostPort(r.address)
	r.args = append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir()}, more...)
	r.start()
	t.Cleanup(r.stop)
	return r
}

func (r *redis) start() {
	r.t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		r.t.Fatal("redis-server is not there: apt-get install redis-server")
	}
	r.cmd = exec.Command(path, r.args...)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	if testkit.Await(func() bool {
		c, err := net.Dial("tcp", r.address)
		if err == nil {
			c.Close()
		}
		return err == nil
	}) != nil {
		r.t.Fatal("redis-server does not listen")
	}
}

func (r *redis) stop() {
	if r.cmd != nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		r.cmd = nil
	}
}

// do sends commands, one a slice, and wants none refused.
func (r *redis) do(commands ...[]string) {
	r.t.Helper()
	c, err := net.Dial("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for _, words := range slices.Concat(r.login, commands) {
		fmt.Fprintf(c, "*%d\r\n", len(words))
		for _, w := range words {
			fmt.Fprintf(c, "$%d\r\n%s\r\n", len(w), w)
		}
		if line, err := in.ReadString('\n'); err != nil || line[0] == '-' {
			r.t.Fatalf("redis: %.40q: %q %v", words, line, err)
		}
	}
}

// inFile writes a secret and returns its path.
func inFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	secretFile(t, path, text+"\n")
	return path
}
