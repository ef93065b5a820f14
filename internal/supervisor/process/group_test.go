package process

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// TestGroupEndsWithTheProcess: what a process that has ended leaves behind is killed.
func TestGroupEndsWithTheProcess(t *testing.T) {
	lines := make(chan string, 10)
	p, err := Start(Spec{
		Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 1000 & echo $!; pwd"}, Env: os.Environ(), Dir: t.TempDir(), Group: true,
		Line: func(_ int, l string) { lines <- l },
	})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	child, err := strconv.Atoi(<-lines)
	if err != nil {
		t.Fatal(err)
	}
	if dir := <-lines; dir == "/" {
		t.Errorf("it ran in %s", dir)
	}
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) { // its parent is gone: only its number can be asked for
		if syscall.Kill(child, 0) == syscall.ESRCH || zombie(child) {
			return
		}
		runtime.Gosched()
	}
	_ = syscall.Kill(child, syscall.SIGKILL)
	t.Errorf("child %d still runs", child)
}

// zombie tells whether pid has ended and waits for whoever reaps orphans here.
func zombie(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	for i := len(data) - 1; i > 0; i-- {
		if data[i] == ')' {
			return data[i+2] == 'Z' || data[i+2] == 'X'
		}
	}
	return false
}
