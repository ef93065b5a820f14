package supervisor

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/notify"
	"preforkd/internal/supervisor/upgrade"
)

// Main is this process's connection to the main process, which keeps what outlives a
// supervisor; docs/internals/process-tree.md.
type Main struct {
	client   *notify.Client
	held     map[string]int // what it kept when this process began, by name; ours
	program  string         // path of this program, as the operator means it
	store    bool           // the service manager keeps for the next start what it is asked to
	restored bool           // it has kept what there is: this is a start of the service
	fallen   bool           // the program before this one is back: so shall be its generation
	returnTo uint64         // the generation that a successor shall return to; 0: none
	self     *os.File       // this program
	upgrader *upgrade.Upgrader
}

// FindMain returns the connection that this process has inherited, nil if it has not been
// started by a main process. What that keeps is fetched.
func FindMain() (*Main, error) {
	m := &Main{program: os.Getenv(ipc.EnvProgram), fallen: os.Getenv(ipc.EnvFallen) != ""}
	m.returnTo, _ = strconv.ParseUint(os.Getenv(ipc.EnvReturn), 10, 64)
	os.Unsetenv(ipc.EnvFallen)
	os.Unsetenv(ipc.EnvReturn)
	var err error
	if m.self, err = os.Open("/proc/self/exe"); err != nil {
		return nil, fmt.Errorf("hold this program: %w", err)
	}
	// The kernel names a process after the path by which it was executed, which may be that of
	// a descriptor.
	_ = os.WriteFile("/proc/self/comm", []byte("preforkd"), 0)
	if m.upgrader, err = upgrade.New(); err != nil {
		return nil, err
	}
	fd, err := m.channel()
	if fd < 0 || err != nil {
		return nil, err
	}
	if m.client, err = notify.DialFD(fd); err != nil {
		return nil, err
	}
	if err := m.upgrader.Carry(fd); err != nil {
		return nil, err
	}
	return m, m.fetch()
}

// fetch looks at what the main process keeps.
func (m *Main) fetch() error {
	held, said, err := m.client.Fetch()
	if err != nil {
		return err
	}
	m.held = held
	_, m.store = said.Get(ipc.KeyStore)
	_, m.restored = said.Get(ipc.KeyRestored)
	return nil
}

// outlives tells whether sockets and queues are kept for the next start of the service.
func (m *Main) outlives() bool { return m != nil && m.store }

// channel returns the descriptor of the channel to the main process: the predecessor's of
// this process in an upgrade, else that of the main process, which has started it; -1: it
// has not.
func (m *Main) channel() (int, error) {
	if m.upgrader.Parent() > 0 {
		return m.upgrader.Channel()
	}
	value := os.Getenv(ipc.EnvVault)
	os.Unsetenv(ipc.EnvVault)
	if value == "" {
		return -1, nil
	}
	channel, executed, _ := strings.Cut(value, ",")
	fd, err := strconv.Atoi(channel)
	if err != nil {
		return -1, fmt.Errorf("%s=%q is no descriptor", ipc.EnvVault, value)
	}
	if fd, err := strconv.Atoi(executed); err == nil {
		activation.Close(fd)
	}
	return fd, nil
}

// keeper has the main process keep descriptors. Without one, as in tests, nobody does. Safe
// for concurrent use.
type keeper struct {
	client *notify.Client
	log    *slog.Logger
	dead   atomic.Bool // the main process
	frozen atomic.Bool // the service stops, and leaves what there is to its next start
}

// store keeps another descriptor of what fd is. More lines may say how.
func (k *keeper) store(name string, fd int, more ...string) {
	if k == nil || fd < 0 || k.dead.Load() {
		return
	}
	if err := k.client.Store(name, fd, more...); err != nil {
		k.log.Error("descriptor not kept: it would not survive this process", "name", name, "err", err)
	}
}

// outliving makes store keep it beyond the main process as well, where something can.
const outliving = ipc.KeyOutlives + "=1"

// storeJSON keeps v as JSON in sealed memory; readJSON reads it.
func (k *keeper) storeJSON(name string, v any, more ...string) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	fd, err := activation.Sealed("preforkd-"+name, data)
	if err != nil {
		return err
	}
	k.store(name, fd, more...)
	activation.Close(fd)
	return nil
}

// readJSON reads what storeJSON has kept, and closes fd.
func readJSON(fd int, into any) error {
	data, err := activation.ReadSealed(fd)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

func (k *keeper) remove(name string) {
	if k == nil || name == "" || k.dead.Load() || k.frozen.Load() {
		return
	}
	if err := k.client.Remove(name); err != nil {
		k.log.Warn("kept descriptor not removed", "name", name, "err", err)
	}
}

// settle returns when the main process has read what it was told.
func (k *keeper) settle() {
	if k == nil || k.dead.Load() {
		return
	}
	if err := k.client.Barrier(); err != nil {
		k.log.Warn("main process does not answer", "err", err)
	}
}

// fresh returns a name with prefix that nothing has had.
func fresh(prefix string) string { return prefix + rand.Text() }

// take returns what the main process kept under name when this process began, and leaves it
// to the caller; -1: nothing.
func (m *Main) take(name string) int {
	if m == nil {
		return -1
	}
	fd, ok := m.held[name]
	if !ok {
		return -1
	}
	delete(m.held, name)
	return fd
}

// heldFD returns what take would, and leaves it there.
func (m *Main) heldFD(name string) (fd int, ok bool) {
	if m == nil {
		return -1, false
	}
	fd, ok = m.held[name]
	return fd, ok
}

// names returns the names with prefix.
func (m *Main) names(prefix string) (names []string) {
	if m == nil {
		return nil
	}
	for name := range m.held {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}

// close lets go of what was not taken. The main process goes on keeping it.
func (m *Main) close() {
	if m == nil {
		return
	}
	for _, fd := range m.held {
		activation.Close(fd)
	}
	m.held = nil
}
