package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func shell(t *testing.T, script string) *Proc {
	t.Helper()
	p, err := Start(Spec{Name: "shell", Args: []string{"/bin/sh", "-c", script}, Log: filepath.Join(t.TempDir(), "log")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(time.Second) })
	return p
}

// TestCPUCountsTheTree: the time of the shell, of a child that it has reaped, and of
// one that still runs.
func TestCPUCountsTheTree(t *testing.T) {
	const burn = `i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done`
	p := shell(t, `(`+burn+`); echo reaped; (`+burn+`; sleep 1000) & wait`)
	if line, err := p.FirstLine(t.Context()); err != nil || line.Text != "reaped" {
		t.Fatalf("%+v, %v", line, err)
	}
	first, err := p.CPU()
	if err != nil || first < 20*time.Millisecond {
		t.Errorf("%v, %v: the reaped child is not counted", first, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.AwaitReady(ctx, func() error {
		if second, err := p.CPU(); err != nil || second < first+20*time.Millisecond {
			return fmt.Errorf("%v, then %v, %w", first, second, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if pss, err := PSS(p.PID()); err != nil || pss < 10<<10 {
		t.Errorf("%d bytes, %v", pss, err)
	}
}

// TestStopLeavesNobody: a child in a session of its own that ignores TERM, and one that
// outlives its parent.
func TestStopLeavesNobody(t *testing.T) {
	p := shell(t, `setsid sh -c 'trap "" TERM; echo up; while :; do sleep 0.1; done' & sleep 1000 & wait`)
	if _, err := p.FirstLine(t.Context()); err != nil {
		t.Fatal(err)
	}
	tree, err := p.Tree()
	if err != nil || len(tree) < 3 || tree[0] != p.PID() {
		t.Fatalf("%v, %v", tree, err)
	}
	p.Stop(time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for slices.ContainsFunc(tree, alive) { // killed processes take a moment to go
		if ctx.Err() != nil {
			t.Fatalf("of %v some are alive", tree)
		}
	}
}

func alive(pid int) bool {
	s, err := readStat(pid)
	return err == nil && s.state != 'Z'
}

func TestEarlyEndSaysItsLastWords(t *testing.T) {
	p := shell(t, `echo no such port >&2; exit 3`)
	_, err := p.FirstLine(t.Context())
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such port") {
		t.Errorf("%v", err)
	}
	err = p.AwaitReady(t.Context(), func() error { return errors.New("not yet") })
	if err == nil || !strings.Contains(err.Error(), "no such port") {
		t.Errorf("%v", err)
	}
}

func TestStatOfAnOddName(t *testing.T) {
	s, err := readStat(os.Getpid())
	if err != nil || s.pid != os.Getpid() || s.parent != syscall.Getppid() || s.birth == 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if cpu, err := SelfCPU(); err != nil || cpu <= 0 {
		t.Errorf("%v, %v", cpu, err)
	}
}
