package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
)

// Service is what operators steer. Its methods are called from many goroutines; their
// errors reach the operator unchanged where they are *ipc.Failure. ctx is done when
// nobody waits for the answer any more, or the server ends.
type Service interface {
	// Status returns how the service is, within answerLimit.
	Status(ctx context.Context) (Status, error)
	// Health returns how the service is, without waiting for what it is busy with.
	Health(ctx context.Context) Health
	// Reload reloads, or says why it did not. It calls progress, which never blocks, from
	// any goroutine, but not after it has returned. A caller who goes away ends ctx; the
	// service decides what that means.
	Reload(ctx context.Context, r ReloadRequest, progress func(Progress)) (ReloadResult, error)
	// Upgrade replaces the supervisor's program; all else is as for Reload.
	Upgrade(ctx context.Context, r UpgradeRequest, progress func(Progress)) (ReloadResult, error)
	// Rollback returns to an earlier generation; all else is as for Reload.
	Rollback(ctx context.Context, r RollbackRequest, progress func(Progress)) (ReloadResult, error)
	// Generations returns the latest that were committed, the one in charge first.
	Generations(ctx context.Context) ([]Generation, error)
	// Scale changes the size of a pool and returns when it has it, or why it has not; the
	// result has a Pool where something was begun. ctx is as for Reload.
	Scale(ctx context.Context, r ScaleRequest) (ScaleResult, error)
	// Restart replaces workers by new ones of the same generation and returns when it has,
	// or why it has not; the result has a Pool where something was begun. ctx is as for Reload.
	Restart(ctx context.Context, r RestartRequest) (RestartResult, error)
	// Models returns the models of the generation in charge.
	Models(ctx context.Context) ([]Model, error)
	// Release ends the quarantine of a model, if it is quarantined.
	Release(ctx context.Context, name string) (ReleaseResult, error)
	// Load loads a model in the whole service and returns when every worker serves it, or why
	// none does. ctx is as for Reload. upload, if it is not nil, is called before that: it puts the
	// model's files into dir, limit bytes at most.
	Load(ctx context.Context, r ModelRequest, upload func(dir string, limit int64) error) (ModelResult, error)
	// Unload takes a model away from the whole service; all else is as for Load.
	Unload(ctx context.Context, r ModelRequest) (ModelResult, error)
	// Tasks does what an operator wants of background tasks.
	Tasks(ctx context.Context, o ipc.TaskOrder) (ipc.TaskAnswer, error)
	// Stop begins to stop the service and returns at once.
	Stop(ctx context.Context, quick bool) error
	// Events yields what Log.Events does.
	Events(ctx context.Context, after uint64, follow bool) iter.Seq[Event]
}

// Limits of the server. All clients are operators of this machine: these keep a stuck or
// wrong program from costing the service anything, not an enemy.
const (
	maxHeader   = 16 << 10
	maxClients  = 64               // connections; the next is closed at once
	headerLimit = 5 * time.Second  // for a request to arrive
	idleLimit   = 30 * time.Second // between two requests
	writeLimit  = 10 * time.Second // for a client to take what was written
	answerLimit = 10 * time.Second // for the service to answer what needs no waiting
	endLimit    = time.Second      // for last answers once the server shall end
	socketMode  = 0o600
	dirMode     = 0o700
)

// Server serves one admin socket.
type Server struct {
	service Service
	socket  *activation.Socket // nil: the listener was the caller's
	ln      net.Listener
	http    *http.Server
	write   time.Duration  // writeLimit, shorter in tests
	open    sync.WaitGroup // connections
	left    atomic.Bool    // the socket goes on without this server
}

// Bind makes the admin socket at path, in a directory that is made if it is not there. A
// socket whose owner is gone is taken over.
//
// The error is an *ipc.Failure: somebody answers there (69), or the path may not be
// used (77).
func Bind(path string) (*activation.Socket, error) {
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return nil, openFailure(path, err)
	}
	socket, err := activation.Bind(activation.Spec{Network: "unix", Address: path, Mode: socketMode})
	if err != nil {
		return nil, openFailure(path, err)
	}
	return socket, nil
}

// Open returns a server on socket, which it takes over. Who opens a server calls Serve, or
// Close.
func Open(socket *activation.Socket, s Service) (*Server, error) {
	ln, err := socket.Listener()
	socket.FD = -1 // the listener's now; the socket keeps the file, which its Close removes
	if err != nil {
		_ = socket.Close()
		return nil, openFailure(socket.Address, err)
	}
	server := New(ln, s)
	server.socket = socket
	return server, nil
}

// openFailure words err for the setting that names path.
func openFailure(path string, err error) *ipc.Failure {
	f := &ipc.Failure{
		Exit: ipc.ExitUnavailable, What: fmt.Sprintf("open admin socket %s: %v", path, err), Err: err,
		Try: "set admin to another path, or to off",
	}
	var cause *ipc.Failure
	switch {
	case errors.As(err, &cause):
		f.Exit, f.What = cause.Exit, "open admin socket: "+cause.What
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		f.Exit = ipc.ExitPermission
	}
	if f.Exit == ipc.ExitPermission {
		f.Try = "let this user write " + filepath.Dir(path) + " (in a container: mount a tmpfs there), or set admin to another path, or to off"
	}
	return f
}

// New returns a server on ln, which it owns. Who makes a server calls Serve, or Close.
func New(ln net.Listener, s Service) *Server {
	server := &Server{service: s, ln: activation.Few(ln, maxClients), write: writeLimit}
	server.http = &http.Server{
		Handler: server.routes(), ReadHeaderTimeout: headerLimit, IdleTimeout: idleLimit, MaxHeaderBytes: maxHeader,
		// A client that sends nonsense is told so; nobody else needs to read of it.
		ErrorLog: log.New(io.Discard, "", 0),
		ConnState: func(_ net.Conn, st http.ConnState) {
			switch st {
			case http.StateNew:
				server.open.Add(1)
			case http.StateClosed:
				server.open.Done()
			}
		},
	}
	return server
}

// Serve answers until ctx is done, then lets last answers leave for a moment, and
// returns when everything it started has ended and the socket is removed. It waits for
// the Service's methods, whose ctx is done by then. It may be called once.
func (s *Server) Serve(ctx context.Context) error {
	requests, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.http.BaseContext = func(net.Listener) context.Context { return requests }
	ended := make(chan error, 1)
	go func() { ended <- s.http.Serve(s.ln) }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		s.remove() // before the listener closes: then nobody is refused by a file without an owner
		last, stop := context.WithTimeout(context.Background(), endLimit)
		followers := time.AfterFunc(endLimit/4, cancel) // they would wait for more events
		_ = s.http.Shutdown(last)
		followers.Stop()
		stop()
		<-ended
	}
	cancel()
	_ = s.http.Close()
	s.remove()
	s.open.Wait()
	if err != nil {
		return fmt.Errorf("serve admin socket: %w", err)
	}
	return nil
}

// Leave leaves the socket's file to another server of the same socket.
func (s *Server) Leave() { s.left.Store(true) }

// Close closes a server that was not served.
func (s *Server) Close() {
	s.remove()
	s.ln.Close()
}

// remove removes the socket's file.
func (s *Server) remove() {
	if s.socket != nil && !s.left.Load() {
		_ = s.socket.Close()
		s.socket = nil
	}
}
