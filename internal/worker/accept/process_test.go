package accept

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"

	"preforkd/internal/ipc/handoff"
)

const roleEnv = "ACCEPT_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "" {
		os.Exit(m.Run())
	}
	if err := workerProcess(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// workerProcess is a worker in a process of its own: it inherits the socket and the
// queue as descriptors 3 to 5, obeys lines on its input and reports on its output:
// "own ADDRESS" when it serves a connection, "gone ADDRESS" after it has closed it.
func workerProcess() error {
	ln, err := inherited(3)
	if err != nil {
		return err
	}
	q, err := handoff.Open(4, 5)
	if err != nil {
		return err
	}
	name := strconv.Itoa(os.Getpid())
	var mu sync.Mutex // guards standard output
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	patience := duration(os.Getenv("ACCEPT_TEST_PATIENCE"))
	w := newWorker(name, Options{Patience: patience}, q, nil)
	if os.Getenv(roleEnv) == "reporter" {
		w.server.ConnState = func(c net.Conn, s fasthttp.ConnState) {
			if s == fasthttp.StateNew {
				say("own %s", c.RemoteAddr())
			}
			w.pool.State(c, State(s))
			if s == fasthttp.StateClosed {
				say("gone %s", c.RemoteAddr())
			}
		}
	}
	if os.Getenv("ACCEPT_TEST_ACCEPTS") != "" {
		w.serve(w.pool.Listener(ln, 0))
	}
	w.serve(w.pool.Adopter(q, func() bool { return true }))
	say("ready")
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		switch input.Text() {
		case "counts":
			n := w.pool.Counts()
			say("counts %d %d %d %d %d", n.Open, n.Moved, n.Adopted, n.Reclaimed, q.Lost()+q.Dropped())
		case "leave":
			moved, kept := w.pool.Leave(context.Background(), q)
			say("left %d %d", moved, kept)
			w.end()
			return nil
		}
	}
	return nil
}

// child is a worker process as its test sees it.
type child struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    *os.File
	lines chan string // what it reports; closed when it has ended
	own   map[string]bool
	gone  map[string]bool
}

// spawn starts a worker process on s and waits until it serves.
func (s *site) spawn(t testing.TB, role string, accepts bool, patience string) *child {
	t.Helper()
	var socket *os.File
	raw, err := s.ln.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	dup := func(fd int) *os.File {
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(own), "inherited")
	}
	_ = raw.Control(func(fd uintptr) { socket = dup(int(fd)) })
	files := []*os.File{socket, dup(s.read), dup(s.write)}
	in, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, in: input, lines: make(chan string, 4096), own: map[string]bool{}, gone: map[string]bool{}}
	c.cmd = exec.Command("/proc/self/exe", "-test.run=^$")
	c.cmd.Env = append(os.Environ(), roleEnv+"="+role, "ACCEPT_TEST_PATIENCE="+patience, "GORACE=atexit_sleep_ms=0")
	if accepts {
		c.cmd.Env = append(c.cmd.Env, "ACCEPT_TEST_ACCEPTS=1")
	}
	c.cmd.Stdin, c.cmd.ExtraFiles, c.cmd.Stderr = in, files, os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range append(files, in) {
		f.Close()
	}
	go func() { // ends with the process
		defer close(c.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.lines <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		input.Close()
		c.wait()
	})
	c.await("ready")
	return c
}

func (c *child) say(line string) {
	c.t.Helper()
	if _, err := c.in.WriteString(line + "\n"); err != nil {
		c.t.Fatal(err)
	}
}

// await returns the numbers behind the next report that begins with word, and notes
// what is owned meanwhile.
func (c *child) await(word string) (numbers []int) {
	c.t.Helper()
	for line := range c.lines {
		fields := strings.Fields(line)
		c.note(fields)
		if fields[0] != word {
			continue
		}
		for _, f := range fields[1:] {
			n, _ := strconv.Atoi(f)
			numbers = append(numbers, n)
		}
		return numbers
	}
	c.t.Fatalf("worker %d ended before it said %q", c.cmd.Process.Pid, word)
	return nil
}

func (c *child) note(fields []string) {
	switch fields[0] {
	case "own":
		c.own[fields[1]] = true
	case "gone":
		c.gone[fields[1]] = true
	}
}

// kill ends the process as a crash does, and notes what it still said.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	c.wait()
}

func (c *child) wait() {
	for line := range c.lines {
		c.note(strings.Fields(line))
	}
	_ = c.cmd.Wait() // once
}
