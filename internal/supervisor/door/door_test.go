package door

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"preforkd/internal/ipc"
)

func file(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

const long = "0123456789abcdef"

func TestTokens(t *testing.T) {
	for text, want := range map[string]int{
		long:                       1,
		long + "\n" + long + "x\n": 2,
		"# of the new client\r\n" + long + "\r\n\n  # and of the old\n\t" + long + "-._~+/= \n": 2,
	} {
		got, err := Tokens(map[string]string{ipc.ClassInfer: file(t, text, 0o640)})
		if err != nil || len(got[ipc.ClassInfer]) != want {
			t.Errorf("%q: %d, %v", text, len(got[ipc.ClassInfer]), err)
		}
		if said := fmt.Sprintf("%v %+v %s", got, ipc.Manifest{Tokens: got}, got); strings.Contains(said, fmt.Sprint(got[ipc.ClassInfer][0])) {
			t.Errorf("printed: %s", said)
		}
	}
	if got, err := Tokens(nil); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestBadTokens(t *testing.T) {
	secret := long + "secret"
	for _, c := range []struct {
		path string
		exit int
		want string
	}{
		{file(t, secret, 0o644), ipc.ExitConfig, "has mode 0644, so that others may read or change it"},
		{file(t, secret, 0o604), ipc.ExitConfig, "has mode 0604"},
		{file(t, secret, 0o660), ipc.ExitConfig, "has mode 0660"},
		{file(t, secret, 0o602), ipc.ExitConfig, "has mode 0602"},
		{file(t, "", 0o600), ipc.ExitConfig, "is empty"},
		{file(t, "\n \n", 0o600), ipc.ExitConfig, "is empty"},
		{file(t, "# none\n", 0o600), ipc.ExitConfig, "holds no token"},
		{file(t, "secret", 0o600), ipc.ExitConfig, "line 1 has 6 characters"},
		{file(t, long+"\nBearer "+secret, 0o600), ipc.ExitConfig, "line 2 has characters that no token has"},
		{file(t, "\xff\xfe"+secret, 0o600), ipc.ExitConfig, "line 1 has characters"},
		{file(t, strings.Repeat("x", maxFile+1), 0o600), ipc.ExitConfig, "is larger than 1 MiB"},
		{filepath.Join(t.TempDir(), "none"), ipc.ExitConfig, "no such file"},
		{t.TempDir(), ipc.ExitConfig, "is a directory"},
	} {
		_, err := Tokens(map[string]string{ipc.ClassControl: c.path})
		var f *ipc.Failure
		if !errors.As(err, &f) || f.Exit != c.exit || !strings.Contains(f.What, c.want) || !strings.HasPrefix(f.What, "auth.control: "+c.path) || strings.Contains(err.Error(), "secret") && !strings.Contains(c.path, "secret") {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	denied := failure("auth.docs", "/x", &os.PathError{Op: "open", Path: "/x", Err: os.ErrPermission})
	if ipc.ExitStatus(denied) != ipc.ExitPermission {
		t.Errorf("%v", denied)
	}
}

// made returns a pair of files, valid from and until those times from now on.
func made(t *testing.T, from, until time.Duration) Pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: now.Add(from), NotAfter: now.Add(until)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Pair{
		Setting: "listen[0]",
		Cert:    file(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), 0o644),
		Key:     file(t, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), 0o600),
	}
}

const day = 24 * time.Hour

func TestCertificates(t *testing.T) {
	good, other := made(t, -day, 90*day), made(t, -day, 90*day)
	with := func(change func(*Pair)) Pair {
		p := good
		change(&p)
		return p
	}
	for _, c := range []struct {
		name, want, warning string
		pair                Pair
	}{
		{"good", "", "", good},
		{"soon", "", "in 13 days: replace it", made(t, -80*day, 13*day+time.Hour)},
		{"short life", "", "", made(t, -time.Hour, 23*time.Hour)},
		{"end of a short life", "", "in 5h0m0s: replace it", made(t, -19*time.Hour, 5*time.Hour)},
		{"expired", "listen[0].tls.cert: .*expired at ", "", made(t, -2*day, -time.Minute)},
		{"early", "listen[0].tls.cert: .*is valid from ", "", made(t, time.Hour, day)},
		{"half replaced", "the key is not that of the certificate", "", with(func(p *Pair) { p.Key = other.Key })},
		{"other half", "the key is not that of the certificate", "", with(func(p *Pair) { p.Cert = other.Cert })},
		{"no key", "listen[0].tls.key: .*no such file", "", with(func(p *Pair) { p.Key += "none" })},
		{"no certificate", "listen[0].tls.cert: .*no such file", "", with(func(p *Pair) { p.Cert += "none" })},
		{"readable key", "listen[0].tls.key: .*has mode 0644", "", with(func(p *Pair) { p.Key = p.Cert })},
		{"nonsense", "listen[0].tls: .*failed to find any PEM data", "", with(func(p *Pair) { p.Cert = file(t, "nonsense", 0o644) })},
		{"half written", "listen[0].tls: .*PEM", "", with(func(p *Pair) {
			text, _ := os.ReadFile(p.Cert)
			p.Cert = file(t, string(text[:len(text)/2]), 0o644)
		})},
		{"encrypted", "the key is encrypted", "", with(func(p *Pair) {
			p.Key = file(t, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", 0o600)
		})},
	} {
		got, warning, err := Certificate(c.pair, time.Now())
		said := ""
		if err != nil {
			said = err.Error()
		}
		front, back, _ := strings.Cut(c.want, ".*")
		if (err == nil) != (c.want == "") || !strings.Contains(said, front) || !strings.Contains(said, back) || strings.Contains(said, "BEGIN") {
			t.Errorf("%s: %v", c.name, err)
		}
		if (warning == "") != (c.warning == "") || !strings.Contains(warning, c.warning) {
			t.Errorf("%s: warning %q", c.name, warning)
		}
		if printed := fmt.Sprintf("%v %+v", got, ipc.Manifest{Sockets: []ipc.Socket{{TLS: &got}}}); err == nil && strings.Contains(printed, string(got.Key[:20])) {
			t.Errorf("printed: %s", printed)
		}
	}
}
