package accept

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// secured starts a worker that speaks TLS on s.
func (s *site) secured(t *testing.T, name string, o Options, config *tls.Config, seed string) *testWorker {
	t.Helper()
	w := s.start(t, name, o, false)
	l := w.pool.Listener(s.again(t), 0)
	l.Secure(config.Clone(), []byte(seed))
	w.serve(l)
	return w
}

func veil(t *testing.T, addr net.Addr, config *tls.Config) *client {
	t.Helper()
	c, err := tls.Dial(addr.Network(), addr.String(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newClient(c)
}

func trusting(roots *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: roots, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(8)}
}

// TestSecureStays: Leave does not wait for connections with TLS; they are counted as others
// are, and work on.
func TestSecureStays(t *testing.T) {
	s := newSite(t, "tcp")
	config, roots := certificate(t)
	w := s.secured(t, "old", Options{}, config, "seed")
	c := veil(t, s.ln.Addr(), trusting(roots))
	c.must(t, "/echo/x")
	eventually(t, "it is idle", func() bool { return w.pool.Counts().Idle == 1 })
	if err := c.send(request("/wait")); err != nil {
		t.Fatal(err)
	}
	<-w.arrived
	if n := w.pool.Counts(); n.Busy != 1 || n.Idle != 0 || w.pool.Secured() != 1 {
		t.Errorf("%+v", n)
	}
	close(w.release)
	if moved, kept := w.leave(); moved != 0 || kept != 1 {
		t.Errorf("moved %d, kept %d", moved, kept)
	}
	if a, err := c.receive(); err != nil || a.status != 200 {
		t.Errorf("%+v, %v", a, err)
	}
	c.must(t, "/echo/y")
}

// TestSessionsResume: a worker with the same seed resumes what another began, on whatever day
// of the last, and one with another seed does not.
func TestSessionsResume(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config, roots := certificate(t)
		client := trusting(roots)
		client.MaxVersion = version
		resumed := func(seed string) bool {
			t.Helper()
			s := newSite(t, "tcp")
			s.secured(t, "w", Options{}, config, seed)
			c := veil(t, s.ln.Addr(), client)
			c.must(t, "/echo/x") // reads the ticket, too
			return c.Conn.(*tls.Conn).ConnectionState().DidResume
		}
		if resumed("seed") || !resumed("seed") || resumed("other") || resumed("") {
			t.Errorf("version %x: sessions are not resumed as they should", version)
		}
		if resumed("seed") {
			t.Errorf("version %x: a worker without a seed gave a ticket", version)
		}
	}
}

func TestTicketKeysOfADay(t *testing.T) {
	now := time.Unix(1700000000, 0)
	a, b := &sealing{config: &tls.Config{}, seed: []byte("x")}, &sealing{config: &tls.Config{}, seed: []byte("x")}
	for _, at := range []time.Time{now, now.Add(time.Hour), now.Add(25 * time.Hour)} {
		if a.rotate(at) != nil || b.rotate(at) != nil || a.day != b.day || a.day != at.Unix()/86400 {
			t.Errorf("%v: %d, %d", at, a.day, b.day)
		}
	}
}

// TestPlainWhereTLS: a client that forgot the s is told so.
func TestPlainWhereTLS(t *testing.T) {
	s := newSite(t, "tcp")
	config, _ := certificate(t)
	s.secured(t, "w", Options{}, config, "")
	c := connect(t, s.ln.Addr())
	if a, err := func() (answer, error) { _ = c.send(request("/echo/x")); return c.receive() }(); err != nil || a.status != 400 || !a.close || !strings.Contains(a.body, "https") {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestSlowHandshakes end by the header's clock, whichever step they are in, and nobody waits
// for them.
func TestSlowHandshakes(t *testing.T) {
	s := newSite(t, "tcp")
	config, roots := certificate(t)
	w := s.secured(t, "w", Options{Clocks: Clocks{Header: 300 * time.Millisecond, Keepalive: time.Hour, Write: time.Hour}}, config, "")
	silent := connect(t, s.ln.Addr())
	part := connect(t, s.ln.Addr())
	if err := part.send("\x16\x03\x01\x02\x00\x01"); err != nil {
		t.Fatal(err)
	}
	half := connect(t, s.ln.Addr()) // it gets the server's part, and sends no more
	hello := tls.Client(&once{Conn: half.Conn}, trusting(roots))
	go func() { _ = hello.Handshake() }() // ends with the connection
	unasking := veil(t, s.ln.Addr(), trusting(roots))
	veil(t, s.ln.Addr(), trusting(roots)).must(t, "/echo/x")
	for _, c := range []*client{silent, part, half, unasking} {
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]*client{"silent": silent, "part": part, "unasking": unasking} {
		if _, err := io.ReadAll(c.r); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: %v", name, err)
		}
	}
	eventually(t, "only the one that asked is left", func() bool { return w.pool.Open() == 1 })
}

// once writes one time and then says nothing.
type once struct {
	net.Conn
	done bool
}

func (o *once) Write(p []byte) (int, error) {
	if o.done {
		return len(p), nil
	}
	o.done = true
	return o.Conn.Write(p)
}

// TestCutSecure: a request with TLS is answered in the middle of its handler as any other.
func TestCutSecure(t *testing.T) {
	s := newSite(t, "tcp")
	config, roots := certificate(t)
	p := NewPool(Options{Connections: 2})
	l := p.Listener(s.ln, 0)
	l.Secure(config, nil)
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			p.State(c, StateNew)
			err = c.(*secure).Handshake()
		}
		if err == nil {
			_, err = c.Read(make([]byte, 100))
		}
		if err != nil {
			t.Error(err)
		}
		p.State(c, StateActive)
		accepted <- c
	}()
	client := veil(t, s.ln.Addr(), trusting(roots))
	if err := client.send("GET"); err != nil {
		t.Fatal(err)
	}
	c := <-accepted
	end, ok := Cut(c)
	if _, again := Cut(c); !ok || again {
		t.Fatalf("cut: %v, again: %v", ok, again)
	}
	end([]byte("HTTP/1.1 504 Late\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlate"))
	if a, err := client.receive(); err != nil || a.status != 504 || a.body != "late" {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := client.r.ReadByte(); err != io.EOF {
		t.Errorf("the connection does not end: %v", err)
	}
	if _, err := c.Write([]byte("HTTP/1.1 200 OK\r\n")); err == nil {
		t.Error("the handler's own answer was written")
	}
	if p.Open() != 0 {
		t.Errorf("%d are open", p.Open())
	}
	if err := c.Close(); err != nil && !strings.Contains(err.Error(), "closed") {
		t.Error(err)
	}
}
