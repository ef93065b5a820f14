package accept

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// client is one keep-alive connection. It never retries and never dials again.
type client struct {
	net.Conn
	r *bufio.Reader
}

// answer is what a client got.
type answer struct {
	status int
	worker string
	close  bool // with Connection: close
	body   string
}

func newClient(c net.Conn) *client { return &client{Conn: c, r: bufio.NewReader(c)} }

func connect(t testing.TB, addr net.Addr) *client {
	t.Helper()
	c, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newClient(c)
}

func request(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: test\r\n\r\n"
}

func (c *client) send(text string) error {
	_, err := io.WriteString(c, text)
	return err
}

// receive reads one answer, within a time that no test needs.
func (c *client) receive() (a answer, err error) {
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return a, err
	}
	tp := textproto.NewReader(c.r)
	line, err := tp.ReadLine()
	if err != nil {
		return a, err
	}
	if _, err := fmt.Sscanf(line, "HTTP/1.1 %d", &a.status); err != nil {
		return a, fmt.Errorf("%q: %w", line, err)
	}
	header, err := tp.ReadMIMEHeader()
	if err != nil {
		return a, err
	}
	n, err := strconv.Atoi(header.Get("Content-Length"))
	if err != nil {
		return a, err
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.r, body); err != nil {
		return a, err
	}
	a.worker, a.body = header.Get("Worker"), string(body)
	a.close = strings.EqualFold(header.Get("Connection"), "close")
	return a, nil
}

func (c *client) get(path string) (answer, error) {
	if err := c.send(request(path)); err != nil {
		return answer{}, err
	}
	return c.receive()
}

// must is get where an error ends the test.
func (c *client) must(t testing.TB, path string) answer {
	t.Helper()
	a, err := c.get(path)
	if err != nil || a.status != 200 {
		t.Fatalf("GET %s: %+v, %v", path, a, err)
	}
	return a
}

// crowd is busy clients that count what they see. Some send several requests at once.
type crowd struct {
	requests, closes atomic.Int64
	stop             chan struct{}
	wg               sync.WaitGroup
	mu               sync.Mutex // guards failures
	failures         []error
}

func newCrowd(t testing.TB, addr net.Addr, n int) *crowd {
	w := &crowd{stop: make(chan struct{})}
	for i := range n {
		c := connect(t, addr)
		w.wg.Go(func() {
			if err := w.run(c, i); err != nil {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.failures = append(w.failures, fmt.Errorf("client %d: %w", i, err))
			}
		})
	}
	return w
}

func (w *crowd) run(c *client, i int) error {
	for n := 0; ; n++ {
		select {
		case <-w.stop:
			return nil
		default:
		}
		batch := 1
		if i%4 == 0 {
			batch = 1 + n%5
		}
		var text strings.Builder
		for k := range batch {
			text.WriteString(request(fmt.Sprintf("/echo/%d-%d-%d", i, n, k)))
		}
		if err := c.send(text.String()); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		for k := range batch {
			a, err := c.receive()
			if err != nil {
				return fmt.Errorf("answer %d of %d after %d batches: %w", k, batch, n, err)
			}
			if want := fmt.Sprintf("%d-%d-%d", i, n, k); a.status != 200 || a.body != want {
				return fmt.Errorf("%+v, want %s", a, want)
			}
			if a.close {
				w.closes.Add(1)
			}
			w.requests.Add(1)
		}
	}
}

// finish stops the clients and returns how many requests were answered.
func (w *crowd) finish(t testing.TB) int64 {
	t.Helper()
	close(w.stop)
	w.wg.Wait()
	for _, err := range w.failures {
		t.Error(err)
	}
	if n := w.closes.Load(); n > 0 {
		t.Errorf("%d answers with Connection: close", n)
	}
	return w.requests.Load()
}
