package anchor

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/notify"
)

// storePrefix is before the names of what the service manager keeps for the next start of the
// service, a number, and the name that it has in the vault. systemd knows no replacing: the
// later one of two of a name counts, until the earlier one is gone.
const storePrefix = "preforkd.vault."

// store is the service manager's, as far as this process has put something there. The zero
// value is that of a service manager without one.
type store struct {
	client *notify.Client // nil: it keeps nothing
	names  map[string]string
	last   uint64 // number
}

// openStore returns the store that FDSTORE announces: systemd sets it from version 254 on
// (systemd.exec(5)), for earlier ones the unit does.
func openStore(upstream *notify.Client) store {
	s := store{names: map[string]string{}}
	if most, err := strconv.Atoi(os.Getenv("FDSTORE")); err == nil && most > 0 {
		s.client = upstream
	}
	return s
}

// put has fd kept under name in place of what is kept there by now.
func (s *store) put(name string, fd int, log *slog.Logger) {
	if s.client == nil {
		return
	}
	s.last++
	full := fmt.Sprintf("%s%d.%s", storePrefix, s.last, name)
	if err := s.client.Store(full, fd, "FDPOLL=0"); err != nil {
		log.Warn("descriptor would not survive a restart of the service", "name", name, "err", err)
		return
	}
	s.remove(name)
	s.names[name] = full
}

func (s *store) remove(name string) {
	if full, ok := s.names[name]; ok {
		delete(s.names, name)
		_ = s.client.Remove(full)
	}
}

// has tells whether something is kept under name.
func (s *store) has(name string) bool { return s.names[name] != "" }

// restore sorts what the service manager has given: into the vault what a main process before
// this one had it keep, and the sockets of socket units, in their order.
func (a *Anchor) restore(given []activation.Descriptor) {
	newest := map[string]uint64{}
	sockets := 0
	for _, d := range given {
		number, name, ok := stored(d.Name)
		switch {
		case !ok:
			a.vault.put(fmt.Sprintf("%s%04d/%s", ipc.KeptInherited, sockets, d.Name), d.FD)
			sockets++
		case a.vault.store.client == nil || number < newest[name]:
			activation.Close(d.FD)
			_ = a.upstream.Remove(d.Name)
		default:
			a.vault.store.remove(name)
			a.vault.put(name, d.FD)
			a.vault.store.names[name] = d.Name
			newest[name] = number
			a.vault.store.last = max(a.vault.store.last, number)
			a.vault.restored = true
		}
	}
}

// stored returns what put has made a name of.
func stored(full string) (number uint64, name string, ok bool) {
	rest, ours := strings.CutPrefix(full, storePrefix)
	digits, name, found := strings.Cut(rest, ".")
	number, err := strconv.ParseUint(digits, 10, 64)
	return number, name, ours && found && err == nil && name != ""
}
