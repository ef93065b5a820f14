package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"preforkd/internal/ipc"
)

// Call asks the other side and waits for its reply, which it decodes into reply unless
// that is nil. body is sent as JSON; nil is null.
//
// The error is the handler's *ipc.Failure, unchanged; or wraps ErrUnknownKind, ErrBusy,
// ErrEnded, ErrClosed or the end of ctx; or is the handler's text. The other side's
// handler is told how long ctx leaves. When ctx ends before the reply, whether the
// handler ran is not known.
func (c *Conn) Call(ctx context.Context, kind string, body, reply any) error {
	m, err := c.ask(ctx, kind, body)
	if err != nil {
		return fmt.Errorf("ask for %s: %w", kind, err)
	}
	if m.Kind == kindRefusal {
		return refusedCall(kind, m.Body)
	}
	if reply == nil {
		return nil
	}
	if err := json.Unmarshal(m.Body, reply); err != nil {
		return fmt.Errorf("ask for %s: decode the reply: %w", kind, err)
	}
	return nil
}

// ask sends a request and returns the packet that answers it.
func (c *Conn) ask(ctx context.Context, kind string, body any) (message, error) {
	if kind == "" || kind == kindReply || kind == kindRefusal {
		return message{}, errors.New("this is no kind of request")
	}
	var within time.Duration
	if deadline, ok := ctx.Deadline(); ok {
		within = time.Until(deadline)
	}
	id, arrived := c.expect()
	defer c.forget(id)
	data, err := request(kind, id, body, within)
	if err != nil {
		return message{}, err
	}
	if err := c.send(ctx, data); err != nil {
		return message{}, err
	}
	select {
	case m := <-arrived:
		return m, nil
	case <-ctx.Done():
		return message{}, context.Cause(ctx)
	case <-c.done:
	}
	select {
	case m := <-arrived: // the last thing it did
		return m, nil
	default:
		return message{}, c.Err()
	}
}

// refusedCall is the error of a call whose answer is a refusal with body.
func refusedCall(kind string, body json.RawMessage) error {
	err := refused(body)
	if _, ok := err.(*ipc.Failure); ok {
		return err
	}
	return fmt.Errorf("ask for %s: %w", kind, err)
}

// expect returns a new id and where its answer will arrive.
func (c *Conn) expect() (uint64, <-chan message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	arrived := make(chan message, 1)
	c.waiting[c.last] = arrived
	return c.last, arrived
}

func (c *Conn) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// deliver gives an answer to its call. One that nobody waits for any more is dropped.
func (c *Conn) deliver(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if arrived, ok := c.waiting[m.ID]; ok {
		delete(c.waiting, m.ID) // a second answer must not block here
		arrived <- m
	}
}

// send writes a packet whole or not at all, waiting for room until ctx or the channel
// ends.
func (c *Conn) send(ctx context.Context, data []byte) error {
	select {
	case c.writing <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.done:
		return c.Err()
	}
	defer func() { <-c.writing }()
	if err := c.conn.SetWriteDeadline(time.Time{}); err != nil {
		return c.because(ctx, err)
	}
	late := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(late)
		_ = c.conn.SetWriteDeadline(time.Unix(1, 0)) // the past; a closed channel needs none
	})
	_, err := c.conn.Write(data)
	if !stop() {
		<-late // or it would meet the next writer
	}
	return c.because(ctx, err)
}

// because returns err as the callers of this package know it.
func (c *Conn) because(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return context.Cause(ctx)
	case errors.Is(err, net.ErrClosed):
		return c.Err()
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		return ErrEnded // the reader ends the channel, after what is still to be read
	}
	return err
}

// sendNow writes a packet if there is room this moment, and otherwise drops it.
func (c *Conn) sendNow(data []byte) {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return
	}
	// Control, not Write: that would wait for a writer who waits for room.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.Sendmsg(int(fd), data, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
}
