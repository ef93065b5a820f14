package box

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

const containers = "container-box.sh"

// Podman runs any podman command on the tests' own store.
func Podman(t testing.TB, args ...string) Result {
	t.Helper()
	need(t, haveContainers())
	return mustRun(t, script(t, containers), append([]string{"podman"}, args...)...)
}

// Base returns the name of an image of Debian 12, to build others on.
func Base(t testing.TB) string {
	t.Helper()
	need(t, haveContainers())
	need(t, haveSystemd()) // which has built the root file system that the image is made of
	const tag = "localhost/box-debian:bookworm-slim"
	mustRun(t, script(t, containers), "base", tag).OK(t)
	return tag
}

// Build builds the Containerfile of a directory, or the one that options name, and returns the
// name of the image. It goes when the test ends.
func Build(t testing.TB, dir string, options ...string) (tag string) {
	t.Helper()
	need(t, haveContainers())
	tag = name("localhost/box-image")
	mustRun(t, script(t, containers), append([]string{"build", tag, dir}, options...)...).OK(t)
	t.Cleanup(func() { Podman(t, "rmi", "--force", tag).OK(t) })
	return tag
}

// Scratch returns the name of an image with nothing in it but a static program, its
// entrypoint. It goes when the test ends.
func Scratch(t testing.TB, program string) (tag string) {
	t.Helper()
	need(t, haveContainers())
	tag = name("localhost/box-scratch")
	mustRun(t, script(t, containers), "bin", tag, program).OK(t)
	t.Cleanup(func() { Podman(t, "rmi", "--force", tag).OK(t) })
	return tag
}

// Run runs a container in the foreground and removes it.
func Run(t testing.TB, options []string, image string, args ...string) Result {
	t.Helper()
	need(t, haveContainers())
	options = append([]string{"run", "--rm"}, options...)
	return mustRun(t, script(t, containers), append(append(options, image), args...)...)
}

// Container is one that runs in the background.
type Container struct {
	t    testing.TB
	Name string
}

// Start starts a container. It is removed when the test ends, and its log printed if that failed.
func Start(t testing.TB, options []string, image string, args ...string) *Container {
	t.Helper()
	need(t, haveContainers())
	c := &Container{t, name("box")}
	options = append([]string{"run", "--detach", "--name", c.Name}, options...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of container %s:\n%s", c.Name, c.Log())
		}
		Podman(t, "rm", "--force", "--ignore", "--time", "0", c.Name).OK(t)
	})
	mustRun(t, script(t, containers), append(append(options, image), args...)...).OK(t)
	return c
}

// Exec runs a command in the container, as its user.
func (c *Container) Exec(args ...string) Result {
	c.t.Helper()
	return Podman(c.t, append([]string{"exec", c.Name}, args...)...)
}

// Log returns what the container has written so far.
func (c *Container) Log() string {
	c.t.Helper()
	return Podman(c.t, "logs", c.Name).Out
}

// Inspect returns what a template of podman-inspect(1) makes of the container.
func (c *Container) Inspect(template string) string {
	c.t.Helper()
	return strings.TrimSpace(Podman(c.t, "inspect", "--format", template, c.Name).OK(c.t))
}

// PID returns the process id, on the host, of the container's first process.
func (c *Container) PID() int {
	c.t.Helper()
	pid, err := strconv.Atoi(c.Inspect("{{.State.Pid}}"))
	if err != nil {
		c.t.Fatal(err)
	}
	return pid
}

// Wait waits until the container has ended and returns its exit status.
func (c *Container) Wait() int {
	c.t.Helper()
	out := Podman(c.t, "wait", c.Name).OK(c.t)
	status, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		c.t.Fatal(err)
	}
	return status
}

var number atomic.Uint64

// name returns one that no other test uses.
func name(prefix string) string {
	return fmt.Sprintf("%s-%d-%d", prefix, os.Getpid(), number.Add(1))
}
