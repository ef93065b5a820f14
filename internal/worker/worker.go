package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/config"
	"preforkd/internal/inference"
	"preforkd/internal/inference/onnx"
	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/control"
	"preforkd/internal/ipc/handoff"
	"preforkd/internal/ipc/notify"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/worker/accept"
	"preforkd/internal/worker/admission"
	"preforkd/internal/worker/api"
)

// runners is how many inferences a worker runs at once: it is given one share of the
// cores, and the engine one thread.
const runners = 1

// mostPermits bounds how many requests a worker reads for batches.
const mostPermits = 1024

// worker is what Run wires.
type worker struct {
	identity
	log      *slog.Logger
	supers   *notify.Client // the supervisor
	lifeline int
	library  int // descriptor of the engine's library; -1: none
	sockets  int // descriptor of the directory of helpers' sockets; -1: none
	cfg      config.Config
	manifest ipc.Manifest

	board     *scoreboard.Board
	row       *scoreboard.Row
	control   *control.Conn
	held      bool          // not to accept before the supervisor says so
	mayAccept chan struct{} // closed when it says so
	release   func()        // closes it, once
	pace      pace          // of self-tests

	engine    inference.Engine
	watched   *watched // the engine as models loads by it
	models    *repository.Repository
	set       atomic.Pointer[ipc.ModelSet] // what models serves
	change    change
	permits   *admission.Permits
	api       *api.API
	sync      syncLayer
	server    *fasthttp.Server
	conns     *accept.Pool
	queue     *handoff.Queue // of connections that leaving workers give away
	waiting   *handoff.Queue // of connections that wait with a request for any worker's permit; nil: there is none
	taker     *accept.Taker  // from there; nil: nothing is
	sweeper   *accept.Sweeper
	took      sync.WaitGroup // until both have ended
	listeners []stopper
	leaving   atomic.Bool
	rounds    rounds
	tasks     tasks
	alone     bool // nobody is left who could take connections

	memoryUnknown bool // it has been said that it cannot be read

	countLock sync.Mutex    // guards tallied
	tallied   accept.Counts // what the row has of conns' counters
}

// Run serves until the supervisor, or its end, tells the worker to leave. An error
// before that is sent to the supervisor, as an *ipc.Failure where it is one.
func Run(ctx context.Context, version string) error {
	nameThreads(program)
	logs := newLogWriter(os.Stderr)
	defer logs.Close()
	w := &worker{identity: identify(), lifeline: -1, library: -1, sockets: -1, held: os.Getenv(ipc.EnvHeld) != "", mayAccept: make(chan struct{})}
	w.release = sync.OnceFunc(func() { close(w.mayAccept) })
	w.log = slog.New(slog.NewJSONHandler(logs, nil)) // the supervisor puts it into the operator's form
	var err error
	if w.supers, err = notify.FromEnvironment(); err != nil {
		return err
	}
	defer w.supers.Close()
	sockets, err := w.inherit()
	if err == nil {
		err = w.load()
	}
	if err == nil {
		err = w.listen(sockets, version)
	}
	if err == nil {
		err = w.prove()
	}
	if err != nil {
		w.fail(err)
		return err
	}
	return w.serve(ctx) // the models end with the process: a run may still be in one of them
}

// stopper is what connections come from.
type stopper interface {
	net.Listener
	Stop()
}

// identity is which worker this is.
type identity struct{ pool, slot, generation string }

func identify() identity {
	return identity{os.Getenv(ipc.EnvPool), os.Getenv(ipc.EnvSlot), os.Getenv(ipc.EnvGeneration)}
}

// String returns pool, slot and process id, as X-Preforkd-Worker carries them.
func (id identity) String() string { return fmt.Sprintf("%s/%s/%d", id.pool, id.slot, os.Getpid()) }

// inherit takes over what the supervisor gave.
func (w *worker) inherit() ([]*activation.Socket, error) {
	in, err := activation.Inherited()
	if err != nil {
		return nil, err
	}
	manifest, hasManifest := in.Extra[ipc.FDManifest]
	lifeline, hasLifeline := in.Extra[ipc.FDLifeline]
	board, hasBoard := in.Extra[ipc.FDBoard]
	channel, hasControl := in.Extra[ipc.FDControl]
	queueIn, hasQueueIn := in.Extra[ipc.FDAdoptIn]
	queueOut, hasQueueOut := in.Extra[ipc.FDAdoptOut]
	if !hasManifest || !hasLifeline || !hasBoard || !hasControl || !hasQueueIn || !hasQueueOut {
		return nil, &ipc.Failure{
			Exit: ipc.ExitUsage, What: "preforkd-worker was not started by preforkd: it inherited no manifest",
			Try: "preforkd serve; a script that starts it as worker.command needs worker.kind: preforkd",
		}
	}
	w.lifeline = lifeline
	if fd, ok := in.Extra[ipc.FDLibrary]; ok {
		w.library = fd
	}
	if fd, ok := in.Extra[ipc.FDHelpers]; ok {
		w.sockets = fd
	}
	data, err := activation.ReadSealed(manifest)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &w.manifest); err != nil {
		return nil, fmt.Errorf("read the manifest: %w", err)
	}
	if err := json.Unmarshal(w.manifest.Settings, &w.cfg); err != nil {
		return nil, fmt.Errorf("read the settings of the manifest: %w", err)
	}
	if err := w.join(board, channel); err != nil {
		return nil, err
	}
	if w.queue, err = handoff.Open(queueIn, queueOut); err != nil {
		return nil, err
	}
	waitIn, hasWaitIn := in.Extra[ipc.FDWaitIn]
	waitOut, hasWaitOut := in.Extra[ipc.FDWaitOut]
	if hasWaitIn && hasWaitOut {
		if w.waiting, err = handoff.Open(waitIn, waitOut); err != nil {
			return nil, err
		}
	}
	return in.Sockets, nil
}

// join takes this worker's row of the scoreboard and its end of the control channel.
func (w *worker) join(board, channel int) (err error) {
	defer activation.Close(board)
	if w.board, err = scoreboard.Open(board); err != nil {
		return &ipc.Failure{
			Exit: ipc.ExitBoot, What: "open the scoreboard: " + err.Error(), Err: err,
			Try: "install preforkd and preforkd-worker of one version",
		}
	}
	if w.row, err = w.board.Attach(os.Getenv(ipc.EnvRow)); err != nil {
		return fmt.Errorf("take a row of the scoreboard: %w", err)
	}
	w.control, err = control.New(channel, w.handlers())
	return err
}

// load opens the engine and every model.
func (w *worker) load() error {
	_ = w.supers.Send("STATUS=opening the engine")
	library := w.manifest.Library
	if w.library >= 0 {
		library = fmt.Sprintf("/proc/self/fd/%d", w.library)
	}
	var err error
	w.engine, err = onnx.OpenAs(library, w.manifest.Library, w.cfg.Inference.CustomOps)
	activation.Close(w.library) // it is mapped by now
	if err != nil {
		return err
	}
	w.watched = &watched{Engine: w.engine, w: w}
	w.watched.calls(w.manifest.Models)
	w.set.Store(&ipc.ModelSet{Models: w.manifest.Models, Unloaded: w.manifest.Unloaded})
	if w.models, err = repository.Load(w.watched, w.manifest.Models); err != nil {
		return loadFailure(err)
	}
	onnx.Trim()
	w.warnPlain(w.models.Every(), w.manifest.Models)
	w.warnLost(w.models.Every(), w.manifest.Models)
	return nil
}

// warnPlain says of which models this worker has weights of its own though others share them.
func (w *worker) warnPlain(models []*repository.Model, files []ipc.ModelFile) {
	for _, m := range models {
		if m.Plain == nil {
			continue
		}
		own := int64(0)
		for i := range files {
			if f := &files[i]; f.Name == m.Name && f.Version == m.Version {
				own = f.Bytes
			}
		}
		w.log.Warn("prepared model not loaded: this worker has its weights to itself", "model", m.Name, "version", m.Version, "bytes", own, "err", m.Plain)
	}
}

// handle makes what answers requests.
func (w *worker) handle(version string) {
	header := ""
	if w.cfg.HTTP.WorkerHeader {
		header = w.String()
	}
	w.permits = admission.New(admission.Options{
		Limit: w.limit(), Runners: runners, Observe: w.observe,
		MaxWaiting: w.cfg.Queue.MaxRequests, MaxBytes: int64(w.cfg.Queue.MaxBytes), MaxWait: w.cfg.Queue.MaxWait,
		Elsewhere: w.elsewhere,
	})
	w.row.Limit.Set(int64(w.permits.Size()))
	o := api.Options{
		Models:         w.models,
		Permits:        w.permits,
		Runners:        runners,
		Dropped:        w.dropped,
		Default:        w.cfg.Predict.Model,
		Version:        version,
		RequestTimeout: w.cfg.Timeouts.Request,
		WorkerHeader:   header,
		Began:          w.began,
		Answered:       w.answered,
		Refusal:        w.refusal,
		Entering:       w.entering,
		Left:           w.row.Leave,
		Served:         w.served,
		Stats:          w.stats,
		Log:            w.log,
		Ready:          func() bool { return !w.leaving.Load() },
		Closing:        func() bool { return w.board.Unready().Load() != 0 },
		Tokens:         w.manifest.Tokens,
		Denied:         w.denied(),
		Proxies:        w.proxies(),
		Unloaded:       func() []ipc.UnloadedModel { return w.set.Load().Unloaded },
		ControlSetting: w.cfg.Models.Control,
		Routes:         w.routes(),
		Layers:         w.layers(),
		Helpers:        w.helpers(),
		Misplaced:      w.misplaced,
		Troubled:       w.troubled(),
		Tasks:          w.tasks.queue,
	}
	if w.cfg.Models.Control == config.ControlExplicit {
		o.Control = w.order
	}
	w.api = api.New(o)
}

// limit is how many requests this worker reads and runs at once: as many as its runners and
// batches can use. While one batch runs the next one fills.
func (w *worker) limit() int {
	if n := w.cfg.Concurrency.Limit; !n.Auto() {
		return int(n)
	}
	most := 1
	for i := range w.manifest.Models {
		if m := &w.manifest.Models[i].Options; !m.NoBatching {
			most = max(most, int(min(m.MaxBatchSize, mostPermits/2)))
		}
	}
	if most == 1 {
		return runners
	}
	return 2 * most * runners
}

// listen makes the HTTP server and its listeners.
func (w *worker) listen(sockets []*activation.Socket, version string) error {
	if err := w.openTasks(); err != nil {
		return err
	}
	w.handle(version)
	if err := w.checkRoutes(); err != nil {
		return err
	}
	w.server = w.api.Server(api.ServerOptions{
		MaxBody:        int(w.cfg.HTTP.MaxBody),
		HeaderTimeout:  w.cfg.HTTP.HeaderTimeout,
		RequestTimeout: w.cfg.Timeouts.Request,
		MaxConnections: w.cfg.HTTP.MaxConnections,
	})
	if len(sockets) == 0 && (w.manifest.Tasks == nil || !w.manifest.Tasks.Only) {
		return errors.New("no listening socket was inherited")
	}
	w.conns = accept.NewPool(accept.Options{
		Connections: w.cfg.HTTP.MaxConnections, Generation: w.manifest.Generation, Refused: w.refused(),
		Clocks: accept.Clocks{
			Header: w.cfg.HTTP.HeaderTimeout, Keepalive: w.cfg.HTTP.KeepaliveTimeout, Write: w.cfg.Timeouts.Request,
		},
	})
	w.server.ConnState = func(c net.Conn, s fasthttp.ConnState) { w.conns.State(c, accept.State(s)) }
	for i, sock := range sockets {
		ln, err := sock.Listener()
		if err != nil {
			return err
		}
		l := w.conns.Listener(ln, i)
		if err := w.speak(l, i); err != nil {
			return err
		}
		w.listeners = append(w.listeners, l)
	}
	w.manifest.Sockets = nil // with the keys
	w.share()
	// During a reload only the newest generation takes, and in a pool that has grown only
	// those that have fewer than others, so that no connection moves twice. When the service
	// stops what is in the queue is for its next start.
	w.listeners = append(w.listeners, w.conns.Adopter(w.queue, func() bool {
		return w.rounds.takes(w.conns.Open(), time.Now()) && w.board.Taker().Load() <= w.manifest.Generation && w.board.Stopping().Load() == 0
	}))
	return nil
}

// fail tells the supervisor why this worker cannot start.
func (w *worker) fail(err error) {
	f := (*ipc.Failure)(nil)
	if !errors.As(err, &f) {
		f = &ipc.Failure{Exit: ipc.ExitBoot, What: err.Error()}
	}
	_ = w.supers.SendWait(ipc.KeyFailure + "=" + ipc.EncodeFailure(f))
}
