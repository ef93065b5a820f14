package notify

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxMessage is the largest text taken, in bytes. A worker's Failure is the longest.
const maxMessage = 64 << 10

// Message is one datagram.
type Message struct {
	PID  int // of the sender, as the kernel saw it
	Text string
	// Descriptors came along. They are close-on-exec and the handler's, on a server made by
	// Serve; elsewhere there are none.
	Descriptors []int
}

// Get returns the value of the last line KEY=value, and whether there was one.
func (m Message) Get(key string) (value string, ok bool) {
	for line := range strings.SplitSeq(m.Text, "\n") {
		if v, found := strings.CutPrefix(line, key+"="); found {
			value, ok = v, true
		}
	}
	return value, ok
}

// Server receives messages until Close.
type Server struct {
	conn        *net.UnixConn
	descriptors bool // are wanted
	done        chan struct{}
}

// Listen makes a notify socket with an abstract name of its own, which vanishes with
// the process and needs no directory. handle is called for each message, by one
// goroutine; messages wait in the kernel while it runs.
func Listen(handle func(Message)) (*Server, error) {
	name := fmt.Sprintf("@preforkd/%d/%s", os.Getpid(), rand.Text())
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: name})
	if err != nil {
		return nil, fmt.Errorf("listen on notify socket %s: %w", name, err)
	}
	return begin(&Server{conn: conn}, handle)
}

// begin starts s.
func begin(s *Server, handle func(Message)) (*Server, error) {
	if err := passCredentials(s.conn); err != nil {
		s.conn.Close()
		return nil, fmt.Errorf("ask for credentials on a notify socket: %w", err)
	}
	s.done = make(chan struct{})
	go s.receive(handle)
	return s, nil
}

func passCredentials(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}); err != nil {
		return err
	}
	return set
}

// Name is the value for NOTIFY_SOCKET.
func (s *Server) Name() string { return s.conn.LocalAddr().String() }

// Flush returns when the handler has returned for every message that had been sent by now. A
// process may have ended before what it said last is heard. Not to be called by the handler.
func (s *Server) Flush() error {
	c, err := Dial(s.Name())
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Barrier()
}

// Close ends the server and waits until its handler has returned.
func (s *Server) Close() error {
	err := s.conn.Close()
	<-s.done
	return err
}

func (s *Server) receive(handle func(Message)) {
	defer close(s.done)
	text := make([]byte, maxMessage)
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*maxDescriptors))
	for {
		n, oobn, flags, _, err := s.conn.ReadMsgUnix(text, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // a message that could not be received concerns nobody else
		}
		pid, fds := control(oob[:oobn])
		m := Message{PID: pid, Text: string(text[:n])}
		if s.descriptors && pid > 0 {
			m.Descriptors, fds = fds, nil
		}
		if pid > 0 && flags&unix.MSG_TRUNC == 0 {
			handle(m)
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

// maxDescriptors is the kernel's limit for one message, SCM_MAX_FD (unix(7)).
const maxDescriptors = 253

func control(oob []byte) (pid int, fds []int) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, nil
	}
	for i := range messages {
		if cred, err := syscall.ParseUnixCredentials(&messages[i]); err == nil {
			pid = int(cred.Pid)
			continue
		}
		if len(messages[i].Data)%4 != 0 { // no whole descriptors: ParseUnixRights would panic
			continue
		}
		if got, err := syscall.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return pid, fds
}
