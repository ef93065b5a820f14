package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxHandlers is how many requests of the other side are handled at once; the next one
// is refused with ErrBusy. Reading never stops for them: the reply that a handler itself
// waits for may be behind.
const maxHandlers = 16

// maxRefusals is how many such refusals may wait to be sent.
const maxRefusals = 256

var (
	// ErrEnded: the other side has closed its end, by dying or on purpose.
	ErrEnded = errors.New("the other side of the control channel has ended")
	// ErrClosed: this side has closed the channel.
	ErrClosed = errors.New("the control channel is closed")
)

// Handler answers a request. ctx ends with the asker's deadline, or when the channel has
// ended; an asker that cancels without one is not heard. The result is sent as JSON; an
// *ipc.Failure in the error's chain crosses as it is, another error as its text.
type Handler func(ctx context.Context, body json.RawMessage) (any, error)

// Conn is one end of a channel.
type Conn struct {
	conn     *net.UnixConn
	handlers map[string]Handler
	slots    chan struct{} // holds a token for each handler that runs
	busy     chan uint64   // ids of requests to refuse
	writing  chan struct{} // holds a token while somebody writes; a lock that ends with a context
	done     chan struct{} // closed when the channel has ended
	returned chan struct{} // closed when Run has returned

	mu      sync.Mutex // guards the fields below
	err     error      // why the channel ended
	running bool       // Run was called
	last    uint64     // the id given last
	waiting map[uint64]chan message
}

// New returns one end of the channel that Pair made. It takes over fd, also when it
// returns an error: the descriptor is no socket pair's. handlers are by kind, and no
// longer the caller's; there may be none.
func New(fd int, handlers map[string]Handler) (*Conn, error) {
	f := os.NewFile(uintptr(fd), "control")
	if f == nil {
		return nil, fmt.Errorf("open the control channel: %d is no descriptor", fd)
	}
	defer f.Close() // FileConn has a duplicate
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_SEQPACKET {
		return nil, fmt.Errorf("open the control channel: descriptor %d is no SOCK_SEQPACKET socket", fd)
	}
	nc, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open the control channel: %w", err)
	}
	conn, ok := nc.(*net.UnixConn)
	if !ok {
		nc.Close()
		return nil, fmt.Errorf("open the control channel: descriptor %d is no unix socket", fd)
	}
	return &Conn{
		conn:     conn,
		handlers: handlers,
		slots:    make(chan struct{}, maxHandlers),
		busy:     make(chan uint64, maxRefusals),
		writing:  make(chan struct{}, 1),
		done:     make(chan struct{}),
		returned: make(chan struct{}),
		waiting:  map[uint64]chan message{},
	}, nil
}

// Run reads until the channel ends, and returns when every handler has returned. It is
// called once. The error is nil if ctx or Close ended the channel, ErrEnded if the other
// side did, and otherwise what was wrong with what the other side sent.
func (c *Conn) Run(ctx context.Context) error {
	if !c.begin() {
		return errors.New("run the control channel: it was run before")
	}
	defer close(c.returned)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var started sync.WaitGroup
	started.Go(func() {
		select {
		case <-ctx.Done():
			c.end(ErrClosed)
		case <-c.done:
			cancel() // handlers learn that nobody waits
		}
	})
	started.Go(func() { c.refuseBusy(ctx) })
	c.end(c.read(ctx, &started))
	started.Wait()
	if err := c.Err(); !errors.Is(err, ErrClosed) {
		return err
	}
	return nil
}

// Done is closed when the channel has ended. Handlers may still run; Run waits for them.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the channel has ended; nil before Done is closed.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the channel and waits until Run has returned. A handler must not call it.
func (c *Conn) Close() error {
	c.end(ErrClosed)
	c.mu.Lock()
	running := c.running
	c.mu.Unlock()
	if running {
		<-c.returned
	}
	return nil
}

// begin reports whether the caller is the first to run the channel.
func (c *Conn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.running
	c.running = true
	return first
}

// end ends the channel, once; the first reason counts.
func (c *Conn) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = why
	c.conn.Close() // wakes whoever reads or writes; the other side reads end-of-file
	close(c.done)
}

// read handles packets until the channel ends, and returns why.
func (c *Conn) read(ctx context.Context, started *sync.WaitGroup) error {
	packet := make([]byte, MaxMessage)
	for {
		// Without room for control data the kernel drops descriptors that come along
		// (unix(7)).
		n, _, flags, _, err := c.conn.ReadMsgUnix(packet, nil)
		switch {
		case errors.Is(err, unix.ECONNRESET):
			// It died with requests of ours unread. The kernel says so once, before
			// the packets that it had sent, which are still there; then end-of-file.
			continue
		case errors.Is(err, io.EOF):
			return ErrEnded
		case err != nil:
			return fmt.Errorf("read the control channel: %w", err)
		case flags&unix.MSG_TRUNC != 0:
			return c.giveUp(fmt.Errorf("the other side sent a message of more than %d bytes", MaxMessage))
		}
		m, err := decode(packet[:n])
		if err != nil {
			return c.giveUp(err)
		}
		switch {
		case m.Kind == kindRefusal && m.ID == 0:
			return fmt.Errorf("the other side gave the control channel up: %w", refused(m.Body))
		case m.Kind == kindReply, m.Kind == kindRefusal:
			c.deliver(m)
		default:
			c.dispatch(ctx, started, m)
		}
	}
}

// giveUp tells the other side why this one ends the channel, if there is room for it,
// and returns the reason.
func (c *Conn) giveUp(why error) error {
	c.sendNow(refuse(0, why))
	return why
}

// dispatch starts a handler for a request.
func (c *Conn) dispatch(ctx context.Context, started *sync.WaitGroup, m message) {
	select {
	case c.slots <- struct{}{}:
	default:
		// Not here: two readers that write could wait for each other.
		select {
		case c.busy <- m.ID:
		default: // the asker asks hundreds at once and reads no answers; its context ends its calls
		}
		return
	}
	started.Go(func() {
		defer func() { <-c.slots }()
		c.reply(ctx, c.handle(ctx, m))
	})
}

// reply sends an answer. Where that cannot be done the channel ends: an asker without a
// context would wait for ever.
func (c *Conn) reply(ctx context.Context, packet []byte) {
	err := c.send(ctx, packet)
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrEnded) { // there the reader ends the channel
		c.end(fmt.Errorf("reply on the control channel: %w", err))
	}
}

// refuseBusy sends the refusals that dispatch leaves, until the channel ends.
func (c *Conn) refuseBusy(ctx context.Context) {
	for {
		select {
		case id := <-c.busy:
			c.reply(ctx, refuse(id, ErrBusy))
		case <-ctx.Done():
			return
		}
	}
}

// handle returns the packet that answers m.
func (c *Conn) handle(ctx context.Context, m message) []byte {
	h, ok := c.handlers[m.Kind]
	if !ok {
		return refuse(m.ID, ErrUnknownKind)
	}
	if m.WithinMS > 0 {
		limit := time.Duration(min(m.WithinMS, maxWithin.Milliseconds())) * time.Millisecond
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	result, err := h(ctx, m.Body)
	return answer(m.ID, result, err)
}

// maxWithin bounds the limit that a request may name, so that it is a time.Duration.
const maxWithin = 24 * time.Hour
