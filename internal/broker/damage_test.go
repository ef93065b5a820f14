package broker

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"preforkd/internal/ipc"
	"preforkd/internal/testkit"
)

// filled returns a store whose stream Q has had so many messages, the first of which is done, and
// whose broker has ended.
func filled(t *testing.T, n int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	b := testkit.StartBroker(t, dir)
	_, js := client(t, b.Access)
	s := stream(t, js, "Q")
	put(t, js, "q.first", nil)
	c, err := s.CreateOrUpdateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "run", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := c.Next(); err != nil || m.DoubleAck(t.Context()) != nil {
		t.Fatalf("one of them: %v", err)
	}
	for i := range n - 1 {
		put(t, js, fmt.Sprintf("q.%d", i), bytes.Repeat([]byte{byte(i)}, 1000))
	}
	if status := b.Kill(syscall.SIGTERM); status != 0 {
		t.Fatalf("TERM: status %d", status)
	}
	return dir
}

// only returns the one file that the pattern finds below the stream.
func only(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, queueDir, "jetstream", account, "streams", "Q", pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	return found[0]
}

func change(t *testing.T, path string, how func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, how(data), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func garbage(data []byte) []byte { return bytes.Repeat([]byte("garbage"), len(data)/7+1) }

const stored20 = 20

// left starts a broker and returns how many messages it has, and what it said is lost.
func left(t *testing.T, dir string) (n uint64, log string) {
	t.Helper()
	b := testkit.StartBroker(t, dir)
	_, js := client(t, b.Access)
	s, err := js.Stream(t.Context(), "Q")
	if err != nil {
		t.Fatal(err)
	}
	return messages(t, s), b.Log()
}

func TestIndexIsDamaged(t *testing.T) {
	for name, how := range map[string]func(t *testing.T, path string){
		"gone":    func(t *testing.T, path string) { _ = os.Remove(path) },
		"garbage": func(t *testing.T, path string) { change(t, path, garbage) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filled(t, stored20)
			how(t, only(t, dir, "msgs/index.db"))
			if n, log := left(t, dir); n != stored20-1 || strings.Contains(log, "lost") {
				t.Errorf("%d of %d are left; %s", n, stored20-1, log)
			}
		})
	}
}

func TestLastMessagesAreCutOff(t *testing.T) {
	dir := filled(t, stored20)
	change(t, only(t, dir, "msgs/*.blk"), func(b []byte) []byte { return b[:len(b)-700] })
	n, log := left(t, dir)
	if want := fmt.Sprintf(`"lost":%d`, stored20-1-n); n >= stored20-1 || !strings.Contains(log, want) {
		t.Errorf("%d of %d are left, and it does not say %s; %s", n, stored20-1, want, log)
	}
}

func TestMiddleOfABlockIsDamaged(t *testing.T) {
	dir := filled(t, stored20)
	_ = os.Remove(only(t, dir, "msgs/index.db"))
	change(t, only(t, dir, "msgs/*.blk"), func(b []byte) []byte {
		copy(b[len(b)/2:], garbage(b[:300]))
		return b
	})
	n, log := left(t, dir)
	if n >= stored20-1 || !strings.Contains(log, "messages are lost") { // the server counts those it had deleted, too
		t.Errorf("%d of %d are left, and it does not say that others are lost; %s", n, stored20-1, log)
	}
}

func TestConsumerIsDamaged(t *testing.T) {
	dir := filled(t, stored20)
	change(t, only(t, dir, "obs/run/o.dat"), garbage)
	change(t, only(t, dir, "obs/run/meta.inf"), garbage)
	b := testkit.StartBroker(t, dir)
	_, js := client(t, b.Access)
	s := stream(t, js, "Q")
	c, err := s.CreateOrUpdateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "run", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	for i := range stored20 - 1 {
		if m, err := c.Next(); err != nil || m.DoubleAck(t.Context()) != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if aside, err := filepath.Glob(filepath.Join(dir, "damaged", "*", "Q.run", "o.dat")); err != nil || len(aside) != 1 {
		t.Errorf("moved aside: %v, %v", aside, err)
	}
}

func TestStreamIsDamaged(t *testing.T) {
	dir := filled(t, stored20)
	meta := only(t, dir, "meta.inf")
	whole, err := os.ReadFile(meta)
	if err != nil {
		t.Fatal(err)
	}
	change(t, meta, garbage)
	for range 2 { // trying again does no harm
		b := testkit.LaunchBroker(t, dir)
		if said := b.Await(ipc.KeyFailure); !strings.Contains(said, "of its streams Q cannot be read") {
			t.Errorf("it said %s", said)
		}
		if status := b.Kill(syscall.SIGTERM); status != ipc.ExitUnavailable {
			t.Errorf("status %d", status)
		}
	}
	change(t, meta, func([]byte) []byte { return whole })
	if n, log := left(t, dir); n != stored20-1 {
		t.Errorf("mended: %d of %d are left; %s", n, stored20-1, log)
	}
}
