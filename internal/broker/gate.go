package broker

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"sync/atomic"

	"github.com/nats-io/nats-server/v2/server"
)

// gate decides who may connect: this process's own client, and once it is open whoever has the
// token. It is the server's CustomClientAuthentication.
type gate struct {
	token, own [sha256.Size]byte
	ownToken   string
	opened     atomic.Bool
}

func newGate(token string) *gate {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	g := &gate{token: sha256.Sum256([]byte(token)), ownToken: hex.EncodeToString(secret)}
	g.own = sha256.Sum256([]byte(g.ownToken))
	return g
}

func (g *gate) open()  { g.opened.Store(true) }
func (g *gate) close() { g.opened.Store(false) }

// Check implements server.Authentication. Digests are compared, in constant time.
func (g *gate) Check(c server.ClientAuthentication) bool {
	given := sha256.Sum256([]byte(c.GetOpts().Token))
	own := subtle.ConstantTimeCompare(given[:], g.own[:]) == 1
	right := subtle.ConstantTimeCompare(given[:], g.token[:]) == 1
	return own || right && g.opened.Load()
}
