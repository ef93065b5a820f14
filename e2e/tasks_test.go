package e2e

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"preforkd/internal/testkit"
	"preforkd/internal/testkit/cluster"
)

// TestTasks has every form of a task: its result is what the direct call answers.
func TestTasks(t *testing.T) {
	s, socket := tasking(t, testkit.Options{Ops: "127.0.0.1:0"})
	infer := string(slowBody(t, 1))
	rows := strings.Repeat(`[`+strings.Repeat("1,", 63)+"1],", 8000)
	large := `{"features":[` + rows[:len(rows)-1] + `]}` // more than a message holds, and so is its result
	pixels := make([]byte, 0, 256)
	for i := range 64 {
		pixels = binary.LittleEndian.AppendUint32(pixels, math.Float32bits(float32(i%17)))
	}
	for name, c := range map[string]struct {
		direct, body string
		header       []string
	}{
		"predict":     {"/predict/digits", features, nil},
		"infer":       {"/v2/models/digits/infer", infer, nil},
		"binary":      {"/v2/models/digits/infer", string(pixels), []string{"Inference-Header-Content-Length", "0"}},
		"large":       {"/predict/digits", large, nil},
		"invalid":     {"/predict/digits", `{"features":[1,2]}`, nil},
		"no features": {"/v2/models/digits/infer", `{"inputs":[]}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			direct, want, err := exchange(t, "POST", s.URL+c.direct, c.body, c.header...)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{
				submitted(t, s.URL, "digits", c.body, c.header...),
				strings.TrimPrefix(prefer(t, s.URL+c.direct, c.body, c.header), "/tasks/"),
			} {
				status, got := outcome(t, s.URL, id)
				if status != direct.StatusCode || got != want {
					t.Errorf("status %d, directly %d: %.300s, directly %.300s", status, direct.StatusCode, got, want)
				}
				again, _, err := exchange(t, "GET", s.URL+"/tasks/"+id+"/result", "")
				if err != nil || again.Header.Get("Content-Type") != direct.Header.Get("Content-Type") ||
					again.Header.Get("Inference-Header-Content-Length") != direct.Header.Get("Inference-Header-Content-Length") {
					t.Errorf("headers %v, directly %v", again.Header, direct.Header)
				}
			}
		})
	}
	must(t, socket, []string{"tasks", "ls"}, "digits.hi.", "succeeded")
	must(t, socket, []string{"status"}, "queue: serves")
}

// prefer makes a direct call whose answer may come later, and returns where.
func prefer(t *testing.T, url, body string, header []string) (location string) {
	t.Helper()
	resp, _ := demand(t, http.StatusAccepted, "POST", url, body, append([]string{"Prefer", "respond-async"}, header...)...)
	if resp.Header.Get("Preference-Applied") != "respond-async" {
		t.Errorf("headers %v", resp.Header)
	}
	return resp.Header.Get("Location")
}

func TestTasksThatAreNoneOrTooMuch(t *testing.T) {
	s, _ := tasking(t, testkit.Options{Set: []string{"tasks.max_input=1KiB", "tasks.max_tasks=3", "tasks.workers=0", "tasks.result_ttl=2s"}})
	url := s.URL + "/models/digits/tasks"
	id := submitted(t, s.URL, "digits", features, "Idempotency-Key", "k")
	for _, unknown := range []string{
		"x", id[:len(id)-1], id + "x", strings.ToUpper(id), "other" + id[6:], "digits.hi.aaaaaaaaaaaaaaaaaaaaaaaaaa", "..%2f" + id, strings.Repeat("a", 7000), "%00", "digits.hi.*", "digits.>",
	} {
		for _, path := range []string{"/tasks/" + unknown, "/result/" + unknown, "/tasks/" + unknown + "/result"} {
			demand(t, 404, "GET", s.URL+path, "")
		}
		demand(t, 404, "DELETE", s.URL+"/tasks/"+unknown, "")
	}
	demand(t, 404, "POST", s.URL+"/models/none/tasks", features)
	demand(t, 405, "PUT", s.URL+"/tasks/"+id, "")
	demand(t, 405, "GET", url, "")
	demand(t, 413, "POST", url, `{"features":[`+strings.Repeat("0,", 1000)+`0]}`)
	demand(t, 422, "POST", url, features+" ", "Idempotency-Key", "k")
	demand(t, 400, "POST", url, features, "Idempotency-Key", strings.Repeat("k", 300))
	demand(t, 400, "POST", url, features, "X-Request-Timeout", "soon")
	demand(t, 403, "GET", s.URL+"/tasks", "")
	demand(t, 202, "GET", s.URL+"/result/"+id, "")
	demand(t, 202, "GET", s.URL+"/result/"+id, "", "Prefer", "wait=1")
	submitted(t, s.URL, "digits", features)
	late := submitted(t, s.URL, "digits", features, "X-Request-Timeout", "1ms")
	if resp, _ := demand(t, 429, "POST", url, features); resp.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if again := submitted(t, s.URL, "digits", features, "Idempotency-Key", "k"); again != id {
		t.Errorf("a key has two tasks, %s and %s", id, again)
	}
	demand(t, 410, "GET", s.URL+"/result/"+late, "")
	demand(t, 200, "DELETE", s.URL+"/tasks/"+id, "")
	demand(t, 409, "DELETE", s.URL+"/tasks/"+id, "")
	demand(t, 409, "GET", s.URL+"/result/"+id, "")
	if testkit.Await(func() bool {
		resp, _, err := exchange(t, "GET", s.URL+"/result/"+id, "")
		return err == nil && resp.StatusCode == 410
	}) != nil {
		t.Error("its outcome does not expire")
	}
}

func TestTasksAreOffByDefault(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Workers: 1})
	demand(t, 501, "POST", s.URL+"/models/digits/tasks", features)
	demand(t, 200, "POST", s.URL+"/predict/digits", features, "Prefer", "respond-async")
	ends(t, socket, []string{"tasks", "ls"}, 69, "background tasks are off", "tasks.enabled")
	if n := len(s.Workers()); n != 1 {
		t.Errorf("%d processes, 1 is wanted", n)
	}
}

// TestTasksKeyOfManyClients: one key, many clients, one task.
func TestTasksKeyOfManyClients(t *testing.T) {
	s, socket := tasking(t, testkit.Options{Workers: 3})
	ids := func() map[string]bool {
		var wg sync.WaitGroup
		var mu sync.Mutex
		all := map[string]bool{}
		for range 50 {
			wg.Go(func() {
				id := submitted(t, s.URL, "digits", features, "Idempotency-Key", "one")
				mu.Lock()
				defer mu.Unlock()
				all[id] = true
			})
		}
		wg.Wait()
		return all
	}
	before := ids()
	for id := range before {
		outcome(t, s.URL, id)
	}
	kill(t, status1(t, socket).Tasks.PID, 9)
	after := ids()
	for id := range before {
		if len(before) != 1 || len(after) != 1 || !after[id] || state(t, s.URL, id).Attempts != 1 {
			t.Errorf("%v before, %v after", before, after)
		}
	}
}

// TestTasksInWorkers: without a pool of their own the workers that answer run them.
func TestTasksInWorkers(t *testing.T) {
	s, socket := tasking(t, testkit.Options{Workers: 1, Set: []string{"tasks.in_workers=true", "tasks.workers=0"}})
	if status, body := outcome(t, s.URL, submitted(t, s.URL, "digits", features)); status != 200 {
		t.Errorf("status %d: %s", status, body)
	}
	if st := status1(t, socket); len(st.Pools) != 1 {
		t.Errorf("pools: %+v", st.Pools)
	}
}

// TestTasksOnAnotherMachine has a service that answers, one that runs tasks and answers nobody, and a
// cluster between them, one server of which dies.
func TestTasksOnAnotherMachine(t *testing.T) {
	c := cluster.Start(t, "")
	set := []string{"tasks.enabled=true", "tasks.url=" + c.URL, "tasks.prefix=e2e"}
	s, socket := reloadable(t, testkit.Options{Workers: 1, Set: append(set, "tasks.workers=0")})
	storm := stormTasks(t, s.URL, 2)
	storm.more(5)
	only := testkit.Launch(t, testkit.Options{Bare: true, Set: append(set, "tasks.only=true", "workers=1")})
	only.Await("READY=1")
	storm.more(20)
	c.Kill()
	storm.more(20)
	storm.end()
	if st := status1(t, socket); st.Tasks.PID != 0 || !st.Tasks.Up {
		t.Errorf("%+v", st.Tasks)
	}
}

// TestTasksAreCancelled cancels tasks that wait and one that runs.
func TestTasksAreCancelled(t *testing.T) {
	s, _ := tasking(t, testkit.Options{Workers: 1})
	slow := string(slowBody(t, 20000))
	var ids []string
	for i := range 4 {
		ids = append(ids, submitted(t, s.URL, "digits-forest", slow, "Idempotency-Key", fmt.Sprint(i)))
	}
	for _, id := range ids {
		resp, text, err := exchange(t, "DELETE", s.URL+"/tasks/"+id, "")
		if err != nil || resp.StatusCode != 200 && resp.StatusCode != 202 && resp.StatusCode != 409 {
			t.Errorf("%v: %s", err, text)
		}
	}
	ended := map[string]int{}
	begun := time.Now()
	for _, id := range ids {
		outcome(t, s.URL, id)
		ended[state(t, s.URL, id).Status]++
	}
	if ended["cancelled"] == 0 || ended["cancelled"]+ended["succeeded"] != len(ids) {
		t.Errorf("%v", ended)
	}
	t.Logf("%v in %v", ended, time.Since(begun).Round(time.Millisecond))
}
