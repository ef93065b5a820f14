package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/supervisor/process"
	"preforkd/internal/testkit"
)

// TestMain lets this program be the exec step of the workers that the test starts.
func TestMain(m *testing.M) {
	if process.IsStep(os.Args) {
		fmt.Fprintln(os.Stderr, process.RunStep(os.Args))
		os.Exit(69)
	}
	os.Exit(m.Run())
}

// TestGoroutinesEnd runs a whole service within the test's process and kills a hundred
// of its workers: what the supervisor started for them has ended with them.
func TestGoroutinesEnd(t *testing.T) {
	cfg := config.Default()
	cfg.Listen = []config.Address{{Network: "tcp", Addr: "127.0.0.1:0"}}
	cfg.Workers = 2
	if os.Getuid() == 0 {
		cfg.User = "root"
	}
	cfg.Models.Dir = filepath.Join(testkit.Root(t), "models")
	cfg.Cache.Dir = filepath.Join(testkit.Root(t), ".cache", "test-models")
	cfg.Worker.Command = []string{filepath.Join(testkit.Programs(t), "preforkd-worker")}
	cfg.Worker.MaxCrashes, cfg.Worker.MaxBackoff = 1000, time.Millisecond
	cfg.Log.File = filepath.Join(t.TempDir(), "log")

	start := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out := &firstLine{done: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- New(Options{Config: &cfg, Version: "test", Out: out}).Run(ctx) }()
	select {
	case <-out.done:
	case err := <-ended:
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	killed := map[int]bool{}
	for range 100 {
		victim := 0
		if err := testkit.Await(func() bool {
			for _, pid := range testkit.Children(t, os.Getpid()) {
				name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
				if !killed[pid] && strings.HasPrefix(string(name), "preforkd-worker") {
					victim = pid
					return true
				}
			}
			return false
		}); err != nil {
			t.Fatal(err)
		}
		killed[victim] = true
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if err := testkit.Await(func() bool { return runtime.NumGoroutine() <= before }); err != nil {
		t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := testkit.Await(func() bool { return runtime.NumGoroutine() <= start+1 }); err != nil { // package signal keeps one
		t.Errorf("%d goroutines, %d at the start:\n%s", runtime.NumGoroutine(), start, stacks())
	}
}

func stacks() []byte {
	buf := make([]byte, 1<<20)
	return buf[:runtime.Stack(buf, true)]
}

// firstLine tells when something was written.
type firstLine struct {
	bytes.Buffer
	done chan struct{}
}

func (f *firstLine) Write(p []byte) (int, error) {
	if f.Len() == 0 {
		defer close(f.done)
	}
	return f.Buffer.Write(p)
}

func TestRecordsOfWorkersKeepTheirLevel(t *testing.T) {
	for _, c := range []struct{ line, plain string }{
		{`{"time":"2026-01-01T00:00:00Z","level":"WARN","msg":"drain given up","lost":3,"took":"1s"}`, "drain given up lost=3 took=1s"},
		{`{"level":"LOUD","msg":"x"}`, `{"level":"LOUD","msg":"x"}`},
		{`{"msg":"x"}`, `{"msg":"x"}`},
		{`{"level":"INFO","msg":7}`, `{"level":"INFO","msg":7}`},
		{`panic: runtime error`, `panic: runtime error`},
		{`{`, `{`},
	} {
		if got := plain(c.line); got != c.plain {
			t.Errorf("%s: %s", c.line, got)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(`{"level":"WARN","msg":"x","a":{"b":[1]}}`)
	f.Add(`{"level":"`)
	f.Fuzz(func(t *testing.T, line string) {
		if r, ok := parseRecord(line); ok && r.msg == "" && !strings.Contains(line, `""`) {
			t.Errorf("%q is a record without a message", line)
		}
	})
}
