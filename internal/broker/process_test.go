package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/store"
	"preforkd/internal/testkit"
)

// client connects to b and goes on trying.
func client(t *testing.T, a store.Access) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(a.URL(), nats.Token(a.Token), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond),
		nats.RetryOnFailedConnect(true), nats.IgnoreAuthErrorAbort(), nats.ReconnectJitter(time.Millisecond, time.Millisecond), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

func stream(t *testing.T, js jetstream.JetStream, name string) jetstream.Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Limit)
	defer cancel()
	s, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{strings.ToLower(name) + ".>"}, Retention: jetstream.WorkQueuePolicy})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put publishes until it is acknowledged, and says how long that took.
func put(t *testing.T, js jetstream.JetStream, subject string, data []byte) time.Duration {
	t.Helper()
	begun := time.Now()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := js.Publish(ctx, subject, data, jetstream.WithMsgID(subject))
		cancel()
		if err == nil {
			return time.Since(begun)
		}
		if time.Since(begun) > testkit.Limit {
			t.Fatalf("publish %s: %v", subject, err)
		}
	}
}

func messages(t *testing.T, s jetstream.Stream) uint64 {
	t.Helper()
	for begun := time.Now(); ; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		info, err := s.Info(ctx)
		cancel()
		if err == nil {
			return info.State.Msgs
		}
		if time.Since(begun) > testkit.Limit {
			t.Fatal(err)
		}
	}
}

func TestNobodyWithoutTheToken(t *testing.T) {
	b := testkit.StartBroker(t, t.TempDir())
	for _, token := range []string{"", "wrong", b.Access.Token[1:]} {
		if nc, err := nats.Connect(b.Access.URL(), nats.Token(token)); err == nil {
			nc.Close()
			t.Errorf("token %q was taken", token)
		} else if !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("token %q: %v", token, err)
		}
	}
	nc, _ := client(t, b.Access)
	m, err := nc.Request(store.StateSubject, nil, testkit.Limit)
	if err != nil || !strings.Contains(string(m.Data), `"sync":"always"`) {
		t.Errorf("state: %v, %v", m, err)
	}
	if status := b.Kill(syscall.SIGTERM); status != 0 {
		t.Errorf("TERM: status %d", status)
	}
}

func TestAcceptedSurvivesKills(t *testing.T) {
	dir := t.TempDir()
	b := testkit.StartBroker(t, dir)
	_, js := client(t, b.Access)
	s := stream(t, js, "Q")
	n := 0
	for range 4 {
		pid := b.PID
		time.AfterFunc(30*time.Millisecond, func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
		for testkit.Alive(pid) {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			if _, err := js.Publish(ctx, fmt.Sprintf("q.%d", n), nil, jetstream.WithRetryAttempts(0)); err == nil {
				n++
			}
			cancel()
		}
		b = testkit.StartBroker(t, dir)
	}
	// Those whose answer was lost may be there as well: one for each kill, and each attempt of it.
	if got := messages(t, s); got < uint64(n) || n == 0 {
		t.Errorf("%d were accepted, %d are there", n, got)
	}
}

func TestSecondBrokerStandsBy(t *testing.T) {
	dir := t.TempDir()
	first := testkit.StartBroker(t, dir)
	_, js := client(t, first.Access)
	s := stream(t, js, "Q")
	second := testkit.LaunchBroker(t, dir)
	second.Await("STATUS=stands by")
	longest, n, done := time.Duration(0), 0, make(chan struct{})
	go func() {
		first.Kill(syscall.SIGTERM)
		second.Await("READY=1")
		close(done)
	}()
	for after := 0; after < 10; n++ {
		select {
		case <-done:
			after++
		default:
		}
		longest = max(longest, put(t, js, fmt.Sprintf("q.%d", n), nil))
	}
	t.Logf("%d accepted, the longest took %v", n, longest)
	if got := messages(t, s); got != uint64(n) {
		t.Errorf("%d were accepted, %d are there", n, got)
	}
}

func TestEndsWithItsSupervisor(t *testing.T) {
	dir := t.TempDir()
	if _, err := store.Prepare(dir); err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// The shell sets LISTEN_PID and becomes the broker.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" --store "$1"`, filepath.Join(testkit.Programs(t), "preforkd-broker"), dir)
	cmd.Env = append(os.Environ(), "LISTEN_FDS=0", ipc.EnvFDNames+"="+ipc.FDLifeline, "GORACE=atexit_sleep_ms=0")
	cmd.ExtraFiles = []*os.File{read}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read.Close()
	write.Close() // as the kernel does when its holder dies
	if err := cmd.Wait(); err != nil {
		t.Errorf("end: %v", err)
	}
}

func TestPortIsTaken(t *testing.T) {
	dir := t.TempDir()
	a, err := store.Prepare(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := testkit.LaunchBroker(t, dir)
	b.Kill(syscall.SIGKILL)
	ln, err := net.Listen("tcp", a.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cmd := exec.Command(filepath.Join(testkit.Programs(t), "preforkd-broker"), "--store", dir)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != ipc.ExitUnavailable || !strings.Contains(string(out), a.Address()) {
		t.Errorf("%v: %s", err, out)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"--store", "relative"}, {"--none"}} {
		cmd := exec.Command(filepath.Join(testkit.Programs(t), "preforkd-broker"), args...)
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != ipc.ExitUsage {
			t.Errorf("%q: %v: %s", args, cmd.ProcessState, out)
		}
	}
}
