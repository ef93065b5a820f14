package accept

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"
)

// Secure makes l speak TLS by config, which becomes its own. Session tickets have keys that are
// derived from seed and the day, so that every worker with the same seed resumes what another
// began; without a seed there are no tickets. It is called before Accept.
func (l *Listener) Secure(config *tls.Config, seed []byte) {
	l.tls = &sealing{config: config, seed: seed}
	config.SessionTicketsDisabled = len(seed) == 0
}

// Proxied makes every connection of l begin with a PROXY header, from peers that are trusted;
// others are closed. It is called before Accept.
func (l *Listener) Proxied(trusted *Proxies) { l.trusted = trusted }

// admits tells whether c may be served; if not, it has been closed.
func (l *Listener) admits(c net.Conn) bool {
	if l.trusted == nil || l.trusted.Trusts(c.RemoteAddr()) {
		return true
	}
	l.pool.refused(c.RemoteAddr(), "it is none of http.trusted_proxies")
	_ = c.Close()
	return false
}

// sealing is how a listener speaks TLS.
type sealing struct {
	config *tls.Config
	seed   []byte

	mu  sync.Mutex // guards day
	day int64      // since 1970, of the newest key; 0: there is none yet
}

// ticketDays is for how many days a ticket is of use: as long as Go accepts one.
const ticketDays = 7

// rotate makes the keys of the day the current ones.
func (s *sealing) rotate(now time.Time) error {
	if len(s.seed) == 0 {
		return nil
	}
	day := now.Unix() / int64(24*time.Hour/time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.day == day {
		return nil
	}
	keys := make([][32]byte, ticketDays)
	for i := range keys {
		key, err := hkdf.Key(sha256.New, s.seed, nil, "preforkd session ticket "+strconv.FormatInt(day-int64(i), 10), len(keys[i]))
		if err != nil {
			return err
		}
		copy(keys[i][:], key)
	}
	s.config.SetSessionTicketKeys(keys)
	s.day = day
	return nil
}

// secure is a connection with TLS. It ends where it is: what both sides know of its keys is
// in this process.
type secure struct {
	*tls.Conn
	below *conn
}

// Handshake is called by the goroutine that serves, before anything is read, under the
// handshake's clock.
func (s *secure) Handshake() error {
	err := s.Conn.Handshake()
	if err == nil {
		s.below.clock.turns(firstByte)
		return nil
	}
	if plain := (tls.RecordHeaderError{}); errors.As(err, &plain) && plain.Conn != nil && speaksHTTP(plain.RecordHeader) {
		_, _ = plain.Conn.Write([]byte(spokenPlainly))
	}
	return err
}

// spokenPlainly answers a client that speaks HTTP where TLS is spoken.
const spokenPlainly = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 57\r\n\r\n" +
	`{"error":"TLS is spoken here: the URL begins with https"}`

// speaksHTTP tells whether what should be the header of a TLS record begins a request.
func speaksHTTP(record [5]byte) bool {
	for _, c := range record[:3] {
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return true
}

// closeTime is how long telling the client of the end may take: one that has not taken its
// answer is not waited for.
const closeTime = 100 * time.Millisecond

// Close says that this is the end, and closes.
func (s *secure) Close() error {
	_ = s.below.Conn.SetWriteDeadline(time.Now().Add(closeTime))
	return s.Conn.Close()
}

// end is conn.end for a connection with TLS, whose state is ending.
func (s *secure) end(answer []byte) {
	_ = s.below.Conn.SetWriteDeadline(time.Now().Add(cutTime))
	_, _ = s.Conn.Write(answer)
	_ = s.Conn.CloseWrite()
	s.below.state.Store(cut)
	s.below.finish()
}

// Secured returns how many connections have TLS.
func (p *Pool) Secured() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if c.stays {
			n++
		}
	}
	return n
}
