package door

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"preforkd/internal/ipc"
)

// Pair names the files of a certificate: its chain, the server's own first, and its key, in PEM.
type Pair struct {
	Setting   string // that names them, for messages
	Cert, Key string
}

// Certificate reads a pair that is valid at now. Warning says that it is not for much longer.
// The error is an *ipc.Failure.
func Certificate(p Pair, now time.Time) (c ipc.Certificate, warning string, err error) {
	if c.Chain, err = read(p.Cert, false); err != nil {
		return ipc.Certificate{}, "", failure(p.Setting+".tls.cert", p.Cert, err)
	}
	if c.Key, err = read(p.Key, true); err != nil {
		return ipc.Certificate{}, "", failure(p.Setting+".tls.key", p.Key, err)
	}
	leaf, err := parse(c)
	if err != nil {
		return ipc.Certificate{}, "", failure(p.Setting+".tls", p.Cert+" and "+p.Key, err)
	}
	if err := Valid(leaf, now); err != nil {
		return ipc.Certificate{}, "", failure(p.Setting+".tls.cert", p.Cert, err)
	}
	if left := leaf.NotAfter.Sub(now); left < soon(leaf) {
		warning = fmt.Sprintf("%s.tls.cert: %s expires at %s, in %s: replace it and preforkd reload", p.Setting, p.Cert, date(leaf.NotAfter), span(left))
	}
	return c, warning, nil
}

// parse returns the server's own certificate, if the pair can be served.
func parse(c ipc.Certificate) (*x509.Certificate, error) {
	pair, err := tls.X509KeyPair(c.Chain, c.Key)
	if err != nil {
		return nil, explain(c, err)
	}
	return pair.Leaf, nil
}

// explain says what crypto/tls found in words of the files. Its own words do not have the
// content, but those of a key that is encrypted, or of two that were replaced one after the
// other, do not say so.
func explain(c ipc.Certificate, err error) error {
	text := strings.TrimPrefix(err.Error(), "tls: ")
	switch {
	case bytes.Contains(c.Key, []byte("ENCRYPTED")):
		return errors.New("the key is encrypted, and nobody could type its passphrase; store it without one (openssl pkey)")
	case strings.Contains(text, "does not match"):
		return errors.New("the key is not that of the certificate; one of the files may have been replaced before the other")
	}
	return errors.New(text)
}

// Leaf returns the server's own certificate of a pair that has been read.
func Leaf(c ipc.Certificate) (*x509.Certificate, error) { return parse(c) }

// Valid says why a certificate must not be served at now.
func Valid(leaf *x509.Certificate, now time.Time) error {
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("expired at %s, it is %s; put one there that is valid", date(leaf.NotAfter), date(now))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("is valid from %s on, it is %s; check the clock of this machine", date(leaf.NotBefore), date(now))
	}
	return nil
}

// soon is how long before its end a certificate is one to warn of: two weeks, or a quarter of
// its life where that is short.
func soon(leaf *x509.Certificate) time.Duration {
	return min(14*24*time.Hour, leaf.NotAfter.Sub(leaf.NotBefore)/4)
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

func span(d time.Duration) string {
	if d > 48*time.Hour {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.Round(time.Minute).String()
}
