package task

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"preforkd/internal/ipc/store"
)

// Options are what a queue is made of. What is zero has a default.
type Options struct {
	URL         string // of the broker, or of the servers of a cluster, joined by commas
	Token       string
	Credentials string      // path of a file with a JWT and its key; empty: none
	NKey        string      // path of a file with a key; empty: none
	TLS         *tls.Config // nil: none
	// Embedded says that this machine's broker keeps the queue: nobody else runs its tasks.
	Embedded bool
	// Prefix begins all names, so that installations can share a cluster.
	Prefix   string
	Replicas int
	// MaxTasks and MaxBytes bound what waits for one model.
	MaxTasks int64
	MaxBytes int64
	MaxInput int64
	// ResultTTL is how long an outcome is kept, MaxWait how long a task may wait, MaxRun how long
	// it may run.
	ResultTTL, MaxWait, MaxRun time.Duration
	// Attempts is how often a task is run that fails, Crashes how many workers it may end.
	Attempts, Crashes int
	// AckWait is how long a run may be silent before it counts as lost.
	AckWait time.Duration
	Node    string
	Log     *slog.Logger
}

// mostLost is how many runs may vanish without anybody knowing why: power cuts, mostly.
const mostLost = 10

// Limits of messages.
const (
	inlineBytes  = 256 << 10 // what is larger is an object
	messageBytes = 512 << 10
	mostPending  = 10000
	mostPulls    = 512
	deadFor      = 7 * 24 * time.Hour
	setupLimit   = 10 * time.Second
)

// Queue is the queue, as one process sees it.
type Queue struct {
	Options
	ready  atomic.Pointer[ready] // nil: not yet
	state  atomic.Pointer[store.State]
	Counts Counts

	concluded func(id ID) // a test is told that a record is terminal, and its message not acknowledged yet

	acks sync.WaitGroup // of messages whose tasks have ended; Run waits for them

	mu      sync.Mutex      // guards the fields below
	link    context.Context // ends when the connection does
	unlink  context.CancelFunc
	models  []string
	cancels map[ID]context.CancelCauseFunc // of tasks that run here
	wakers  map[chan struct{}]bool         // of runners
	changed chan struct{}                  // models has
}

// Counts are what this process has done since it began.
type Counts struct {
	Accepted, Refused, Redelivered, Finished, Failed, Retried, Crashed atomic.Uint64
}

// ready is what there is once the queue was reached.
type ready struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	records jetstream.Stream
	dead    jetstream.Stream
	inputs  jetstream.ObjectStore
	results jetstream.ObjectStore
	models  map[string]*model
}

// model is the queue of one.
type model struct {
	name      string
	stream    jetstream.Stream
	consumers [2]jetstream.Consumer // of high and of low priority
}

// New returns a queue that Run connects.
func New(o Options) *Queue {
	o.Prefix = cmp.Or(o.Prefix, "tk")
	o.Replicas = max(o.Replicas, 1)
	o.MaxTasks = cmp.Or(o.MaxTasks, 10000)
	o.MaxBytes = cmp.Or(o.MaxBytes, 1<<30)
	o.MaxInput = cmp.Or(o.MaxInput, 8<<20)
	o.ResultTTL = cmp.Or(o.ResultTTL, time.Hour)
	o.MaxWait = cmp.Or(o.MaxWait, 24*time.Hour)
	o.MaxRun = cmp.Or(o.MaxRun, 10*time.Minute)
	o.Attempts = cmp.Or(o.Attempts, 3)
	o.Crashes = cmp.Or(o.Crashes, 3)
	o.AckWait = cmp.Or(o.AckWait, 15*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	link, unlink := context.WithCancel(context.Background())
	return &Queue{Options: o, link: link, unlink: unlink, cancels: map[ID]context.CancelCauseFunc{}, wakers: map[chan struct{}]bool{}, changed: make(chan struct{}, 1)}
}

// Serve says for which models there are queues; a later call may name others.
func (q *Queue) Serve(models []string) {
	q.mu.Lock()
	q.models = models
	q.mu.Unlock()
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

// again is how long to wait before another try to reach the queue.
const again = 200 * time.Millisecond

// Run keeps this process connected until ctx ends.
func (q *Queue) Run(ctx context.Context) error {
	nc, err := nats.Connect(q.URL, q.options()...)
	if err != nil {
		return fmt.Errorf("connect to the task queue %s: %w", q.URL, err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncTimeout(10*time.Second))
	if err != nil {
		return err
	}
	if err := q.listen(nc); err != nil {
		return err
	}
	said := ""
	for ctx.Err() == nil {
		q.askState(ctx, nc)
		err := q.setUp(ctx, nc, js)
		wait := time.After(again)
		if err == nil {
			wait, said = nil, ""
			q.wake()
		} else if text := err.Error(); text != said && ctx.Err() == nil {
			said = text
			q.Log.Warn("task queue not reached yet; tasks wait", "url", q.URL, "err", err)
		}
		select {
		case <-wait:
		case <-q.changed:
		case <-ctx.Done():
		}
	}
	q.acks.Wait()
	q.ready.Store(nil)
	return nil
}

// options are those of the connection. It is never given up, and whoever publishes waits only for
// as long as it wants to.
func (q *Queue) options() []nats.Option {
	opts := []nats.Option{
		nats.Name("preforkd " + q.Node), nats.Token(q.Token), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(20 * time.Millisecond), nats.ReconnectJitter(20*time.Millisecond, 100*time.Millisecond), nats.Timeout(2 * time.Second),
		nats.ConnectHandler(func(*nats.Conn) { q.reached() }), nats.ReconnectHandler(func(*nats.Conn) { q.reached() }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			q.dropped()
			if err != nil {
				q.Log.Info("task queue out of reach; trying again", "url", q.URL, "err", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { q.Log.Debug("task queue", "err", err) }),
	}
	if q.Credentials != "" {
		opts = append(opts, nats.UserCredentials(q.Credentials))
	}
	if q.NKey != "" {
		if opt, err := nats.NkeyOptionFromSeed(q.NKey); err == nil {
			opts = append(opts, opt)
		} else {
			q.Log.Error("task queue: key not read", "path", q.NKey, "err", err)
		}
	}
	if q.TLS != nil {
		opts = append(opts, nats.Secure(q.TLS))
	}
	return opts
}

// dropped ends what waits for an answer that the connection will not bring.
func (q *Queue) dropped() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unlink()
	q.link, q.unlink = context.WithCancel(context.Background())
}

// linked returns a context that ends with ctx, after limit, or with the connection.
func (q *Queue) linked(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	q.mu.Lock()
	link := q.link
	q.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, limit)
	stop := context.AfterFunc(link, cancel)
	return ctx, func() { stop(); cancel() }
}

// reached has Run look at everything again: another broker may answer.
func (q *Queue) reached() {
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

// listen hears what others say: that a task was submitted, that one shall be cancelled, and how the
// broker is.
func (q *Queue) listen(nc *nats.Conn) error {
	_, err := nc.Subscribe(q.Prefix+".wake", func(*nats.Msg) { q.wake() })
	if err == nil {
		_, err = nc.Subscribe(q.Prefix+".cancel.>", func(m *nats.Msg) { q.stopRun(ID(strings.TrimPrefix(m.Subject, q.Prefix+".cancel."))) })
	}
	if err == nil && q.Embedded {
		_, err = nc.Subscribe(store.StateSubject+".changed", func(m *nats.Msg) { q.hear(m.Data) })
	}
	return err
}

// askState asks the broker of this machine how it is.
func (q *Queue) askState(ctx context.Context, nc *nats.Conn) {
	if !q.Embedded || !nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if m, err := nc.RequestWithContext(ctx, store.StateSubject, nil); err == nil {
		q.hear(m.Data)
	}
}

func (q *Queue) hear(data []byte) {
	var s store.State
	if json.Unmarshal(data, &s) == nil {
		q.state.Store(&s)
	}
}

// full says why nothing new is taken; empty: it is.
func (q *Queue) full() string {
	if s := q.state.Load(); s != nil {
		return s.Full
	}
	return ""
}

// get returns what there is once the queue was reached.
func (q *Queue) get() (*ready, error) {
	if r := q.ready.Load(); r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("%w: the queue has not been reached yet: try again", ErrUnavailable)
}

// firstLimit is how long who asks waits for the queue to be reached at all: a worker that has just
// started serves before it is.
const firstLimit = 2 * time.Second

// first is get for who may wait; name is the model whose queue is needed, empty: none.
func (q *Queue) first(ctx context.Context, name string) (*ready, error) {
	for begun := time.Now(); ; {
		r, err := q.get()
		if err == nil && (name == "" || r.models[name] != nil) {
			return r, nil
		}
		if err == nil {
			err = fmt.Errorf("%w: there is no queue for model %q yet: try again", ErrUnavailable, name)
		}
		if time.Since(begun) > firstLimit {
			return nil, err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// Reached tells whether the queue answers, as far as this process knows.
func (q *Queue) Reached() bool {
	r := q.ready.Load()
	return r != nil && r.nc.IsConnected()
}

// unavailable says that the queue did not do what was asked.
func unavailable(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: the queue does not answer: %w: try again", ErrUnavailable, err)
}

// wake has every runner of this process look for work.
func (q *Queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for w := range q.wakers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}
