package cluster

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"preforkd/internal/testkit"
)

// Nodes is how many servers there are.
const Nodes = 3

// Cluster is three servers.
type Cluster struct {
	URL     string // of all of them, as tasks.url has it
	servers []*server.Server
	killed  bool
}

// Start starts a cluster and waits until it has a leader; token is what it asks for, empty: none.
func Start(t testing.TB, token string) *Cluster {
	t.Helper()
	ports := freePorts(t, 2*Nodes)
	var routes []*url.URL
	var urls []string
	for i := range Nodes {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", ports[Nodes+i])})
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
	}
	c := &Cluster{URL: strings.Join(urls, ",")}
	for i := range Nodes {
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: ports[i], NoSigs: true, NoLog: true, Authorization: token,
			JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, MaxPayload: 1 << 20, Routes: routes,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: ports[Nodes+i]},
		})
		if err != nil {
			t.Fatal(err)
		}
		go s.Start() // ends with the test
		c.servers = append(c.servers, s)
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	}
	if err := testkit.Await(c.whole); err != nil {
		t.Fatalf("the cluster has no leader: %v", err)
	}
	return c
}

// whole tells whether there is a leader that knows all.
func (c *Cluster) whole() bool {
	for _, s := range c.servers {
		if s.JetStreamIsLeader() {
			return s.ReadyForConnections(time.Second) && len(s.JetStreamClusterPeers()) == Nodes
		}
	}
	return false
}

// Kill ends the leader, the first time: of three one may be missing.
func (c *Cluster) Kill() {
	for _, s := range c.servers {
		if !c.killed && s.JetStreamIsLeader() {
			c.killed = true
			s.Shutdown()
			s.WaitForShutdown()
		}
	}
}

func freePorts(t testing.TB, n int) (ports []int) {
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
