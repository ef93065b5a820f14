package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// answering serves each connection on ln with the same bytes, until the test ends.
func answering(t *testing.T, ln net.Listener, bytes string) {
	t.Helper()
	ended := make(chan struct{})
	go func() { // ends with ln
		defer close(ended)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = io.WriteString(conn, bytes)
			conn.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-ended })
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct{ name, answer, want string }{
		{"good", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ""},
		{"redirect", "HTTP/1.0 302 Found\r\n\r\n", ""},
		{"error", "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "status 503"},
		{"not found", "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "status 404"},
		{"garbage", "SSH-2.0-OpenSSH_9.2\r\n", "no answer in HTTP"},
		{"nothing", "", "closed the connection without an answer"},
		{"cut off", "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", "read the answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			answering(t, ln, c.answer)
			err = Ask(context.Background(), Target{Network: "unix", Address: path, Path: "/x", Timeout: time.Minute})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestNobodyAnswers(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // connections wait for Accept
	target := Target{Network: "tcp", Address: ln.Addr().String(), Path: "/", Timeout: 50 * time.Millisecond}
	if err := Ask(context.Background(), target); err == nil || !strings.Contains(err.Error(), "no answer within 50ms") {
		t.Error(err)
	}
	target.Session = session(t)
	if err := Ask(context.Background(), target); !errors.Is(err, ErrOther) {
		t.Error(err)
	}
}

// TestOnlyItsOwnAnswers: at a shared socket the answer of another process is none.
func TestOnlyItsOwnAnswers(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::]:0"} {
		ln, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		answering(t, ln, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		target := Target{Network: "tcp", Address: "127.0.0.1:" + port, Path: "/", Timeout: time.Minute, Session: session(t)}
		if err := Ask(context.Background(), target); err != nil {
			t.Errorf("%s: our own answer: %v", address, err)
		}
		other := exec.Command("/bin/sleep", "1h")
		other.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		target.Session = other.Process.Pid
		if err := Ask(context.Background(), target); !errors.Is(err, ErrOther) {
			t.Errorf("%s: another one's answer: %v", address, err)
		}
		_ = other.Process.Kill()
		_ = other.Wait()
	}
}

func session(t *testing.T) int {
	t.Helper()
	if s := sessionOf(os.Getpid()); s != 0 {
		return s
	}
	return os.Getpid()
}
