package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/notify"
	"preforkd/internal/ipc/store"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/process"
)

// The broker keeps the queue of background tasks. Each supervisor has one of its own, from its first
// moment on: the lock on the store decides which of two serves, so that a successor's takes over
// when its predecessor's ends. It sees the end of its supervisor by a pipe. Nothing of this touches
// what is served otherwise: without a broker tasks are answered with 503.

// brokerName is the program, beside this one.
const brokerName = "preforkd-broker"

// Waits before a broker that has ended is started again.
const (
	brokerSoon = 100 * time.Millisecond
	brokerLate = 10 * time.Second
	// brokerWell is how long one has served after which the next is started soon.
	brokerWell = 10 * time.Second
	// brokerEnd is how long it may take to bring what it has to the disk.
	brokerEnd = 10 * time.Second
)

// broker is that process, and what it is to be. Only the loop uses it.
type broker struct {
	orders   config.Tasks // the settings that it was started with
	proc     *process.Process
	lifeline int // the end whose last holder is this process
	started  time.Duration
	ready    bool
	status   string
	failure  *ipc.Failure
	retryAt  time.Duration
	wait     time.Duration
	access   *store.Access // as workers are told
	gone     int           // how many have ended
}

// brokerEndedEvent: the process has ended.
type brokerEndedEvent struct{ proc *process.Process }

// taskQueue is what the workers of p are told of the queue; nil: there is none.
func (s *Supervisor) taskQueue(p *pool) (*ipc.TaskQueue, error) {
	t := &p.gen.cfg.Tasks
	if !t.Enabled || p.other {
		return nil, nil
	}
	q := &ipc.TaskQueue{URL: t.URL, Embedded: t.Embedded()}
	q.Runs, q.Only = p.gen.cfg.RunsTasks(p.name)
	_, q.Apart = p.gen.cfg.RunsTasks(config.TasksPool)
	if !q.Embedded {
		return q, nil
	}
	a, err := s.taskAccess(p.gen.cfg)
	if err != nil {
		return nil, err
	}
	q.URL, q.Token = a.URL(), a.Token
	return q, nil
}

// taskAccess finds out how this machine's queue is reached, and makes its store.
func (s *Supervisor) taskAccess(c *config.Config) (store.Access, error) {
	if s.broker.access != nil && s.broker.orders.Store == c.Tasks.Store {
		return *s.broker.access, nil
	}
	dir, err := taskStore(c)
	if err != nil {
		return store.Access{}, err
	}
	read := store.Prepare
	if s.tookOver || s.opts.Main.succeeds() || s.gen != nil { // the port is that of workers that run
		read = store.Open
	}
	a, err := read(dir)
	if err != nil {
		return a, &ipc.Failure{Exit: ipc.ExitPermission, What: err.Error(), Err: err, Try: "give the service's user that directory, or set tasks.store to another"}
	}
	space, err := store.SpaceOf(dir)
	if err == nil && space.Memory && !c.Tasks.AllowMemory {
		return a, &ipc.Failure{
			Exit: ipc.ExitConfig, What: fmt.Sprintf("tasks.store: %s is in memory: tasks would be gone with the machine's power", dir),
			Try: "set tasks.store to a directory on a disk, or tasks.allow_memory: true",
		}
	}
	s.broker.access = &a
	return a, nil
}

func taskStore(c *config.Config) (string, error) {
	dir := c.TaskStore(os.Getenv, os.Getuid())
	if dir == "" {
		return "", &ipc.Failure{Exit: ipc.ExitConfig, What: "tasks.store: there is no directory for the tasks, as this user has no home", Try: "set tasks.store"}
	}
	return filepath.Abs(dir)
}

// keepBroker starts the broker that the generation in charge asks for, and ends one that it does not.
func (s *Supervisor) keepBroker() {
	if s.gen == nil || s.stopping > stopGraceful {
		return
	}
	b := &s.broker
	wanted := s.gen.cfg.Tasks
	if !wanted.Embedded() {
		wanted = config.Tasks{}
	}
	switch {
	case b.proc != nil && b.orders != wanted:
		s.log.Info("task queue ends: its settings are others", "pid", b.proc.PID)
		b.proc.Signal(syscall.SIGTERM)
		b.orders, b.wait, b.retryAt = wanted, 0, 0
	case b.proc == nil && wanted.Embedded() && s.now() >= b.retryAt:
		b.orders = wanted
		if err := s.startBroker(); err != nil {
			s.log.Error("task queue not started; tasks are answered with 503", "err", err)
			b.later(s.now())
		}
	}
}

// later plans the next start.
func (b *broker) later(now time.Duration) {
	b.wait = min(max(2*b.wait, brokerSoon), brokerLate)
	if b.ready && now-b.started > brokerWell {
		b.wait = brokerSoon
	}
	b.retryAt = now + b.wait
}

func (s *Supervisor) startBroker() error {
	b, t := &s.broker, &s.broker.orders
	dir, err := taskStore(s.gen.cfg)
	if err != nil {
		return err
	}
	if _, err := store.Open(dir); err != nil {
		return err
	}
	path, err := besideSelf(brokerName)
	if err != nil {
		return err
	}
	read, write, err := activation.Lifeline()
	if err != nil {
		return err
	}
	defer activation.Close(read)
	args := []string{
		brokerName, "--store", dir, "--max", strconv.FormatInt(int64(t.MaxStore), 10), "--reserve", strconv.FormatInt(int64(t.Reserve), 10),
		"--memory", strconv.FormatInt(int64(t.Memory), 10), "--sync", t.Sync.String(),
	}
	env := append(inheritable(), "NOTIFY_SOCKET="+s.server.Name(), "LISTEN_FDS=0", ipc.EnvFDNames+"="+ipc.FDLifeline)
	b.proc, err = process.Start(process.Spec{
		Path: path, Args: args, Env: env, Descriptors: []int{read}, Limits: process.Limits{Umask: 0o077}, Line: s.brokerLine,
	})
	if err != nil {
		activation.Close(write)
		return err
	}
	b.lifeline, b.started, b.ready, b.status, b.failure = write, s.now(), false, "starts", nil
	s.log.Info("task queue started", "pid", b.proc.PID, "store", dir)
	proc := b.proc
	go func() { // ends with the process
		<-proc.Done()
		_ = s.server.Flush() // why it ended may still be on its way
		s.send(brokerEndedEvent{proc})
	}()
	return nil
}

// besideSelf returns the path of another program of this installation.
func besideSelf(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(strings.TrimSuffix(self, " (deleted)")), name)
	if _, err := os.Stat(path); err != nil {
		return "", &ipc.Failure{Exit: ipc.ExitUnavailable, What: err.Error(), Err: err, Try: "install " + name + " beside preforkd"}
	}
	return path, nil
}

// onBrokerEnded plans the next one.
func (s *Supervisor) onBrokerEnded(e brokerEndedEvent) {
	b := &s.broker
	if b.proc != e.proc {
		return
	}
	activation.Close(b.lifeline)
	b.proc, b.lifeline = nil, -1
	b.gone++
	if s.stopping != stopNot || b.orders != s.gen.cfg.Tasks {
		b.ready = false
		return
	}
	b.later(s.now())
	b.ready = false
	why := e.proc.Exit().String()
	if b.failure != nil {
		why = b.failure.Error()
	}
	s.log.Error("task queue ended; tasks are answered with 503 until it is back", "pid", e.proc.PID, "err", why, "next", b.wait)
	s.emit(admin.Event{Kind: "tasks", Text: "the queue ended: " + why, PID: e.proc.PID, Generation: s.gen.number})
	b.status = "ended: " + why
}

// onBrokerMessage notes what the broker says of itself; false: it was not the broker.
func (s *Supervisor) onBrokerMessage(m notify.Message) bool {
	b := &s.broker
	if b.proc == nil || b.proc.PID != m.PID {
		return false
	}
	if status, ok := m.Get("STATUS"); ok {
		b.status = status
	}
	if text, ok := m.Get(ipc.KeyFailure); ok {
		b.failure, _ = ipc.DecodeFailure(text) // it is in the log, too
	}
	if v, _ := m.Get("READY"); v == "1" && !b.ready {
		b.ready, b.wait = true, 0
		s.log.Info("task queue serves", "pid", m.PID, "took", (s.now() - b.started).Round(time.Millisecond))
		s.emit(admin.Event{Kind: "tasks", Text: "the queue serves", PID: m.PID, Generation: s.gen.number})
	}
	return true
}

// endBroker ends the broker, after the workers, and waits for it.
func (s *Supervisor) endBroker() {
	b := &s.broker
	if b.proc == nil {
		return
	}
	b.proc.Signal(syscall.SIGTERM)
	select {
	case <-b.proc.Done():
	case <-time.After(brokerEnd):
		s.log.Warn("task queue killed: it does not end", "pid", b.proc.PID, "limit", brokerEnd)
		b.proc.Signal(syscall.SIGKILL)
		<-b.proc.Done()
	}
	activation.Close(b.lifeline)
	b.proc, b.lifeline = nil, -1
}

// brokerLine relays one line of the broker's output.
func (s *Supervisor) brokerLine(pid int, line string) {
	attrs := []slog.Attr{slog.Int("pid", pid)}
	r, ok := parseRecord(line)
	if !ok {
		if strings.TrimSpace(line) != "" {
			s.log.LogAttrs(context.Background(), slog.LevelInfo, "task queue output", append(attrs, slog.String("line", line))...)
		}
		return
	}
	for _, key := range slices.Sorted(maps.Keys(r.attrs)) {
		attrs = append(attrs, slog.Any(key, r.attrs[key]))
	}
	s.log.LogAttrs(context.Background(), r.level, r.msg, attrs...)
}
