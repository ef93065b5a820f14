package worker

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"preforkd/internal/worker/accept"
)

// speak makes l, on the socket of that index, speak what the manifest says.
func (w *worker) speak(l *accept.Listener, index int) error {
	if len(w.manifest.Sockets) == 0 { // of a supervisor that knows of no TLS
		return nil
	}
	if index >= len(w.manifest.Sockets) {
		return fmt.Errorf("listening socket %d: the manifest says nothing of it", index)
	}
	spoken := w.manifest.Sockets[index]
	if spoken.Proxy {
		l.Proxied(w.proxies())
	}
	if spoken.TLS == nil {
		return nil
	}
	pair, err := tls.X509KeyPair(spoken.TLS.Chain, spoken.TLS.Key)
	if err != nil { // the supervisor has looked
		return fmt.Errorf("certificate of listening socket %d: %w", index, err)
	}
	l.Secure(&tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"}, // RFC 7301: who wants only another is refused in the handshake
	}, w.manifest.Seed)
	return nil
}

// proxies are the peers that are believed about whom they speak for.
func (w *worker) proxies() *accept.Proxies {
	p := &accept.Proxies{}
	for _, trusted := range w.cfg.HTTP.TrustedProxies {
		network, ok := trusted.Prefix()
		if !ok {
			p.Unix = true
			continue
		}
		p.Networks = append(p.Networks, network)
	}
	return p
}

// refused logs connections that were closed for what their peer is or sent.
func (w *worker) refused() func(peer net.Addr, why string) {
	var pace seldom
	return func(peer net.Addr, why string) {
		if skipped, ok := pace.now(time.Now()); ok {
			w.log.Warn("connection closed", "peer", peer.String(), "why", why, "skipped", skipped)
		}
	}
}

// denied logs requests that were refused for their tokens.
func (w *worker) denied() func(class, why, client string) {
	var pace seldom
	return func(class, why, client string) {
		if skipped, ok := pace.now(time.Now()); ok {
			w.log.Warn("request denied", "class", class, "client", client, "why", why, "skipped", skipped)
		}
	}
}

// seldom lets one record a second through: clients decide how often there is one.
type seldom struct {
	mu      sync.Mutex // guards the fields below
	next    time.Time
	skipped int
}

// now tells whether there may be a record, and how many were left out before it.
func (s *seldom) now(at time.Time) (skipped int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.Before(s.next) {
		s.skipped++
		return 0, false
	}
	skipped, s.skipped, s.next = s.skipped, 0, at.Add(time.Second)
	return skipped, true
}

// lastCallTime is how long a worker that leaves lets connections with TLS, which go nowhere else,
// ask once more: whoever does is told to close, and so does not send a request into a
// connection that is being closed.
const lastCallTime = time.Second

// lastCall waits until they have gone, or had that time.
func (w *worker) lastCall(ctx context.Context) {
	late := time.NewTimer(lastCallTime)
	defer late.Stop()
	ticker := time.NewTicker(stoppingPoll)
	defer ticker.Stop()
	for w.conns.Secured() > 0 && w.board.Stopping().Load() == 0 {
		select {
		case <-ticker.C:
		case <-late.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
