package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"preforkd/internal/testkit"
)

// proxied is a connection that began with a PROXY header.
type proxied struct {
	net.Conn
	r *bufio.Reader
}

func dialProxied(t *testing.T, address, header string) *proxied {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(testkit.Limit)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, header); err != nil {
		t.Fatal(err)
	}
	return &proxied{c, bufio.NewReader(c)}
}

func (p *proxied) ask(text string) (status int, err error) {
	if _, err := io.WriteString(p, text); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(p.r, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

const getServer = "GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n"

// TestProxyProtocol: the client of the header is who the log names; connections move at a reload
// without a second one; strangers and nonsense are closed and said.
func TestProxyProtocol(t *testing.T) {
	config, _, _ := tokenFiles(t)
	config += "workers: 2\nhttp: {trusted_proxies: [127.0.0.1]}\nlisten: [{address: \"127.0.0.1:0\", proxy_protocol: true}]\n"
	s, socket := reloadable(t, testkit.Options{Bare: true, Config: config})
	address := strings.TrimPrefix(s.URL, "http://")
	const header = "PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n"
	var all []*proxied
	for range 16 {
		p := dialProxied(t, address, header)
		if status, err := p.ask(getServer); err != nil || status != 401 {
			t.Fatalf("%d, %v", status, err)
		}
		all = append(all, p)
	}
	const client = "client=203.0.113.7 "
	named := func(pids []int) bool { // by one of these workers
		for line := range strings.Lines(s.LogText()) {
			for _, pid := range pids {
				if strings.Contains(line, fmt.Sprintf("pid=%d ", pid)) && strings.Contains(line, client) {
					return true
				}
			}
		}
		return false
	}
	if err := testkit.Await(func() bool { return named(s.Workers()) }); err != nil {
		t.Errorf("the client of the header is not in the log: %s", s.LogText())
	}
	must(t, socket, []string{"reload"}, "serves")
	for _, p := range all {
		if status, err := p.ask(getServer); err != nil || status != 401 {
			t.Errorf("after the reload: %d, %v", status, err)
		}
	}
	if err := testkit.Await(func() bool { return named(s.Workers()) }); err != nil { // these are others
		t.Error("a connection that moved has lost its client")
	}
	for _, bad := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PROXY nonsense\r\n\r\n"} {
		if _, err := dialProxied(t, address, bad).r.ReadByte(); err == nil {
			t.Errorf("%q is answered", bad)
		}
	}
	write(t, s.Config, strings.Replace(config, "127.0.0.1]", "192.0.2.1]", 1))
	must(t, socket, []string{"reload"}, "http.trusted_proxies: ")
	if _, err := dialProxied(t, address, header+getServer).r.ReadByte(); err == nil {
		t.Error("a stranger is answered")
	}
	if err := testkit.Await(func() bool {
		log := s.LogText()
		return strings.Contains(log, "it does not begin with a PROXY header") && strings.Contains(log, "it is none of http.trusted_proxies")
	}); err != nil {
		t.Errorf("%v: %s", err, s.LogText())
	}
}

// nginxConfig is that of docs/operations.md: its blocks are cut out of the page and put together.
func nginxConfig(t *testing.T, dir string, replace ...string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(testkit.Root(t), "docs/operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, block := range strings.Split(string(page), "```nginx\n")[1:] {
		text, _, _ := strings.Cut(block, "```")
		blocks = append(blocks, text)
	}
	if len(blocks) != 2 {
		t.Fatalf("docs/operations.md has %d blocks of nginx, want 2: http and stream", len(blocks))
	}
	text := strings.NewReplacer(replace...).Replace(strings.Join(blocks, "\n"))
	const modules = "/usr/lib/nginx/modules/ngx_stream_module.so"
	head := fmt.Sprintf("daemon off;\npid %s/pid;\nerror_log stderr;\nevents {}\n", dir)
	if _, err := os.Stat(modules); err == nil {
		head = "load_module " + modules + ";\n" + head
	}
	temporary := ""
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temporary += fmt.Sprintf("    %s_temp_path %s/%s;\n", kind, dir, kind)
	}
	return head + strings.Replace(text, "http {\n", "http {\n    access_log off;\n"+temporary, 1)
}

// freePort returns one that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// TestNginx: nginx as the manual has it, before a service over TLS with X-Forwarded-For, and before
// one that speaks the PROXY protocol; keep-alive connections of nginx's own survive reloads.
func TestNginx(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("there is no nginx here: apt-get install nginx-light libnginx-mod-stream")
	}
	a := newAuthority(t)
	cert, key := a.pair(t, 7, 24*time.Hour)
	a.put(t, cert, key)
	tokens, _, _ := tokenFiles(t)
	config := tokens + fmt.Sprintf("workers: 2\nhttp: {trusted_proxies: [127.0.0.1]}\nlisten: [{address: \"127.0.0.1:0\", tls: {cert: %s, key: %s}}, {address: \"127.0.0.2:0\", proxy_protocol: true}]\n", a.certPath(), a.keyPath())
	s, socket := reloadable(t, testkit.Options{Bare: true, Config: config})
	listen := status1(t, socket).Listen
	dir := t.TempDir()
	web, stream := freePort(t), freePort(t)
	text := nginxConfig(t, dir,
		"10.0.0.5:8443", listen[0], "10.0.0.5:8080", listen[1], "listen 80;", "listen "+web+";", "listen 8000;", "listen "+stream+";",
		"/etc/nginx/preforkd-ca.pem", filepath.Join(dir, "ca.pem"), "preforkd.internal", "localhost")
	write(t, filepath.Join(dir, "nginx.conf"), text)
	write(t, filepath.Join(dir, "ca.pem"), string(pemOf(a)))
	cmd := exec.Command(nginx, "-p", dir, "-c", filepath.Join(dir, "nginx.conf"))
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if out, err := exec.Command(nginx, "-t", "-p", dir, "-c", filepath.Join(dir, "nginx.conf")).CombinedOutput(); err != nil {
		if strings.Contains(string(out), `unknown directive "stream"`) {
			t.Skip("this nginx has no stream module: apt-get install libnginx-mod-stream")
		}
		t.Fatalf("%v: %s\n%s", err, out, text)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("nginx said: %s", said.String())
		}
	}()
	if err := testkit.Await(func() bool {
		c, err := net.Dial("tcp", stream)
		if err == nil {
			c.Close()
		}
		return err == nil
	}); err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	for range 4 {
		for _, at := range []string{web, stream} {
			if got, _ := with(t, "POST", "http://"+at+"/predict", oldToken, body(sample)); got != 200 {
				t.Fatalf("%s: %d", at, got)
			}
			if got, challenge := with(t, "POST", "http://"+at+"/predict", controlToken, body(sample)); got != 403 || challenge == "" {
				t.Errorf("%s: %d, %s", at, got, challenge)
			}
		}
		must(t, socket, []string{"reload"}, "serves")
	}
	from(t, s, web, stream)
}

// from asks from an address of its own through each proxy, and looks for it in the log.
func from(t *testing.T, s *testkit.Service, addresses ...string) {
	t.Helper()
	for i, at := range addresses {
		own := fmt.Sprintf("127.9.9.%d", i+1)
		client := &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext:       (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(own)}}).DialContext,
		}}
		if err := testkit.Await(func() bool { // one record a second of each worker
			req, err := http.NewRequest("GET", "http://"+at+"/v2", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Forwarded-For", "198.51.100.9") // forged
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			return resp.StatusCode == 401 && strings.Contains(s.LogText(), "client="+own+" ")
		}); err != nil {
			t.Errorf("through %s: %s is not in the log: %s", at, own, s.LogText())
		}
	}
	if strings.Contains(s.LogText(), "198.51.100.9") {
		t.Error("a forged address was believed")
	}
}
