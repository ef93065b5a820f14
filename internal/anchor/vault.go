package anchor

import (
	"log/slog"
	"strings"
	"sync"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/notify"
)

// vault is the descriptors that outlive a supervisor, by name: bare numbers. Some outlive
// this process, too, in the store.
type vault struct {
	mu       sync.Mutex // guards the fields below
	held     map[string]int
	store    store
	restored bool // some of it comes from the store, and no supervisor has served with it yet
}

// put keeps fd, which it takes over, in place of what has that name.
func (v *vault) put(name string, fd int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hold(name, fd)
}

func (v *vault) hold(name string, fd int) {
	if old, ok := v.held[name]; ok {
		activation.Close(old)
	}
	v.held[name] = fd
}

// putOutliving is put, and has the service manager keep it, too. What it keeps of that file
// already it would not keep twice, whatever the name.
func (v *vault) putOutliving(name string, fd int, log *slog.Logger) {
	v.mu.Lock()
	defer v.mu.Unlock()
	old, ok := v.held[name]
	if !ok || !v.store.has(name) || !sameFile(old, fd) {
		v.store.put(name, fd, log)
	}
	v.hold(name, fd)
}

func (v *vault) remove(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.store.remove(name)
	if fd, ok := v.held[name]; ok {
		activation.Close(fd)
		delete(v.held, name)
	}
}

// served notes that a supervisor serves with what was restored.
func (v *vault) served() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.restored = false
}

// answer answers a FETCH.
func (v *vault) answer(fd int) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	var said []string
	if v.store.client != nil {
		said = append(said, ipc.KeyStore+"=1")
	}
	if v.restored {
		said = append(said, ipc.KeyRestored+"=1")
	}
	return notify.Answer(fd, v.held, said...)
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

// clear closes everything. What is in the store stays there.
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
		if _, outlives := m.Get(ipc.KeyOutlives); outlives {
			v.putOutliving(name, fds[0], log)
		} else {
			v.put(name, fds[0])
		}
		return false
	case remove && named:
		v.remove(name)
	case fetch && len(fds) == 1:
		if err := v.answer(fds[0]); err != nil {
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
