package box_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"preforkd/internal/testkit/box"
)

// TestSystemd boots twice at once: each is alone in its box, and reads what it was given.
func TestSystemd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("given\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := box.Systemd(t, box.Options{Bind: map[string]string{"/srv/file": file}}, `
				systemctl is-system-running
				cat /srv/file /proc/1/comm
				ls /tmp/mark 2>/dev/null; touch /tmp/mark
				echo no >/srv/file
				exit 7`)
			if r.Exit != 7 || !strings.HasPrefix(r.Out, "running\ngiven\nsystemd\n") || !strings.Contains(r.Out, "Read-only file system") || strings.Contains(r.Out, "mark") {
				t.Errorf("exit status %d:\n%s", r.Exit, r.Out)
			}
		})
	}
}

const static = `package main

import "fmt"

func main() { fmt.Println("static") }
`

func TestContainer(t *testing.T) {
	dir := t.TempDir()
	source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "main")
	if err := os.WriteFile(source, []byte(static), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", program, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	image := box.Scratch(t, program)
	if out := box.Run(t, []string{"--network", "none", "--read-only"}, image).OK(t); out != "static\n" {
		t.Errorf("it printed %q", out)
	}
	c := box.Start(t, []string{"--network", "none"}, image)
	if status := c.Wait(); status != 0 || c.Log() != "static\n" {
		t.Errorf("exit status %d, log %q", status, c.Log())
	}
}

// TestBoot gives one box several commands.
func TestBoot(t *testing.T) {
	m := box.Boot(t, box.Options{})
	if out := m.Must("echo one; touch /tmp/mark"); out != "one\n" {
		t.Errorf("%q", out)
	}
	if r := m.Run("ls /tmp/mark; echo two >&2; cat; exit 3"); r.Exit != 3 || r.Out != "/tmp/mark\ntwo\n" {
		t.Errorf("%d: %q", r.Exit, r.Out)
	}
}
