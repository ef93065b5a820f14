package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// Target is whom to ask, and how.
type Target struct {
	Network, Address string // as net.Dial knows them
	Path             string
	Timeout          time.Duration // of the whole
	// Session is the worker's: only a connection that one of its processes accepts counts.
	// 0: the socket is the worker's own.
	Session int
}

// ErrOther is returned when another worker has accepted the connection, or none has: that
// says nothing about this one.
var ErrOther = errors.New("no connection reached this worker")

// Ask sends one request and returns nil if the answer is good: HTTP with a status from
// 200 to 399.
func Ask(ctx context.Context, t Target) error {
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, t.Network, t.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if t.Session != 0 && !accepted(ctx, conn, t.Session) {
		return ErrOther
	}
	if err := exchange(conn, t.Path); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("no answer within %v", t.Timeout)
		}
		return fmt.Errorf("GET %s: %w", t.Path, err)
	}
	return nil
}

// maxBody is how much of an answer's body is read: its end shows that it is whole.
const maxBody = 1 << 20

// exchange sends the request and judges the answer.
func exchange(conn net.Conn, path string) error {
	request := "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nUser-Agent: preforkd-probe\r\nConnection: close\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errors.New("it closed the connection without an answer")
	}
	if err != nil {
		return fmt.Errorf("no answer in HTTP: %w", err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(answer.Body, maxBody)); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if answer.StatusCode < 200 || answer.StatusCode > 399 {
		return fmt.Errorf("status %d", answer.StatusCode)
	}
	return nil
}
