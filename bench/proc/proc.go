package proc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Spec says what to start.
type Spec struct {
	Name string   // for messages
	Args []string // the program and its arguments
	Env  []string // KEY=VALUE, beside those of the benchmark
	Dir  string   // working directory; empty: the benchmark's
	Log  string   // file for its output; it is overwritten
}

// Proc is a process that was started, with its descendants.
type Proc struct {
	spec    Spec
	cmd     *exec.Cmd
	started time.Time
	line    chan Line     // the first line of its standard output
	ended   chan struct{} // closed when it has ended and was reaped
	err     error         // how it ended; read after ended
	copied  chan struct{} // closed when nobody can write to its output any more
	seen    map[int]uint64
}

// Line is a line of output and when it came.
type Line struct {
	Text string
	At   time.Time
}

// Start starts a process.
func Start(s Spec) (*Proc, error) {
	log, err := os.Create(s.Log)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(s.Args[0], s.Args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stderr = append(os.Environ(), s.Env...), s.Dir, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// A pipe of our own: that of exec.Cmd is closed when the process has ended, while
	// a descendant may still write.
	out, in, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	cmd.Stdout = in
	p := &Proc{
		spec: s, cmd: cmd, started: time.Now(), line: make(chan Line, 1),
		ended: make(chan struct{}), copied: make(chan struct{}), seen: map[int]uint64{},
	}
	err = cmd.Start()
	_ = in.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", s.Name, err), out.Close(), log.Close())
	}
	go p.follow(out, log) // ends with the last process of the tree; Stop waits
	go func() {           // ends with the process; Stop waits
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// follow hands over the first line of the output and copies all of it to log.
func (p *Proc) follow(out, log *os.File) {
	defer close(p.copied)
	defer log.Close() //nolint:errcheck // for people to read; nothing depends on it
	defer out.Close() //nolint:errcheck // it was only read
	r := bufio.NewReader(out)
	if text, err := r.ReadString('\n'); err == nil {
		p.line <- Line{strings.TrimSuffix(text, "\n"), time.Now()}
		_, _ = io.WriteString(log, text)
	}
	_, _ = io.Copy(log, r)
}

// PID returns the process's id.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Started returns when the process was started.
func (p *Proc) Started() time.Time { return p.started }

// FirstLine waits for the first line of the standard output.
func (p *Proc) FirstLine(ctx context.Context) (Line, error) {
	select {
	case line := <-p.line:
		return line, nil
	case <-p.ended:
		return Line{}, p.early()
	case <-ctx.Done():
		return Line{}, fmt.Errorf("%s wrote no line: %w", p.spec.Name, ctx.Err())
	}
}

// AwaitReady calls check every few milliseconds until it returns nil. The error is
// that of the last check, or says that the process has ended.
func (p *Proc) AwaitReady(ctx context.Context, check func() error) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return p.early()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (%w)", p.spec.Name, err, ctx.Err())
		case <-tick.C:
		}
	}
}

// early is the error of a process that ended before it was told to.
func (p *Proc) early() error {
	text, err := os.ReadFile(p.spec.Log)
	if err != nil {
		return err
	}
	if len(text) > 2000 {
		text = text[len(text)-2000:]
	}
	return fmt.Errorf("%s has ended (%v); its last words:\n%s", p.spec.Name, p.err, text)
}

// Stop ends the process with TERM, or within grace with KILL, and every descendant
// that is left. It returns when the process is reaped
// and its output is copied.
func (p *Proc) Stop(grace time.Duration) {
	p.notice()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
		p.notice()
		_ = p.cmd.Process.Kill()
	}
	for pid, birth := range p.seen {
		if pid == p.PID() {
			continue // only Wait knows whether its pid is still its own
		}
		// The pid may be another's by now; it is not if the time of birth is the same.
		if s, err := readStat(pid); err == nil && s.birth == birth && s.state != 'Z' {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	<-p.ended
	<-p.copied
}

// FreePort returns a TCP port of 127.0.0.1 that nobody listened on a moment ago.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
