package anchor

import (
	"log/slog"
	"strings"
	"sync"

	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/notify"
)

// vault is the descriptors that outlive a supervisor, by name: bare numbers.
type vault struct {
	mu   sync.Mutex // guards held
	held map[string]int
}

// put keeps fd, which it takes over, in place of what has that name.
func (v *vault) put(name string, fd int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if old, ok := v.held[name]; ok {
		activation.Close(old)
	}
	v.held[name] = fd
}

func (v *vault) remove(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if fd, ok := v.held[name]; ok {
		activation.Close(fd)
		delete(v.held, name)
	}
}

// duplicate returns another descriptor of what is kept under name; -1: nothing is.
func (v *vault) duplicate(name string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	fd, ok := v.held[name]
	if !ok {
		return -1
	}
	if fd, err := activation.Duplicate(fd); err == nil {
		return fd
	}
	return -1
}

func (v *vault) clear() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for name, fd := range v.held {
		activation.Close(fd)
		delete(v.held, name)
	}
}

// receive carries out what m says about the vault, and takes its descriptors. It reports
// whether m may say anything else.
func (v *vault) receive(m notify.Message, log *slog.Logger) (more bool) {
	name, named := m.Get("FDNAME")
	_, store := m.Get("FDSTORE")
	_, remove := m.Get("FDSTOREREMOVE")
	_, fetch := m.Get("FETCH")
	fds := m.Descriptors
	switch {
	case store && named && len(fds) == 1:
		v.put(name, fds[0])
		return false
	case remove && named:
		v.remove(name)
	case fetch && len(fds) == 1:
		v.mu.Lock()
		err := notify.Answer(fds[0], v.held)
		v.mu.Unlock()
		if err != nil {
			log.Warn("vault not fetched", "pid", m.PID, "err", err)
		}
		return true // so that the main process knows that its supervisor listens
	}
	for _, fd := range fds { // also a BARRIER's
		activation.Close(fd)
	}
	_, barrier := m.Get("BARRIER")
	return !store && !remove && !barrier
}

// relayed are the lines of text that the service manager understands and shall hear. It
// sees one main process, which is this one, and has its own pulse from here.
func relayed(text string) (lines []string) {
	for line := range strings.SplitSeq(text, "\n") {
		key, _, ok := strings.Cut(line, "=")
		switch key {
		case "READY", "STATUS", "STOPPING", "RELOADING", "ERRNO", "EXTEND_TIMEOUT_USEC", "MONOTONIC_USEC":
			if ok {
				lines = append(lines, line)
			}
		}
	}
	return lines
}
