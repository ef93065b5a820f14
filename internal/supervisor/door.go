package supervisor

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/door"
)

// seedBytes is the length of what the keys of TLS session tickets are derived from.
const seedBytes = 32

// CheckDoor reads the files that guard a service with those settings, and returns what is
// questionable about them.
func CheckDoor(cfg *config.Config) (warnings []string, err error) {
	_, warnings, err = readDoor(cfg, time.Now())
	return warnings, err
}

// readDoor reads tokens and certificates.
func readDoor(cfg *config.Config, now time.Time) (d ipc.Door, warnings []string, err error) {
	if d.Tokens, err = door.Tokens(cfg.Auth.Files()); err != nil {
		return d, nil, err
	}
	d.Certificates = map[string]ipc.Certificate{}
	for _, name := range cfg.PoolNames() {
		for i, a := range cfg.ForPool(name).Listen {
			if a.Cert == "" {
				continue
			}
			pair := door.Pair{Setting: fmt.Sprintf("%s[%d]", config.PoolKey(name, "listen"), i), Cert: a.Cert, Key: a.Key}
			c, warning, err := door.Certificate(pair, now)
			if err != nil {
				return d, nil, err
			}
			if warning != "" {
				warnings = append(warnings, warning)
			}
			d.Certificates[a.String()] = c
		}
	}
	return d, warnings, nil
}

// guard reads what guards g; old is the generation before, nil for the first one.
func (s *Supervisor) guard(g, old *generation) error {
	d, warnings, err := readDoor(g.cfg, time.Now())
	if err != nil {
		return err
	}
	for _, w := range warnings {
		s.log.Warn("certificate", "warning", w)
	}
	g.door = d
	return g.reseed(old)
}

// guardAgain guards g as it was guarded as had, from which it is made once more. To replace
// workers that serve is never refused; to return to a certificate whose time is over is.
func (g *generation) guardAgain(had, old *generation) error {
	g.door = had.door
	for address, c := range g.door.Certificates {
		if had.number == old.number {
			break
		}
		leaf, err := door.Leaf(c)
		if err == nil {
			err = door.Valid(leaf, time.Now())
		}
		if err != nil {
			return &ipc.Failure{Exit: ipc.ExitUnavailable, What: fmt.Sprintf("the certificate that it had for %s: %v", plainly(address), err), Try: "preforkd reload reads the one that is there now"}
		}
	}
	return g.reseed(old)
}

// reseed gives g what the keys of session tickets are derived from. Where the certificates
// are those of old sessions resume; else they do not, so that each client meets the new ones.
func (g *generation) reseed(old *generation) error {
	g.door.Seed = nil
	if len(g.door.Certificates) == 0 {
		return nil
	}
	if old != nil && len(old.door.Seed) > 0 && sameCertificates(old.door.Certificates, g.door.Certificates) {
		g.door.Seed = old.door.Seed
		return nil
	}
	g.door.Seed = make([]byte, seedBytes)
	_, err := rand.Read(g.door.Seed)
	return err
}

// plainly returns the address of a certificate as messages name it.
func plainly(address string) string {
	a, err := config.ParseAddress(address)
	if err != nil {
		return address
	}
	return a.Plain()
}

func sameCertificates(a, b map[string]ipc.Certificate) bool {
	for address, c := range a {
		if d, ok := b[address]; !ok || !bytes.Equal(c.Chain, d.Chain) || !bytes.Equal(c.Key, d.Key) {
			return false
		}
	}
	return len(a) == len(b)
}

// spoken says what is spoken on each of p's sockets. It fails where that, or tokens, are not there
// though settings want them: better no worker than one that asks for nothing.
func (p *pool) spoken() (all []ipc.Socket, err error) {
	d := &p.gen.door
	for class := range p.gen.cfg.Auth.Files() {
		if len(d.Tokens[class]) == 0 {
			return nil, fmt.Errorf("generation %d: its tokens of the class %s are gone", p.gen.number, class)
		}
	}
	for _, sock := range p.sockets {
		spoken := ipc.Socket{Proxy: sock.from.Proxy}
		if sock.from.Cert != "" {
			c, ok := d.Certificates[sock.from.String()]
			if !ok {
				return nil, fmt.Errorf("generation %d: its certificate for %s is gone", p.gen.number, sock.from.Plain())
			}
			spoken.TLS = &c
		}
		all = append(all, spoken)
	}
	return all, nil
}

// warnOpen tells of inherited sockets that other machines reach without a token: of other
// addresses the configuration's own warnings do.
func (s *Supervisor) warnOpen(g *generation) {
	var public []string
	for _, p := range g.pools {
		for _, sock := range p.sockets {
			if !p.other && sock.from.Network == "fd" && sock.Network == "tcp" && config.Public(sock.Address) {
				public = append(public, sock.from.Plain()+" ("+sock.Address+")")
			}
		}
	}
	if w := config.OpenWarning(public, &g.cfg.Auth); w != "" {
		s.log.Warn("configuration", "warning", w)
	}
}

// doorDifferences says what a reload changes in the content of files that guard the service.
func doorDifferences(old, next *ipc.Door) (lines []string) {
	for _, class := range []string{ipc.ClassInfer, ipc.ClassTasks, ipc.ClassControl, ipc.ClassDocs} {
		was, is := old.Tokens[class], next.Tokens[class]
		if len(was) > 0 && len(is) > 0 && !slices.EqualFunc(was, is, bytes.Equal) {
			lines = append(lines, fmt.Sprintf("auth.%s: other tokens, %d -> %d", class, len(was), len(is)))
		}
	}
	for address, c := range next.Certificates {
		if was, ok := old.Certificates[address]; ok && !bytes.Equal(was.Chain, c.Chain) {
			line := "listen: " + plainly(address) + ": other certificate"
			if leaf, err := door.Leaf(c); err == nil {
				line += ", valid until " + leaf.NotAfter.UTC().Format(time.DateTime+" MST")
			}
			lines = append(lines, line)
		}
	}
	slices.SortFunc(lines, strings.Compare)
	return lines
}
