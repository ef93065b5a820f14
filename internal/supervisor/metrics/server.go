package metrics

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/scoreboard"
)

// Options are what a server tells of.
type Options struct {
	Version string // of the supervisor
	Board   *scoreboard.Board
	// Ask returns what the loop knows, or an error when it has ended or ctx is done.
	Ask func(ctx context.Context) (Snapshot, error)
	// Health returns how the service is. It does not wait for what the loop is busy with.
	Health func(ctx context.Context) Health
}

// Health is how a service is, in two words and why.
type Health struct {
	Live   bool
	Ready  bool
	Reason string
}

// Limits of the server: a stuck or wrong client must not cost the service anything.
const (
	maxHeader   = 16 << 10
	maxClients  = 64               // connections; the next is closed at once
	maxScrapes  = 4                // at a time; the next is answered 503
	headerLimit = 5 * time.Second  // for a request to arrive
	writeLimit  = 10 * time.Second // for an answer to be made and read
	idleLimit   = 2 * time.Minute  // between two requests; scrapes are a minute apart at most
	endLimit    = time.Second      // for last answers once the server shall end
)

// Server serves the operations listener.
type Server struct {
	health  func(context.Context) Health
	ln      net.Listener
	address string
	http    *http.Server
}

// Bind makes the listening socket at address, host:port. The error is an *ipc.Failure.
func Bind(address string) (*activation.Socket, error) {
	return activation.Bind(activation.Spec{Network: "tcp", Address: address})
}

// Open returns a server on socket, which it takes over. Who opens a server calls Serve, or
// Close.
func Open(socket *activation.Socket, o Options) (*Server, error) {
	ln, err := socket.Listener()
	if err != nil {
		return nil, err
	}
	s := &Server{health: o.Health, ln: activation.Few(ln, maxClients), address: socket.Address}
	s.http = &http.Server{
		Handler: s.handler(o), ReadHeaderTimeout: headerLimit, ReadTimeout: headerLimit, WriteTimeout: writeLimit,
		IdleTimeout: idleLimit, MaxHeaderBytes: maxHeader, ErrorLog: log.New(io.Discard, "", 0),
	}
	return s, nil
}

// Address is where it listens, with the port that the kernel chose if it was 0.
func (s *Server) Address() string { return s.address }

// Serve answers until ctx is done, and returns when all that it started has ended. It
// may be called once.
func (s *Server) Serve(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- s.http.Serve(s.ln) }()
	select {
	case err := <-ended:
		_ = s.http.Close()
		return fmt.Errorf("serve the operations listener: %w", err)
	case <-ctx.Done():
	}
	last, stop := context.WithTimeout(context.Background(), endLimit)
	defer stop()
	if s.http.Shutdown(last) != nil {
		_ = s.http.Close()
	}
	<-ended
	return nil
}

// Close closes a server that was not served.
func (s *Server) Close() { s.ln.Close() }

func (s *Server) handler(o Options) http.Handler {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(
		&collector{o.Version, o.Board, o.Ask},
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), // of the supervisor
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(own(registry), promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes,
	}))
	mux.HandleFunc("GET /livez", s.live) // also HEAD
	mux.HandleFunc("GET /healthz", s.live)
	mux.HandleFunc("GET /readyz", s.ready)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "preforkd", o.Version, "has /metrics, /livez and /readyz here")
	})
	return mux
}

// own leaves out what the process collector takes for the process's and is that of all
// processes on the machine, or in the container.
func own(g prometheus.Gatherer) prometheus.GathererFunc {
	return func() ([]*dto.MetricFamily, error) {
		families, err := g.Gather()
		return slices.DeleteFunc(families, func(f *dto.MetricFamily) bool {
			return strings.HasPrefix(f.GetName(), "process_network_")
		}), err
	}
}

func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	if h := s.health(r.Context()); !h.Live {
		http.Error(w, h.Reason, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "live")
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	h := s.health(r.Context())
	if !h.Ready {
		http.Error(w, h.Reason, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, h.Reason)
}
