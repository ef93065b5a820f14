package admin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/testkit"
)

// raw connects and sends text.
func raw(t *testing.T, path, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

const shortWrite = 50 * time.Millisecond

// short serves with limits that a test can wait for.
func short(t *testing.T, s *service) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	server, err := openAt(path, s)
	if err != nil {
		t.Fatal(err)
	}
	server.write = shortWrite
	server.http.ReadHeaderTimeout = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return path
}

// TestLateAnswers: what the service has taken long for is sent all the same, be it an error
// or an answer, also where nothing was written before.
func TestLateAnswers(t *testing.T) {
	const late = 4 * shortWrite
	refused := &ipc.Failure{Exit: ipc.ExitConfig, What: "refused late"}
	s := &service{Log: NewLog(10), reload: func(_ context.Context, r ReloadRequest, _ func(Progress)) (ReloadResult, error) {
		<-time.After(late)
		if r.DryRun {
			return ReloadResult{Message: "late as well"}, nil
		}
		return ReloadResult{}, refused
	}}
	path := short(t, s)
	for query, want := range map[string]string{"": "refused late", "?dry_run=1": "late as well"} {
		c := raw(t, path, "POST /v1/reload"+query+" HTTP/1.1\r\nHost: preforkd\r\nConnection: close\r\n\r\n")
		if text, err := io.ReadAll(c); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%q, %v, want %q", text, err, want)
		}
	}
}

// TestClientThatDoesNotRead costs the service nothing and loses its connection.
func TestClientThatDoesNotRead(t *testing.T) {
	reloaded, gone := make(chan struct{}), make(chan struct{})
	s := &service{Log: NewLog(1000), reload: func(ctx context.Context, _ ReloadRequest, progress func(Progress)) (ReloadResult, error) {
		for range 100_000 {
			progress(Progress{Text: strings.Repeat("x", 100)})
		}
		close(reloaded)
		<-ctx.Done() // it was waited for in vain, and cut off
		close(gone)
		return ReloadResult{}, nil
	}}
	path := short(t, s)
	c := raw(t, path, "POST /v1/reload HTTP/1.1\r\nHost: preforkd\r\n\r\n")
	<-reloaded
	select {
	case <-gone:
	case <-time.After(testkit.Limit):
		t.Fatal("it is never given up")
	}
	c.Close()

	follower := raw(t, path, "GET /v1/events?follow=1 HTTP/1.1\r\nHost: preforkd\r\n\r\n")
	if _, err := bufio.NewReader(follower).ReadString('\n'); err != nil { // the status line: it follows
		t.Fatal(err)
	}
	for range 50_000 {
		s.Append(Event{Text: strings.Repeat("y", 1000)})
	}
	if err := testkit.Await(func() bool {
		s.Append(Event{Text: strings.Repeat("y", 100_000)})
		_, err := follower.Write([]byte("x"))
		return err != nil // EPIPE: the server has closed it
	}); err != nil {
		t.Error("a follower that does not read is kept")
	}
}

func TestSlowHeader(t *testing.T) {
	path := short(t, &service{Log: NewLog(1)})
	for _, text := range []string{"", "GET /v1/sta"} {
		if _, err := io.ReadAll(raw(t, path, text)); err != nil { // until it closes
			t.Error(err)
		}
	}
	answer, err := io.ReadAll(raw(t, path, "GET / HTTP/1.1\r\nX: "+strings.Repeat("x", 32<<10)))
	if err == nil && !strings.Contains(string(answer), " 431 ") {
		t.Errorf("%.100q", answer)
	}
}

// TestTooManyClients: those beyond the limit are closed, and places come back.
func TestTooManyClients(t *testing.T) {
	path, _ := serve(t, &service{Log: NewLog(1), status: func(context.Context) (Status, error) { return Status{}, nil }})
	var held []net.Conn
	for range maxClients {
		c := raw(t, path, "GET /v1/status HTTP/1.1\r\nHost: preforkd\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	one := dial(t, path)
	_, err := one.Status(t.Context())
	checkFailure(t, err, ipc.ExitUnavailable, "log says why")
	for _, c := range held {
		c.Close()
	}
	if err := testkit.Await(func() bool { _, err := one.Status(t.Context()); return err == nil }); err != nil {
		t.Error(err)
	}
}

// TestWrongServer: whatever answers, the client ends with a failure that names the socket.
func TestWrongServer(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
	for _, answer := range []string{
		"", "SSH-2.0\r\n", "HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno", "HTTP/1.1 500 Oh\r\nContent-Length: 10\r\n\r\n{}",
		ok, ok + "{", ok + "[]\n", ok + `{"result":{"exit":300,"message":"x"}}` + "\n", ok + `{"result":{"exit":4}}` + "\n",
		ok + strings.Repeat("x", maxLine+1),
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}\n{}\r\n",
	} {
		path := filepath.Join(t.TempDir(), "s")
		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.WriteString(c, answer)
				}
				c.Close()
			}
		}()
		c := dial(t, path)
		_, err = c.Reload(t.Context(), ReloadRequest{}, nil)
		checkFailure(t, err, ipc.ExitUnavailable, "log")
		if !strings.HasPrefix(answer, ok) || len(answer) == len(ok) || len(answer) > maxLine {
			_, err = c.Status(t.Context())
			checkFailure(t, err, ipc.ExitUnavailable, path)
			_, err = c.Health(t.Context())
			checkFailure(t, err, ipc.ExitUnavailable, path)
		}
		c.Close()
		ln.Close()
		<-ended
	}
}

func TestLinesOfALaterVersionArePassedOver(t *testing.T) {
	l, err := parseReloadLine([]byte(`{"warning":{"text":"x"}}`))
	if err != nil || l.Progress != nil || l.Result != nil {
		t.Error(fmt.Sprint(l), err)
	}
}
