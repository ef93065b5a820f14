package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/store"
)

// account is the one that all streams are in: nats-server's, for clients without one.
const account = "$G"

const (
	// maxMessage is the largest message: a result in parts needs less.
	maxMessage = 8 << 20
	// noLimit is the server's own: streams reserve what they may take, and beyond a limit they
	// could not be made, or found again when the disk has become fuller. The watchdog keeps to ours.
	noLimit = 1 << 60
	// bootLimit is how long the server may take to read its store.
	bootLimit = 2 * time.Minute
	// canaryStream and canarySubject are what the watchdog writes to.
	canaryStream  = "PREFORKD_CANARY"
	canarySubject = "preforkd.canary"
	canaryLimit   = 2 * time.Second
)

type engineOptions struct {
	dir   string
	port  int
	sync  time.Duration
	gate  *gate
	log   *slog.Logger
	state func() *store.State
}

// engine is the server, and this process's own client of it.
type engine struct {
	srv *server.Server
	nc  *nats.Conn
	js  jetstream.JetStream
	log *printer
}

func startEngine(ctx context.Context, o engineOptions) (*engine, error) {
	opts := &server.Options{
		ServerName: "preforkd", Host: "127.0.0.1", Port: o.port, NoSigs: true, NoSystemAccount: true,
		JetStream: true, StoreDir: o.dir, JetStreamMaxStore: noLimit, JetStreamMaxMemory: 16 << 20, DisableJetStreamBanner: true,
		SyncAlways: o.sync == 0, SyncInterval: o.sync, MaxPayload: maxMessage, CustomClientAuthentication: o.gate,
	}
	if o.sync == 0 {
		opts.SyncInterval = 2 * time.Minute // of what SyncAlways leaves out
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("make the task queue's server: %w", err)
	}
	said := &printer{log: o.log, gate: o.gate}
	srv.SetLoggerV2(said, false, false, false)
	go srv.Start() // ends with stop
	if !said.ready(srv) {
		srv.Shutdown()
		srv.WaitForShutdown()
		why := said.worst()
		return nil, &ipc.Failure{
			Exit: ipc.ExitUnavailable, What: fmt.Sprintf("start the task queue on %s with its store %s: %s", store.Access{Port: o.port}.Address(), o.dir, why),
			Try: "free the address, or the directory's disk; preforkd tries again",
		}
	}
	e := &engine{srv: srv, log: said}
	if e.nc, err = nats.Connect("", nats.InProcessServer(srv), nats.Token(o.gate.ownToken), nats.MaxReconnects(-1)); err == nil {
		if e.js, err = jetstream.New(e.nc); err == nil {
			_, err = e.nc.Subscribe(store.StateSubject, func(m *nats.Msg) {
				data, _ := json.Marshal(o.state()) // strings and numbers always encode
				_ = m.Respond(data)
			})
		}
	}
	if err != nil {
		e.stop()
		return nil, fmt.Errorf("speak to the task queue's own server: %w", err)
	}
	return e, ctx.Err()
}

func (e *engine) stop() {
	if e == nil {
		return
	}
	if e.nc != nil {
		e.nc.Close()
	}
	e.srv.Shutdown()
	e.srv.WaitForShutdown()
}

// announce tells clients how the broker is by now.
func (e *engine) announce(s *store.State) {
	data, _ := json.Marshal(s)
	_ = e.nc.Publish(store.StateSubject+".changed", data)
}

// makeCanary makes what the watchdog writes to, and writes once.
func (e *engine) makeCanary(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	_, err := e.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: canaryStream, Subjects: []string{canarySubject}, MaxMsgs: 1, Storage: jetstream.FileStorage,
	})
	if err == nil {
		_, err = e.js.Publish(ctx, canarySubject, nil)
	}
	if err != nil {
		return &ipc.Failure{Exit: ipc.ExitUnavailable, What: fmt.Sprintf("write to the task queue's store: %v", err), Err: err, Try: "make room on its disk; preforkd tries again"}
	}
	return nil
}

var errNoEngine = errors.New("the queue's server has stopped writing")

// wounded tells that the server has given up writing, to one of its streams or to all: after an
// error of the disk it does not try again before it is started anew.
func (e *engine) wounded() bool { return e.log.wounds.Load() > 0 || !e.srv.JetStreamEnabled() }

// canary writes once, within canaryLimit.
func (e *engine) canary(ctx context.Context) error {
	if e.wounded() {
		return errNoEngine
	}
	ctx, cancel := context.WithTimeout(ctx, canaryLimit)
	defer cancel()
	_, err := e.js.Publish(ctx, canarySubject, nil, jetstream.WithRetryAttempts(0))
	return err
}

// used is what is stored, in bytes.
func (e *engine) used() uint64 {
	info, err := e.srv.Jsz(nil)
	if err != nil {
		return 0
	}
	return info.Store
}

// printer is the server's logger. What it says in the normal course of things is for those who
// look for it.
type printer struct {
	log  *slog.Logger
	gate *gate

	wounds atomic.Int64 // streams that are not written to any more
	fatal  atomic.Bool  // the server does not start

	mu   sync.Mutex // guards last
	last string     // of its errors
}

func (p *printer) note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = text
}

// worst returns the last error.
func (p *printer) worst() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == "" {
		return "it does not become ready"
	}
	return p.last
}

func (p *printer) Noticef(format string, v ...any) {
	p.log.Debug("queue server", "said", fmt.Sprintf(format, v...))
}
func (p *printer) Debugf(string, ...any) {}
func (p *printer) Tracef(string, ...any) {}

func (p *printer) Warnf(format string, v ...any) {
	p.log.Warn("queue server", "said", fmt.Sprintf(format, v...))
}

func (p *printer) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if !p.gate.opened.Load() && strings.Contains(text, "authentication error") { // clients come back too early
		return
	}
	if strings.Contains(text, "ritical write error") {
		p.wounds.Add(1)
	}
	p.note(text)
	p.log.Error("queue server", "said", text)
}

func (p *printer) Fatalf(format string, v ...any) {
	p.Errorf(format, v...)
	p.fatal.Store(true)
}

// ready waits until srv listens and stores; false: it does not come to that.
func (p *printer) ready(srv *server.Server) bool {
	for end := time.Now().Add(bootLimit); time.Now().Before(end) && !p.fatal.Load(); {
		if srv.ReadyForConnections(100 * time.Millisecond) { // it looks each 25 ms
			return srv.JetStreamEnabled()
		}
	}
	return false
}
