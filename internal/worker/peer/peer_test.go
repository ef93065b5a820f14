package peer

import (
	"crypto/tls"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// pair returns both ends of a connection.
func pair(t testing.TB, network, address string) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial(network, ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// arrives waits for what a client did to reach the other end.
func arrives(t *testing.T, c net.Conn) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !Gone(c); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not seen as gone")
		}
	}
}

func TestGone(t *testing.T) {
	for name, leave := range map[string]func(net.Conn){
		"closed":      func(c net.Conn) { c.Close() },
		"half closed": func(c net.Conn) { _ = c.(interface{ CloseWrite() error }).CloseWrite() },
		"reset": func(c net.Conn) {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			c.Close()
		},
	} {
		for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
			t.Run(name+" "+network, func(t *testing.T) {
				client, server := pair(t, network, address)
				if Gone(server) {
					t.Error("gone before anything happened")
				}
				if _, err := client.Write([]byte("unread")); err != nil {
					t.Fatal(err)
				}
				if Gone(server) {
					t.Error("gone with bytes to read")
				}
				leave(client)
				arrives(t, server)
				if Gone(client) != (name != "half closed") { // its own descriptor is closed
					t.Error("the other side")
				}
			})
		}
	}
}

// TestWatch: each is seen by its index, below wrappers, and what is no socket is never.
func TestWatch(t *testing.T) {
	var w Watch
	w.Look(func(int) { t.Error("seen among none") })
	var clients []net.Conn
	for i := range 5 {
		client, server := pair(t, "tcp", "127.0.0.1:0")
		clients = append(clients, client)
		if i == 3 {
			server = tls.Server(server, nil)
		}
		w.Add(server)
	}
	one, other := net.Pipe()
	defer one.Close()
	other.Close()
	w.Add(one)
	w.Look(func(i int) { t.Errorf("%d is seen as gone", i) })
	clients[1].Close()
	clients[3].Close()
	seen := map[int]bool{}
	for end := time.Now().Add(time.Minute); len(seen) < 2 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		w.Look(func(i int) { seen[i] = true })
	}
	if len(seen) != 2 || !seen[1] || !seen[3] {
		t.Errorf("seen %v", seen)
	}
	w.Reset()
	w.Look(func(int) { t.Error("seen after Reset") })
}

func BenchmarkGone(b *testing.B) {
	_, server := pair(b, "tcp", "127.0.0.1:0")
	b.ReportAllocs()
	for b.Loop() {
		if Gone(server) {
			b.Fatal("gone")
		}
	}
}

func BenchmarkWatch100(b *testing.B) {
	_, server := pair(b, "tcp", "127.0.0.1:0")
	var w Watch
	for range 100 {
		w.Add(server)
	}
	b.ReportAllocs()
	for b.Loop() {
		w.Look(func(int) { b.Fatal("gone") })
	}
}
