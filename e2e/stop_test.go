package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"preforkd/internal/testkit"
)

// inFlight sends n slow requests and returns once every one of them has been written;
// results carries each one's outcome.
func inFlight(t *testing.T, s *testkit.Service, n, rows int) (results <-chan error) {
	t.Helper()
	body := slowBody(t, rows)
	written := make(chan struct{}, n)
	done := make(chan error, n)
	for range n {
		go func() {
			done <- func() error {
				req, err := http.NewRequest(http.MethodPost, s.URL+"/v2/models/digits-forest/infer", &announced{bytes.NewReader(body), written})
				if err != nil {
					return err
				}
				req.ContentLength = int64(len(body))
				resp, err := fresh.Do(req)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				data, err := io.ReadAll(resp.Body)
				if err == nil && resp.StatusCode != 200 {
					err = fmt.Errorf("%d: %.200s", resp.StatusCode, data)
				}
				return err
			}()
		}()
	}
	for range n {
		<-written
	}
	return done
}

// announced reports when it has been read to its end.
type announced struct {
	*bytes.Reader
	read chan<- struct{}
}

func (a *announced) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if a.Len() == 0 && n > 0 {
		a.read <- struct{}{}
	}
	return n, err
}

func TestStopFinishesWhatIsInFlight(t *testing.T) {
	s := testkit.Start(t, testkit.Options{})
	const n = 12
	done := inFlight(t, s, n, 4000)
	s.Signal(syscall.SIGTERM)
	for range n {
		if err := <-done; err != nil {
			t.Errorf("lost: %v", err)
		}
	}
	if status := s.Wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if resp, err := fresh.Get(s.URL + "/livez"); err == nil {
		resp.Body.Close()
		t.Error("somebody still answers")
	}
}

func TestDrainClock(t *testing.T) {
	s := testkit.Start(t, testkit.Options{Workers: 1, Set: []string{"timeouts.drain=50ms", "http.max_body=64MiB"}})
	const n = 8
	done := inFlight(t, s, n, 20000)
	s.Signal(syscall.SIGTERM)
	if status := s.Wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	lost := 0
	for range n {
		if err := <-done; err != nil {
			lost++
		}
	}
	if lost == 0 {
		t.Error("all was answered: the drain clock did not bite")
	}
	// The worker keeps the clock itself and counts what it gives up; on a machine that is too
	// busy for it to do so the supervisor kills it a second later, and counts.
	text := s.LogText()
	counted := regexp.MustCompile(`msg="(drain given up|requests lost)".* requests=(\d+)`).FindStringSubmatch(text)
	if !strings.Contains(text, "clock=timeouts.drain") || counted == nil {
		t.Fatalf("the log does not name the clock, or not what was lost:\n%s", text)
	}
	// One more may be answered between the count and the end; one that has not been begun
	// is lost with its connection and not counted.
	if n, err := strconv.Atoi(counted[2]); err != nil || n < 1 || n > lost+1 {
		t.Errorf("the log counts %s lost requests, %d were:\n%s", counted[2], lost, text)
	}
}

func TestQuickSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		s := testkit.Start(t, testkit.Options{Set: []string{"http.max_body=64MiB"}})
		done := inFlight(t, s, 2, 20000)
		s.Signal(sig)
		if status := s.Wait(); status != 0 {
			t.Errorf("%v: exit status %d", sig, status)
		}
		for range 2 {
			<-done // answered or not: quick is quick
		}
		if !strings.Contains(s.LogText(), "mode=quick") {
			t.Errorf("%v: not quick:\n%s", sig, s.LogText())
		}
	}
}

// TestSecondSignalIsImmediate: the same one again within 200 ms counts once, a
// different one at any time does not.
func TestSecondSignalIsImmediate(t *testing.T) {
	// A worker that never leaves by itself keeps the service from stopping.
	command := pythonWorker(t, `
signal.signal(signal.SIGTERM, signal.SIG_IGN)
notify("READY=1")
time.sleep(1000)
`)
	s := testkit.Start(t, testkit.Options{Set: []string{"worker.ready=notify", "worker.command=" + command, "timeouts.drain=1h"}})
	n := s.Reports()
	s.Signal(syscall.SIGTERM)
	s.AwaitAfter(n, "STOPPING=1")
	s.Signal(syscall.SIGINT)
	if status := s.Wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if !strings.Contains(s.LogText(), "mode=immediate") {
		t.Errorf("not immediate:\n%s", s.LogText())
	}
}

func TestSameSignalTwiceCountsOnce(t *testing.T) {
	s := testkit.Start(t, testkit.Options{})
	done := inFlight(t, s, 4, 4000)
	s.Signal(syscall.SIGTERM)
	s.Signal(syscall.SIGTERM)
	for range 4 {
		if err := <-done; err != nil {
			t.Errorf("lost: %v", err)
		}
	}
	s.Wait()
	if strings.Contains(s.LogText(), "mode=immediate") {
		t.Errorf("it was immediate:\n%s", s.LogText())
	}
}

// TestCtrlC types it at a terminal: it reaches the main process, and workers only
// through it.
func TestCtrlC(t *testing.T) {
	cmd := testkit.Options{}.Command(t)
	master, slave, err := pty.Open()
	if err != nil {
		t.Skipf("skipped: no pseudo-terminal: %v", err)
	}
	defer master.Close()
	cmd.Stdin = slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	s := testkit.LaunchCommand(t, cmd)
	slave.Close()
	s.Await("READY=1")
	workers := s.Workers()
	if _, err := master.Write([]byte{3}); err != nil { // the terminal's interrupt character
		t.Fatal(err)
	}
	if status := s.Wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	text := s.LogText()
	if !strings.Contains(text, "mode=quick signal=interrupt") {
		t.Errorf("no interrupt arrived:\n%s", text)
	}
	if strings.Count(text, "worker left") != len(workers) || strings.Contains(text, "worker died") {
		t.Errorf("workers did not leave as told:\n%s", text)
	}
}

// TestServiceLeavesWithItsMainProcess kills that in a way that it cannot tell anybody.
func TestServiceLeavesWithItsMainProcess(t *testing.T) {
	s := testkit.Start(t, testkit.Options{})
	done := inFlight(t, s, 4, 4000)
	s.Signal(syscall.SIGKILL)
	s.Wait()
	for range 4 {
		if err := <-done; err != nil {
			t.Errorf("lost: %v", err)
		}
	}
	// That the workers are gone is checked when the test ends.
}

func TestSignalsThatChangeNothing(t *testing.T) {
	s := testkit.Start(t, testkit.Options{})
	workers := s.Workers()
	for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGWINCH} {
		// TTIN and TTOU scale, see TestScaleBySignals; USR2 upgrades, see TestUpgradeBySignal.
		if sig != syscall.SIGTTIN && sig != syscall.SIGTTOU && sig != syscall.SIGUSR2 {
			s.Signal(sig)
		}
		for _, pid := range workers { // as systemctl kill does
			kill(t, pid, sig)
		}
	}
	for range 20 {
		if status, body := get(t, s.URL+"/readyz"); status != 200 {
			t.Fatalf("%d: %s", status, body)
		}
	}
	if got := s.Workers(); fmt.Sprint(got) != fmt.Sprint(workers) {
		t.Errorf("workers were %v and are %v", workers, got)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", s.PID)); err != nil {
		t.Error(err)
	}
}
