package accept

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// proxy2 is a header of version 2.
func proxy2(command, family byte, part string) string {
	b := append([]byte(proxySign2), command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(part)))) + part
}

const (
	ends4 = "\xc0\x00\x02\x07\x0a\x00\x00\x01\x30\x39\x01\xbb"
	line4 = "PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n"
)

var ends6 = "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01" + strings.Repeat("\x00", 16) + "\x30\x39\x01\xbb"

func TestParseProxy(t *testing.T) {
	for text, want := range map[string]string{
		line4:                                    "192.0.2.7:12345",
		"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n": "[2001:db8::1]:1",
		"PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n":  "1.2.3.4:1",
		"PROXY UNKNOWN\r\n":                      "nobody",
		"PROXY UNKNOWN ffff:f...f ffff:f...f 65535 65535\r\n":      "nobody",
		proxy2(proxyOther, proxyTCP4, ends4):                       "192.0.2.7:12345",
		proxy2(proxyOther, proxyTCP4, ends4+"\x04\x00\x01\x00"):    "192.0.2.7:12345", // with more after it
		proxy2(proxyOther, proxyTCP6, ends6):                       "[2001:db8::1]:12345",
		proxy2(proxyLocal, proxyTCP4, ends4):                       "nobody",
		proxy2(proxyLocal, proxyNone, ""):                          "nobody",
		proxy2(proxyOther, proxyNone, "abc"):                       "nobody",
		proxy2(proxyOther, proxyUnix, strings.Repeat("\x00", 216)): "nobody",
		"GET / HTTP/1.1\r\n":                                       errNoProxy.Error(),
		"\x16\x03\x01":                                             errNoProxy.Error(),
		"PROXY TCP4 192.0.2.7 10.0.0.1 12345\r\n":                  errProxy.Error(),
		"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443 9\r\n":            errProxy.Error(),
		"PROXY TCP4  192.0.2.7 10.0.0.1 12345 443\r\n":             errProxy.Error(),
		"PROXY TCP4 ::1 ::1 1 1\r\n":                               errProxy.Error(),
		"PROXY TCP6 1.2.3.4 ::1 1 1\r\n":                           errProxy.Error(),
		"PROXY TCP6 fe80::1%a ::1 1 1\r\n":                         errProxy.Error(),
		"PROXY TCP4 192.0.2.256 10.0.0.1 1 1\r\n":                  errProxy.Error(),
		"PROXY TCP4 192.0.2.7 10.0.0.1 65536 443\r\n":              errProxy.Error(),
		"PROXY TCP4 192.0.2.7 10.0.0.1 +1 443\r\n":                 errProxy.Error(),
		"PROXY TCP4 192.0.2.7 10.0.0.1 01 443\r\n":                 errProxy.Error(),
		"PROXY UDP4 192.0.2.7 10.0.0.1 1 1\r\n":                    errProxy.Error(),
		"PROXY " + strings.Repeat("x", proxyLine):                  errTooLong.Error(),
		proxy2(0x11, proxyTCP4, ends4):                             errProxyIs.Error(),
		proxy2(0x22, proxyTCP4, ends4):                             errProxyIs.Error(),
		proxy2(proxyOther, 0x12, ends4):                            errProxyIs.Error(), // datagrams
		proxy2(proxyOther, proxyTCP4, ends4[:11]):                  errProxy.Error(),
		proxy2(proxyOther, proxyTCP6, ends6[:35]):                  errProxy.Error(),
		proxy2(proxyOther, proxyUnix, "short"):                     errProxy.Error(),
		proxy2(proxyOther, proxyTCP4, strings.Repeat("x", 1<<13)):  errTooLong.Error(),
		"":             errMore.Error(),
		"PROX":         errMore.Error(),
		line4[:20]:     errMore.Error(),
		proxySign2:     errMore.Error(),
		"\r\n\r\n\x00": errMore.Error(),
	} {
		size, client, err := parseProxy([]byte(text))
		got := client.String()
		switch {
		case err != nil:
			got = err.Error()
		case !client.IsValid():
			got = "nobody"
		}
		if got != want || err == nil && size != len(text) {
			t.Errorf("%q: %s, %d bytes, want %s", text, got, size, want)
		}
	}
}

// FuzzParseProxy: what is accepted lies within what was there, and each beginning of it wants
// more, so that pieces make no difference.
func FuzzParseProxy(f *testing.F) {
	for _, text := range []string{line4, line4 + "GET", "PROXY UNKNOWN\r\n", proxy2(proxyOther, proxyTCP4, ends4), proxy2(proxyOther, proxyTCP6, ends6) + "x", proxy2(proxyLocal, 0, ""), "GET / HTTP"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		size, client, err := parseProxy(b)
		if !bytes.Equal(b, before) {
			t.Fatal("it was changed")
		}
		if err != nil {
			return
		}
		if size < 1 || size > len(b) || size > proxyBlock || client.IsValid() && client.Addr().Is4In6() {
			t.Fatalf("%q: %d, %v", b, size, client)
		}
		for i := range size {
			if _, _, err := parseProxy(b[:i]); err != errMore {
				t.Fatalf("%q: %v", b[:i], err)
			}
		}
	})
}

func TestProxiesTrust(t *testing.T) {
	p := &Proxies{Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10")}}
	for text, want := range map[string]bool{"10.1.2.3:1": true, "[::ffff:10.1.2.3]:1": true, "[fe80::1%eth0]:1": true, "11.0.0.1:1": false, "[::1]:1": false} {
		if got := p.Trusts(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(text))); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if p.Trusts(&net.UnixAddr{}) || !(&Proxies{Unix: true}).Trusts(&net.UnixAddr{}) || p.Trusts(&net.IPAddr{}) {
		t.Error("unix")
	}
}

// refusals collects what a pool has refused.
type refusals struct {
	mu  sync.Mutex // guards all
	all []string
}

func (r *refusals) add(peer net.Addr, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, why)
}

func (r *refusals) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}

var localhost = &Proxies{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

// TestProxied: the header may come in any pieces, with the request or before it; its client's
// address goes with the connection, and the taker expects no second header.
func TestProxied(t *testing.T) {
	s := newSite(t, "tcp")
	old := s.start(t, "old", Options{}, false)
	l := old.pool.Listener(s.again(t), 0)
	l.Proxied(localhost)
	old.serve(l)
	pieces := [][]string{
		{line4 + request("/who")},
		{line4, request("/who")},
		{line4[:3], line4[3:] + request("/who")[:5], request("/who")[5:]},
		{proxy2(proxyOther, proxyTCP4, ends4) + request("/who")},
		{proxy2(proxyOther, proxyTCP4, ends4+strings.Repeat("\x04\x00\x01\x00", 900)), request("/who")},
	}
	var clients []*client
	for _, parts := range pieces {
		c := connect(t, s.ln.Addr())
		for _, part := range parts {
			if err := c.send(part); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond) // for pieces to be pieces; nothing depends on it
		}
		if a, err := c.receive(); err != nil || a.body != "192.0.2.7:12345" || a.worker != "old" {
			t.Errorf("%q: %+v, %v", parts, a, err)
		}
		clients = append(clients, c)
	}
	local := connect(t, s.ln.Addr())
	if err := local.send("PROXY UNKNOWN\r\n" + request("/who")); err != nil {
		t.Fatal(err)
	}
	if a, err := local.receive(); err != nil || a.body != local.LocalAddr().String() {
		t.Errorf("%+v, %v", a, err)
	}
	silent := connect(t, s.ln.Addr()) // nobody waits for its header
	eventually(t, "all are open", func() bool { return old.pool.Open() == len(clients)+2 })
	s.start(t, "next", Options{}, false)
	if moved, kept := old.leave(); moved != len(clients)+1 || kept != 1 {
		t.Errorf("moved %d, kept %d", moved, kept)
	}
	for _, c := range clients {
		if a := c.must(t, "/who"); a.worker != "next" || a.body != "192.0.2.7:12345" {
			t.Errorf("%+v", a)
		}
	}
	if a := local.must(t, "/who"); a.worker != "next" || a.body != local.LocalAddr().String() {
		t.Errorf("%+v", a)
	}
	if err := silent.send(line4 + request("/who")); err != nil {
		t.Fatal(err)
	}
	if a, err := silent.receive(); err != nil || a.worker != "old" || a.body != "192.0.2.7:12345" {
		t.Errorf("%+v, %v", a, err)
	}
}

// TestProxyRefusals: whoever is not trusted, and what is no header, is closed without an
// answer, and said.
func TestProxyRefusals(t *testing.T) {
	for _, c := range []struct {
		trusted *Proxies
		send    string
		end     bool // the client sends no more
		want    string
	}{
		{&Proxies{Unix: true}, line4 + request("/echo/x"), false, "it is none of http.trusted_proxies"},
		{localhost, request("/echo/x"), false, errNoProxy.Error()},
		{localhost, "PROXY TCP4 x\r\n" + request("/echo/x"), false, errProxy.Error()},
		{localhost, line4[:10], true, "its PROXY header is not complete: the client sends no more"},
		{localhost, line4[:10], false, "its PROXY header is not complete: it took too long"},
		{localhost, "", true, ""},
	} {
		var got refusals
		s := newSite(t, "tcp")
		w := s.start(t, "w", Options{Refused: got.add, Clocks: Clocks{Header: 100 * time.Millisecond}}, false)
		l := w.pool.Listener(s.again(t), 0)
		l.Proxied(c.trusted)
		w.serve(l)
		client := connect(t, s.ln.Addr())
		_ = client.send(c.send) // it may be closed already
		if c.end {
			_ = client.Conn.(*net.TCPConn).CloseWrite()
		}
		if err := client.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if b, err := client.r.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: answered %q, %v", c.send, b, err)
		}
		eventually(t, "it is closed here", func() bool { return w.pool.Open() == 0 && w.pool.movable.Load() == 0 })
		if all := strings.Join(got.take(), "; "); all != c.want {
			t.Errorf("%q: %q", c.send, all)
		}
	}
}
