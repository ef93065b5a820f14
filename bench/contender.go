package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"preforkd/bench/proc"
	"preforkd/internal/load"
)

// version is what a contender is reloaded into; bench/peers/reload/version.py says what
// each does.
type version string

const (
	fine    version = "ok"
	slow    version = "slow" // boots 6 seconds
	failing version = "fail" // ends at boot
	hanging version = "hang" // never becomes ready
	// These have a counterpart only where there is a self-test.
	hangsInTest   version = "hang in the self-test"
	crashesInTest version = "crash in the self-test"
	// crashing dies while it serves: in the trial, where there is one.
	crashing version = "crash"
)

const slowBoot = 6 * time.Second // of the version slow

// contender is a server whose reloads are compared. All have two workers.
type contender struct {
	name string
	// prepare makes what it needs once, and returns its version. An error leaves it out.
	prepare func(context.Context, *lab) (string, error)
	// deploy writes the files from which the next start or reload takes a version.
	deploy func(*stage, version) error
	spec   func(*stage) proc.Spec
	// trigger asks for a reload. said is what the command told whoever gave it; a signal
	// says nothing. A command that waits for the end of the reload is waits.
	trigger func(context.Context, *stage) (said string, exit int, err error)
	waits   bool
	ready   func(*stage) error // says what it still waits for, beside the workers' being there; may be nil
	pause   time.Duration      // after a reload: one that is asked for earlier is ignored
	// worker tells a worker's command line from those of other processes.
	worker   func(cmdline string) bool
	request  []byte
	versions []version // that it can be reloaded into, beside fine
}

const workersEach = 2

// stage is a contender that runs.
type stage struct {
	l          *lab
	c          *contender
	dir        string
	port       int
	server     *proc.Proc
	more       int                          // workers beyond those that answer
	settings   string                       // more of preforkd's configuration
	onLine     func(line string, at *stage) // of progress of preforkd's reload; what a version does then
	onProgress func(line string)            // the same, to take the time
	patience   time.Duration                // of pm2 with a worker that is not ready; 0: its default
	inside     int                          // connections that its canary had when it was struck
}

// begin starts s, of which contender and settings are given, in a folder of its own and
// waits until its workers serve.
func (l *lab) begin(ctx context.Context, s *stage) (err error) {
	s.l = l
	if s.port, err = proc.FreePort(); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp(l.dir, "stage-"); err != nil {
		return err
	}
	if err = s.c.deploy(s, fine); err == nil {
		s.server, err = proc.Start(s.c.spec(s))
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(s.dir))
	}
	starting, cancel := context.WithTimeout(ctx, boot)
	defer cancel()
	if err := s.server.AwaitReady(starting, func() error { return s.whole(nil) }); err != nil {
		s.end()
		return err
	}
	return nil
}

// end ends the contender and removes its folder.
func (s *stage) end() {
	s.server.Stop(goodbye)
	_ = os.RemoveAll(s.dir) // it is in bench/out, which nobody keeps
}

func (s *stage) path(name string) string { return filepath.Join(s.dir, name) }
func (s *stage) address() string         { return "127.0.0.1:" + strconv.Itoa(s.port) }

// log is where the contender's output goes: beside the folder, which is removed.
func (s *stage) log() string { return filepath.Join(s.l.dir, "logs", "reload-"+s.c.name+".log") }

// workers returns the process ids of the workers that live.
func (s *stage) workers() (pids []int, err error) {
	tree, err := s.server.Tree()
	if err != nil {
		return nil, err
	}
	for _, pid := range tree[min(1, len(tree)):] {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if err != nil || len(text) == 0 { // it has ended
			continue
		}
		if s.c.worker(string(bytes.ReplaceAll(text, []byte{0}, []byte{' '}))) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// whole returns nil when there are as many workers as there shall be, none of them one
// of old, and the address answers.
func (s *stage) whole(old []int) error {
	now, err := s.workers()
	if err != nil {
		return err
	}
	if len(now) != workersEach+s.more || slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(old, pid) }) {
		return fmt.Errorf("workers are %v", now)
	}
	if s.c.ready != nil {
		if err := s.c.ready(s); err != nil {
			return err
		}
	}
	return s.answers()
}

// answers asks once, over a connection of its own.
func (s *stage) answers() error {
	r, err := load.Run(context.Background(), load.Options{
		Addr: s.address(), Request: s.c.request, Requests: 1, Timeout: 5 * time.Second,
	})
	if err == nil && r.Answers == 0 {
		err = fmt.Errorf("no answer: %v", r.Failures)
	}
	return err
}

// reloaded is how one reload went, as whoever asked for it sees it.
type reloaded struct {
	Took     time.Duration `json:"took_ns"`
	Said     string        `json:"said"`
	Exit     int           `json:"exit"` // of the command; -1: there was none, only a signal
	Replaced bool          `json:"replaced"`
}

const commandLimit = 60 * time.Second // of a command that asks for a reload

// reload deploys v, asks for a reload, and waits up to limit after that until every old
// worker is gone and the new ones serve.
func (s *stage) reload(ctx context.Context, v version, limit time.Duration) (r reloaded, err error) {
	old, err := s.workers()
	if err != nil {
		return r, err
	}
	if err := s.c.deploy(s, v); err != nil {
		return r, err
	}
	begun := time.Now()
	commanded, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	r.Said, r.Exit, err = s.c.trigger(commanded, s)
	r.Took = time.Since(begun)
	if err != nil && commanded.Err() != nil && ctx.Err() == nil {
		r.Said, r.Exit = fmt.Sprintf("nothing: it had not ended after %v", commandLimit), -1
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("reload %s: %w", s.c.name, err)
	}
	if s.c.waits {
		r.Replaced = r.Exit == 0
		return r, nil
	}
	if r.Exit > 0 { // it was refused
		return r, nil
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		if err := s.whole(old); err == nil {
			r.Took, r.Replaced = time.Since(begun), true
		}
		select {
		case <-limited.Done():
		case <-tick.C:
			if !r.Replaced {
				continue
			}
		}
		tick.Stop()
		if !r.Replaced {
			r.Took = time.Since(begun)
		}
		return r, ctx.Err()
	}
}

// under runs act while clients send what o says, and returns their report. act may wait
// for the load; it begins when every client has been answered.
func (s *stage) under(ctx context.Context, o load.Options, act func(g *load.Generator) error) (*load.Report, error) {
	o.Addr, o.Request, o.Keepalive = s.address(), s.c.request, true
	if o.KeepFailures == 0 {
		o.KeepFailures = 1 << 17
	}
	g, err := load.New(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var report *load.Report
	ended := make(chan error, 1)
	go func() { // ends at Stop below, or with ctx
		var err error
		report, err = g.Run(ctx)
		ended <- err
	}()
	starting, stop := context.WithTimeout(ctx, boot)
	err = g.WaitAnswers(starting, uint64(2*max(o.Conns, 1)))
	stop()
	if err == nil {
		err = act(g)
	}
	if err != nil {
		cancel()
	}
	g.Stop()
	return report, errors.Join(err, <-ended)
}

// rest waits for d, or for the end of ctx.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// chosenContenders returns those of --peers that are installed, and of the others why
// they are left out.
func (l *lab) chosenContenders(ctx context.Context) (chosen []*contender, notes []string) {
	for _, c := range contenders {
		if l.peers != "" && !strings.Contains(","+l.peers+",", ","+c.name+",") {
			continue
		}
		text, err := c.prepare(ctx, l)
		if err != nil {
			notes = append(notes, fmt.Sprintf("%s is left out: %v", c.name, err))
			continue
		}
		chosen = append(chosen, c)
		notes = append(notes, c.name+": "+text)
	}
	return chosen, notes
}
