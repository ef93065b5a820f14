package box

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Machine is a box that stays up while a test gives it one command after the other.
type Machine struct {
	t       testing.TB
	dir     string   // shared with the box
	orders  *os.File // open as long as the box is up
	answers *os.File
	lines   *bufio.Reader // of answers
	ended   chan struct{}
	steps   int
}

// serve is what the box runs: a script after the other, each by its number, as they come
// through one pipe; through the other it says which has ended.
const serve = `
exec 3<>/run/test/orders 4<>/run/test/answers
echo up >&4
while read -r n <&3 && [ "$n" != end ]; do
	bash "/run/test/$n" >"/run/test/$n.out" 2>&1 </dev/null 3>&- 4>&-
	echo $? >"/run/test/$n.status"
	echo "$n" >&4
done`

// Boot boots a box that takes commands until the test ends. It has the place /run/test for
// itself.
func Boot(t testing.TB, o Options) *Machine {
	t.Helper()
	need(t, haveSystemd())
	m := &Machine{t: t, dir: t.TempDir(), ended: make(chan struct{})}
	m.orders, m.answers = m.pipe("orders"), m.pipe("answers")
	m.lines = bufio.NewReader(m.answers)
	if o.Share == nil {
		o.Share = map[string]string{}
	}
	o.Share["/run/test"] = m.dir
	if o.Limit == 0 {
		o.Limit = 10 * time.Minute
	}
	cmd := exec.Command(script(t, "systemd-box.sh"), o.arguments(serve)...)
	log := &strings.Builder{}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = log, log, 10*time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the box, which has a limit
		_ = cmd.Wait()
		fmt.Fprintln(m.answers, "down") // whoever waits for an answer
		close(m.ended)
	}()
	t.Cleanup(func() {
		fmt.Fprintln(m.orders, "end")
		<-m.ended
		m.orders.Close()
		m.answers.Close()
		if t.Failed() && log.Len() > 0 {
			t.Logf("the box:\n%s", log)
		}
	})
	if m.hear() != "up" {
		t.Fatal("the box did not come up")
	}
	return m
}

// Run runs a shell script in the box as root.
func (m *Machine) Run(text string) Result {
	m.t.Helper()
	m.steps++
	n := strconv.Itoa(m.steps)
	file := filepath.Join(m.dir, n)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
	fmt.Fprintln(m.orders, n)
	if got := m.hear(); got != n {
		m.t.Fatalf("%s: the box said %q", text, got)
	}
	out, err := os.ReadFile(file + ".out")
	if err != nil {
		m.t.Fatal(err)
	}
	status, err := os.ReadFile(file + ".status")
	if err != nil {
		m.t.Fatal(err)
	}
	exit, err := strconv.Atoi(strings.TrimSpace(string(status)))
	if err != nil {
		m.t.Fatal(err)
	}
	return Result{Out: string(out), Exit: exit}
}

// Must is Run of a script that ends with 0, and returns what it printed.
func (m *Machine) Must(text string) string {
	m.t.Helper()
	r := m.Run(text)
	if r.Exit != 0 {
		m.t.Fatalf("%s: exit status %d:\n%s", text, r.Exit, r.Out)
	}
	return r.Out
}

// pipe makes a named pipe. It is open for both ways, so that it has no end.
func (m *Machine) pipe(name string) *os.File {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		m.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	return f
}

// hear waits for a line of the box; down: it has ended.
func (m *Machine) hear() string {
	line, err := m.lines.ReadString('\n')
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(line)
}
