package task

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"preforkd/internal/testkit"
)

// service is a queue's server, or several of them, for tests.
type service struct {
	options Options
	// interrupt ends it, or one of it, untold, and has something in its place where nobody else is.
	interrupt func()
}

// onBoth runs a test on this machine's broker, and on a cluster.
func onBoth(t *testing.T, test func(t *testing.T, s *service)) {
	t.Run("broker", func(t *testing.T) { test(t, single(t)) })
	t.Run("cluster", func(t *testing.T) { test(t, cluster(t)) })
}

func single(t *testing.T) *service {
	t.Helper()
	dir := t.TempDir()
	b := testkit.StartBroker(t, dir)
	return &service{
		options: Options{URL: b.Access.URL(), Token: b.Access.Token, Embedded: true},
		interrupt: func() {
			b.Kill(syscall.SIGKILL)
			b = testkit.StartBroker(t, dir)
		},
	}
}

func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		ports = append(ports, ln.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// cluster starts three servers that keep everything three times.
func cluster(t *testing.T) *service {
	t.Helper()
	const nodes, token = 3, "a-token-of-this-test"
	ports := freePorts(t, 2*nodes)
	var routes []*url.URL
	var urls []string
	for i := range nodes {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", ports[nodes+i])})
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
	}
	servers := make([]*server.Server, nodes)
	for i := range nodes {
		o := &server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: ports[i], NoSigs: true, NoLog: true, Authorization: token,
			JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, MaxPayload: 1 << 20, Routes: routes,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: ports[nodes+i]},
		}
		s, err := server.NewServer(o)
		if err != nil {
			t.Fatal(err)
		}
		go s.Start()
		servers[i] = s
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	}
	if err := testkit.Await(func() bool {
		for _, s := range servers {
			if s.JetStreamIsLeader() {
				return s.ReadyForConnections(time.Second) && len(s.JetStreamClusterPeers()) == nodes
			}
		}
		return false
	}); err != nil {
		t.Fatal(err)
	}
	killed := false
	return &service{
		options: Options{URL: strings.Join(urls, ","), Token: token, Replicas: nodes},
		interrupt: func() {
			if killed { // one of three
				return
			}
			killed = true
			for _, s := range servers {
				if s.JetStreamIsLeader() { // the one that hurts most
					s.Shutdown()
					s.WaitForShutdown()
					return
				}
			}
		},
	}
}

// open returns a queue that has been reached, for the model m.
func (s *service) open(t *testing.T, change func(*Options)) *Queue {
	t.Helper()
	o := s.options
	o.Node = "test"
	if change != nil {
		change(&o)
	}
	q := New(o)
	q.Serve([]string{"m"})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if err := testkit.Await(func() bool { return q.ready.Load() != nil }); err != nil {
		t.Fatal(err)
	}
	return q
}

// runner runs tasks until the test ends, or the function is called that it returns.
func runner(t *testing.T, q *Queue, do func(ctx context.Context, t *Task) Outcome) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	hurry, hasten := context.WithCancelCause(context.Background())
	ended := make(chan struct{})
	r := &Runner{Queue: q, Do: do, Suspects: true}
	go func() {
		defer close(ended)
		r.Run(ctx, hurry)
	}()
	stop = func() {
		cancel()
		hasten(ErrLeaving)
		<-ended
	}
	t.Cleanup(stop)
	return stop
}

func submit(t *testing.T, q *Queue, req Request) ID {
	t.Helper()
	req.Model = "m"
	for begun := time.Now(); ; {
		id, _, err := q.Submit(t.Context(), &req)
		if err == nil {
			return id
		}
		if time.Since(begun) > testkit.Limit {
			t.Fatal(err)
		}
	}
}

// await waits until a task is as wanted.
func await(t *testing.T, q *Queue, id ID, want Status) View {
	t.Helper()
	var v View
	var err error
	for begun := time.Now(); time.Since(begun) < testkit.Limit; {
		if v, err = q.Wait(t.Context(), id, 50*time.Millisecond); err == nil && v.Status == want {
			return v
		}
		if err == nil && v.Status.Terminal() {
			break
		}
	}
	t.Fatalf("task %s is %s (%s), %v: %s is wanted", id, v.Status, v.Error, err, want)
	return v
}
