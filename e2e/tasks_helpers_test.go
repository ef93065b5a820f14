package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/testkit"
)

// features is a request to /predict of the model digits, and answered its answer begins so.
const (
	features  = `{"features":[0,0,5,12,9,1,0,0,0,0,14,14,13,13,0,0,0,3,12,1,1,13,4,0,0,7,8,0,0,6,8,0,0,8,8,0,0,5,8,0,0,5,10,0,0,11,4,0,0,1,15,9,11,13,0,0,0,0,7,15,12,2,0,0]}`
	predicted = `{"prediction":0,`
)

// taskSettings turn tasks on, with a store in dir.
func taskSettings(dir string, more ...string) []string {
	return append([]string{"tasks.enabled=true", "tasks.store=" + filepath.Join(dir, "tasks"), "tasks.allow_memory=true"}, more...)
}

// tasking starts a service with tasks.
func tasking(t *testing.T, o testkit.Options) (s *testkit.Service, socket string) {
	t.Helper()
	o.Set = append(taskSettings(t.TempDir()), o.Set...)
	return reloadable(t, o)
}

// exchange sends a request with headers and returns the answer.
func exchange(t testing.TB, method, url, body string, header ...string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := fresh.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp, string(data), err
}

// demand is exchange that must have an answer, with that status.
func demand(t testing.TB, want int, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	resp, text, err := exchange(t, method, url, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != want {
		t.Fatalf("%s %s: status %d, want %d: %.300s", method, url, resp.StatusCode, want, text)
	}
	return resp, text
}

// submitted submits a task and returns its id; it tries until it is accepted.
func submitted(t testing.TB, url, model, body string, header ...string) string {
	t.Helper()
	id := ""
	if err := testkit.Await(func() bool {
		resp, text, err := exchange(t, "POST", url+"/models/"+model+"/tasks", body, header...)
		if err != nil || resp.StatusCode != http.StatusAccepted {
			return false
		}
		var state ipc.TaskState
		if err := json.Unmarshal([]byte(text), &state); err != nil || resp.Header.Get("Location") != "/tasks/"+state.ID {
			t.Errorf("%v: %s, %s", err, resp.Header.Get("Location"), text)
		}
		id = state.ID
		return true
	}); err != nil {
		t.Fatal("no task is accepted")
	}
	return id
}

// outcome waits until a task has ended, and returns status and body of its result.
func outcome(t testing.TB, url, id string) (status int, body string) {
	t.Helper()
	if err := testkit.Await(func() bool {
		resp, text, err := exchange(t, "GET", url+"/result/"+id, "", "Prefer", "wait=2")
		if err != nil || resp.StatusCode == http.StatusAccepted || resp.StatusCode == http.StatusServiceUnavailable {
			return false
		}
		status, body = resp.StatusCode, text
		return true
	}); err != nil {
		_, state, _ := exchange(t, "GET", url+"/tasks/"+id, "")
		t.Fatalf("task %s does not end: %s", id, state)
	}
	return status, body
}

// state is how a task is.
func state(t testing.TB, url, id string) (s ipc.TaskState) {
	t.Helper()
	if err := testkit.Await(func() bool { // the queue may be on its way back
		resp, text, err := exchange(t, "GET", url+"/tasks/"+id, "")
		return err == nil && resp.StatusCode == 200 && json.Unmarshal([]byte(text), &s) == nil
	}); err != nil {
		t.Fatalf("how task %s is cannot be found out", id)
	}
	return s
}

// taskStorm submits tasks from several clients until end is called, which waits for the outcome of
// every task that was accepted: none may be missing.
type taskStorm struct {
	t        *testing.T
	url      string
	mu       sync.Mutex // guards the fields below
	accepted []string
	refused  int
	longest  time.Duration // that an accepted one took
	stop     chan struct{}
	halt     func() // closes it and waits, once
	wg       sync.WaitGroup
}

func stormTasks(t *testing.T, url string, clients int) *taskStorm {
	t.Helper()
	s := &taskStorm{t: t, url: url, stop: make(chan struct{})}
	s.halt = sync.OnceFunc(func() { close(s.stop); s.wg.Wait() })
	t.Cleanup(s.halt)
	for c := range clients {
		s.wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-s.stop:
					return
				default:
				}
				s.one(fmt.Sprintf("%d-%d", c, i))
			}
		})
	}
	return s
}

// one submits a task until it is accepted, with a key: none is there twice.
func (s *taskStorm) one(key string) {
	begun := time.Now()
	for time.Since(begun) < testkit.Limit {
		resp, text, err := exchange(s.t, "POST", s.url+"/models/digits/tasks", features, "Idempotency-Key", key)
		var state ipc.TaskState
		if err == nil && resp.StatusCode == http.StatusAccepted && json.Unmarshal([]byte(text), &state) == nil {
			s.mu.Lock()
			s.accepted = append(s.accepted, state.ID)
			s.longest = max(s.longest, time.Since(begun))
			s.mu.Unlock()
			return
		}
		s.mu.Lock()
		s.refused++
		s.mu.Unlock()
		select {
		case <-time.After(10 * time.Millisecond): // whoever is refused tries again later
		case <-s.stop:
			return
		}
	}
	s.t.Errorf("task %s was never accepted", key)
}

// more waits until so many more tasks have been accepted.
func (s *taskStorm) more(n int) {
	s.t.Helper()
	count := func() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.accepted) }
	want := count() + n
	if testkit.Await(func() bool { return count() >= want }) != nil {
		s.t.Fatal("no more tasks are accepted")
	}
}

// end ends the storm and counts; it returns how many runs there were beyond one for each task.
func (s *taskStorm) end() (again int) {
	s.t.Helper()
	s.halt()
	for _, id := range s.accepted {
		if status, body := outcome(s.t, s.url, id); status != 200 || !strings.HasPrefix(body, predicted) {
			s.t.Errorf("task %s: status %d: %.200s", id, status, body)
		}
		again += state(s.t, s.url, id).Attempts - 1
	}
	s.t.Logf("accepted %d, finished %d, lost 0, run twice %d, refused meanwhile %d, the longest acceptance %v",
		len(s.accepted), len(s.accepted), again, s.refused, s.longest.Round(time.Millisecond))
	return again
}
