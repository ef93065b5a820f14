package e2e

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/testkit"
)

// authority signs certificates, and is trusted by the clients of a test.
type authority struct {
	key   *ecdsa.PrivateKey
	cert  *x509.Certificate
	roots *x509.CertPool
	dir   string // of the pair that is served
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{roots: x509.NewCertPool(), dir: t.TempDir()}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "preforkd tests"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.roots.AddCert(a.cert)
	return a
}

// pemOf returns the authority's own certificate.
func pemOf(a *authority) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// pair returns a certificate of that number, valid until so long from now on, and its key.
func (a *authority) pair(t *testing.T, serial int64, until time.Duration) (cert, key string) {
	t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(until),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &own.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

func (a *authority) certPath() string { return filepath.Join(a.dir, "cert.pem") }
func (a *authority) keyPath() string  { return filepath.Join(a.dir, "key.pem") }

// put writes the pair that is served.
func (a *authority) put(t *testing.T, cert, key string) {
	t.Helper()
	if cert != "" {
		write(t, a.certPath(), cert)
	}
	if key != "" {
		secretFile(t, a.keyPath(), key)
	}
}

// secretFile writes a file that only its owner may read.
func secretFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// config is a service's, with TLS at address.
func (a *authority) config(address string) string {
	return fmt.Sprintf("workers: 2\npredict: {model: digits}\nlisten: [{address: %q, tls: {cert: %s, key: %s}}]\n", address, a.certPath(), a.keyPath())
}

func (a *authority) client() *tls.Config {
	return &tls.Config{RootCAs: a.roots, ServerName: "localhost"}
}

// serial returns the number of the certificate that a new connection meets.
func (a *authority) serial(t *testing.T, address string) int64 {
	t.Helper()
	c, err := tls.Dial("tcp", address, a.client())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// veiled are clients that ask over TLS until they are told to end, and count what they met. They
// retry nothing: whatever a client did not get an answer to is a failure.
type veiled struct {
	stop      atomic.Bool
	clients   sync.WaitGroup
	answered  atomic.Int64
	dials     atomic.Int64
	told      atomic.Int64 // connections that ended with Connection: close
	mu        sync.Mutex   // guards failures
	failures  []string
	keepalive bool
}

func (v *veiled) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failures = append(v.failures, err.Error())
}

// storm starts n clients.
func (a *authority) storm(n int, address string, keepalive bool) *veiled {
	v := &veiled{keepalive: keepalive}
	for range n {
		v.clients.Go(func() {
			for !v.stop.Load() {
				if err := v.connection(address, a.client()); err != nil {
					v.fail(err)
				}
			}
		})
	}
	return v
}

// connection asks on one connection until that ends.
func (v *veiled) connection(address string, config *tls.Config) error {
	v.dials.Add(1)
	c, err := tls.Dial("tcp", address, config)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for !v.stop.Load() {
		if err := c.SetDeadline(time.Now().Add(testkit.Limit)); err != nil {
			return err
		}
		if _, err := c.Write(sample); err != nil {
			return fmt.Errorf("ask: %w", err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return fmt.Errorf("no answer: %w", err)
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			return fmt.Errorf("%d %s: %w", resp.StatusCode, text, err)
		}
		v.answered.Add(1)
		if resp.Close {
			v.told.Add(1)
			return nil
		}
		if !v.keepalive {
			return nil
		}
	}
	return nil
}

// more waits until n further requests have been answered.
func (v *veiled) more(t *testing.T, n int64) {
	t.Helper()
	want := v.answered.Load() + n
	if err := testkit.Await(func() bool { return v.answered.Load() >= want }); err != nil {
		t.Fatalf("%d answers of %d: %v", v.answered.Load(), want, err)
	}
}

// end ends the clients, none of which may have failed.
func (v *veiled) end(t *testing.T) {
	t.Helper()
	v.stop.Store(true)
	v.clients.Wait()
	if len(v.failures) > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", len(v.failures), v.answered.Load(), v.failures[0])
	}
}

// TestCertificateReplacedUnderLoad: by reloads, with new connections and with such that stay: none
// fails, each request is answered, and who connects afterwards meets the new one. What is wrong
// with a pair is said, and the old one serves.
func TestCertificateReplacedUnderLoad(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.pair(t, 100, 24*time.Hour)
	a.put(t, cert, key)
	s, socket := reloadable(t, testkit.Options{Bare: true, Config: a.config("127.0.0.1:0")})
	if !strings.HasPrefix(s.URL, "https://") {
		t.Fatalf("ready on %s", s.URL)
	}
	address := strings.TrimPrefix(s.URL, "https://")
	fresh, stay := a.storm(4, address, false), a.storm(4, address, true)
	for i := range int64(times(3, 20)) {
		fresh.more(t, 20)
		stay.more(t, 20)
		a.put(t, "", "nonsense") // half of the next pair, and not all of that
		ends(t, socket, []string{"reload"}, ipc.ExitConfig, "listen[0].tls: ", a.keyPath())
		cert, next := a.pair(t, 101+i, 24*time.Hour)
		a.put(t, "", next)
		ends(t, socket, []string{"reload"}, ipc.ExitConfig, "the key is not that of the certificate; one of the files may have been replaced before the other")
		if n := a.serial(t, address); n != 100+i {
			t.Errorf("certificate %d serves, not %d", n, 100+i)
		}
		a.put(t, cert, "")
		must(t, socket, []string{"reload"}, "listen: 127.0.0.1:0: other certificate, valid until ")
		for range 4 {
			if n := a.serial(t, address); n != 101+i {
				t.Errorf("certificate %d serves, not %d", n, 101+i)
			}
		}
	}
	fresh.more(t, 20)
	stay.more(t, 20)
	fresh.end(t)
	stay.end(t)
	if stay.told.Load() == 0 || stay.dials.Load() != 4+stay.told.Load() {
		t.Errorf("%d connections, of which %d were told to close", stay.dials.Load(), stay.told.Load())
	}
	expired, old := a.pair(t, 1, -time.Hour)
	a.put(t, expired, old)
	out := ends(t, socket, []string{"reload"}, ipc.ExitConfig, "listen[0].tls.cert: "+a.certPath()+": expired at ", "UTC, it is ")
	if strings.Contains(out+s.LogText(), "BEGIN") {
		t.Error("a key or certificate is in log or output")
	}
	if a.serial(t, address) < 100 {
		t.Error("the expired certificate serves")
	}
	must(t, socket, []string{"rollback"}, "serves") // to the pair before, which is in no file any more
	if n := a.serial(t, address); n != 99+int64(times(3, 20)) {
		t.Errorf("certificate %d serves after the rollback", n)
	}
	killSupervisor(t, s, socket)
	if n := a.serial(t, address); n != 99+int64(times(3, 20)) {
		t.Errorf("certificate %d serves after the supervisor's death", n)
	}
	cert, key = a.pair(t, 500, 24*time.Hour)
	a.put(t, cert, key)
	fresh, stay = a.storm(4, address, false), a.storm(4, address, true)
	stay.more(t, 20)
	must(t, socket, []string{"upgrade"}, "serves")
	fresh.more(t, 20)
	stay.more(t, 20)
	fresh.end(t)
	stay.end(t)
	// The former program's workers leave once the next one is in charge. They know of the
	// pair before.
	const enough = 20
	for row, end := 0, time.Now().Add(testkit.Limit); row < enough; row++ {
		n := a.serial(t, address)
		if n == 500 {
			continue
		}
		if row = 0; time.Now().After(end) {
			t.Fatalf("certificate %d serves after the upgrade", n)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestTLSRefusedAtStart: with the reason and the status for a setting that is wrong.
func TestTLSRefusedAtStart(t *testing.T) {
	a := newAuthority(t)
	expired, old := a.pair(t, 1, -time.Hour)
	good, key := a.pair(t, 2, time.Hour)
	for _, c := range []struct{ cert, key, want string }{
		{expired, old, "expired at "},
		{good, old, "the key is not that of the certificate"},
		{good[:len(good)/2], key, "failed to find any PEM data"},
		{good, "\n", "is empty"},
	} {
		a.put(t, c.cert, c.key)
		cmd := testkit.Options{Bare: true, Config: a.config("127.0.0.1:0")}.Command(t)
		out, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != ipc.ExitConfig || !strings.Contains(string(out), c.want) {
			t.Errorf("%v: %s", err, out)
		}
	}
}

// TestTLSComesAndGoes: at the address that clients know, by reloads.
func TestTLSComesAndGoes(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.pair(t, 7, 24*time.Hour)
	a.put(t, cert, key)
	const plain = "workers: 2\npredict: {model: digits}\nlisten: [\"127.0.0.1:0\"]\n"
	s, socket := reloadable(t, testkit.Options{Bare: true, Config: plain})
	address := strings.TrimPrefix(s.URL, "http://")
	for range 2 {
		if got, text := get(t, "http://"+address+"/v2"); got != 200 {
			t.Errorf("%d: %s", got, text)
		}
		write(t, s.Config, a.config("127.0.0.1:0"))
		must(t, socket, []string{"reload"}, "serves")
		if n := a.serial(t, address); n != 7 {
			t.Errorf("certificate %d", n)
		}
		if got, text := get(t, "http://"+address+"/v2"); got != 400 || !strings.Contains(text, "https") {
			t.Errorf("%d: %s", got, text)
		}
		write(t, s.Config, plain)
		must(t, socket, []string{"reload"}, "serves")
	}
	if st := status1(t, socket); len(st.Listen) != 1 || st.Listen[0] != address {
		t.Errorf("%q", st.Listen)
	}
}

// TestSessionsBetweenWorkers: whichever worker accepts resumes a session, also after a reload that
// leaves the certificate as it is.
func TestSessionsBetweenWorkers(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.pair(t, 7, 24*time.Hour)
	a.put(t, cert, key)
	s, socket := reloadable(t, testkit.Options{Bare: true, Config: a.config("127.0.0.1:0"), Set: []string{"http.worker_header=true"}})
	address := strings.TrimPrefix(s.URL, "https://")
	config := a.client()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	met, resumed := map[string]bool{}, 0
	ask := func() bool {
		resp, err := client.Get("https://" + address + "/v2")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		met[resp.Header.Get("X-Preforkd-Worker")] = true
		return resp.TLS.DidResume
	}
	ask()
	for range 400 {
		if ask() {
			resumed++
		} else {
			t.Error("a session was not resumed")
		}
		if len(met) == 2 && resumed > 20 {
			break
		}
	}
	must(t, socket, []string{"reload"}, "serves")
	if !ask() {
		t.Error("a session was not resumed after a reload of the same certificate")
	}
	if len(met) < 3 {
		t.Errorf("only %v were met", met)
	}
	cert, key = a.pair(t, 8, 24*time.Hour)
	a.put(t, cert, key)
	must(t, socket, []string{"reload"}, "other certificate")
	if ask() {
		t.Error("a session of the certificate before was resumed")
	}
}

// TestOpensslClient: another implementation, with versions that are spoken and that are not.
func TestOpensslClient(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl here: apt-get install openssl")
	}
	a := newAuthority(t)
	cert, key := a.pair(t, 7, 24*time.Hour)
	a.put(t, cert, key)
	s := testkit.Start(t, testkit.Options{Bare: true, Config: a.config("127.0.0.1:0")})
	for _, c := range []struct {
		args []string
		good bool
	}{
		{[]string{"-tls1_3", "-alpn", "h2,http/1.1"}, true}, {[]string{"-tls1_2"}, true}, {[]string{"-tls1_1", "-cipher", "ALL:@SECLEVEL=0"}, false}, {[]string{"-alpn", "h2"}, false},
	} {
		cmd := exec.Command("openssl", append([]string{"s_client", "-quiet", "-connect", strings.TrimPrefix(s.URL, "https://"), "-servername", "localhost"}, c.args...)...)
		cmd.Stdin = strings.NewReader("GET /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		out, _ := cmd.CombinedOutput()
		if got := strings.Contains(string(out), "HTTP/1.1 200"); got != c.good {
			t.Errorf("%v: %s", c.args, out)
		}
	}
}
