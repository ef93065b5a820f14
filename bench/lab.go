package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// lab is what scenarios share: the command line, places, and the machine.
type lab struct {
	options
	root     string // of the repository
	dir      string // bench/out
	library  string // ONNX Runtime
	samples  []digit
	machine  machine
	out      io.Writer // the tables
	progress io.Writer
}

// machine is where and when it was measured.
type machine struct {
	Processor string    `json:"processor"`
	Cores     int       `json:"cores"`
	Kernel    string    `json:"kernel"`
	Go        string    `json:"go"`
	Began     time.Time `json:"began"`
	Load      string    `json:"load"` // averages when it began, proc_loadavg(5)
}

func newLab(ctx context.Context, o options, out, progress io.Writer) (*lab, error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	l := &lab{options: o, root: root, dir: filepath.Join(root, "bench", "out"), out: out, progress: progress}
	l.machine = describe()
	if o.build {
		l.say("building")
		if err := l.command(ctx, "make", "--no-print-directory", "build"); err != nil {
			return nil, err
		}
	}
	if l.library = os.Getenv("ONNXRUNTIME"); l.library == "" {
		l.library = filepath.Join(root, "bin", "libonnxruntime.so.1")
	}
	for _, dir := range []string{"bin", "logs"} {
		if err := os.MkdirAll(filepath.Join(l.dir, dir), 0o755); err != nil {
			return nil, err
		}
	}
	// Copies: whoever builds meanwhile does not change what is measured.
	for _, name := range []string{"preforkd", "preforkd-anchor", "preforkd-worker", "preforkd-broker"} {
		if err := l.command(ctx, "cp", "--remove-destination", filepath.Join("bin", name), l.bin(name)); err != nil {
			return nil, err
		}
	}
	l.samples, err = readDigits(filepath.Join(root, "testdata", "digits"))
	return l, err
}

// repository returns the folder at or above the working directory that has a go.mod.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("run it within the repository")
		}
		dir = filepath.Dir(dir)
	}
}

func describe() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Began: time.Now()}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.Processor = strings.TrimSpace(value)
			}
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(text))
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(text))[:3], " ")
	}
	return m
}

// String is the machine in one line.
func (m machine) String() string {
	return fmt.Sprintf("%d cores of %s, Linux %s, %s, %s; load averages before: %s",
		m.Cores, m.Processor, m.Kernel, m.Go, m.Began.UTC().Format("2006-01-02 15:04 UTC"), m.Load)
}

func (l *lab) say(format string, args ...any) { fmt.Fprintf(l.progress, format+"\n", args...) }

// bin returns the path of a program that was built for the benchmarks.
func (l *lab) bin(name string) string { return filepath.Join(l.dir, "bin", name) }

// buildPeer builds a program of bench/peers.
func (l *lab) buildPeer(ctx context.Context, name string) error {
	return l.command(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", l.bin(name), "./bench/peers/"+name)
}

// command runs a command in the repository; its output is in the error if it fails.
func (l *lab) command(ctx context.Context, name string, args ...string) error {
	_, err := l.output(ctx, name, args...)
	return err
}

// output is command, and returns the standard output.
func (l *lab) output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = l.root
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out.Bytes(), errOut.Bytes())
	}
	return out.String(), nil
}

// publish prints r and writes its files.
func (l *lab) publish(s scenario, r *result) error {
	var text, md strings.Builder
	fmt.Fprintf(&text, "\n%s\n%v\n\n", r.Title, l.machine)
	fmt.Fprintf(&md, "## %s\n\n%v\n\n", r.Title, l.machine)
	tables := r.Tables
	if len(r.Goals) > 0 {
		tables = append(tables, goalTable(r.Goals))
	}
	for _, t := range tables {
		t.text(&text)
		t.markdown(&md)
		text.WriteByte('\n')
		md.WriteByte('\n')
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&text, "%s\n", n)
		fmt.Fprintf(&md, "- %s\n", n)
	}
	if _, err := io.WriteString(l.out, text.String()); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(map[string]any{"scenario": s.name, "machine": l.machine, "result": r}, "", "  ")
	if err != nil {
		return err
	}
	base := filepath.Join(l.dir, s.name)
	return errors.Join(os.WriteFile(base+".md", []byte(md.String()), 0o644), os.WriteFile(base+".json", append(raw, '\n'), 0o644))
}
