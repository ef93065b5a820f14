package api

import (
	"context"
	"strings"
	"testing"
	"time"

	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
	"preforkd/internal/worker/admission"
)

// TestModelsOwnBodyLimit: it holds for requests of the model, in all their forms, and for
// no others on the same connection.
func TestModelsOwnBodyLimit(t *testing.T) {
	s := ipc.ModelSettings{Limits: ipc.ModelLimits{MaxBody: 1 << 10}}
	address := serve(t, settled(t, "digits", s, Options{}), limits)
	long := `{"features":` + row + strings.Repeat(" ", 1<<10) + `}`
	const want = `body: larger than limits.max_body of model \"m\", which is 1024 bytes`
	const chunks = `body: larger than limits.max_body of the model or http.max_body, which is 65536 bytes`
	for _, head := range []string{
		"POST /predict", "POST /predict/m?x=y", "POST /v2/models/m/infer", "POST /v2/models/m/versions/1/infer", "POST http://elsewhere/predict",
	} {
		for _, framing := range []string{"Content-Length: " + itoa(len(long)) + "\r\n\r\n" + long, "Transfer-Encoding: chunked\r\n\r\n" +
			"800\r\n" + strings.Repeat(" ", 0x800) + "\r\n0\r\n\r\n", "Expect: 100-continue\r\nContent-Length: 2000\r\n\r\n"} {
			c := dial(t, address)
			c.send(t, head+" HTTP/1.1\r\nHost: x\r\n"+framing)
			if status, body, _ := c.answer(t); status != 413 || !strings.Contains(body, want) && !strings.Contains(body, chunks) {
				t.Errorf("%s, %.20s: %d %s", head, framing, status, body)
			}
		}
	}
	c := dial(t, address)
	c.send(t, post("/predict", `{"features":`+row+`}`))
	if status, body, _ := c.answer(t); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	c.send(t, post("/v2/repository/index", "{}"+strings.Repeat(" ", 2<<10)))
	if status, body, _ := c.answer(t); status != 200 {
		t.Errorf("another route after it: %d %s", status, body)
	}
	c.send(t, post("/predict/nobody", long))
	if status, body, _ := c.answer(t); status != 404 {
		t.Errorf("an unknown model: %d %s", status, body)
	}
}

// TestWiderBodyLimit: a model's limit does not widen that of all.
func TestWiderBodyLimit(t *testing.T) {
	s := ipc.ModelSettings{Limits: ipc.ModelLimits{MaxBody: 1 << 30}}
	c := dial(t, serve(t, settled(t, "digits", s, Options{}), limits))
	c.send(t, "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
	if status, body, _ := c.answer(t); status != 413 || !strings.Contains(body, "http.max_body") {
		t.Errorf("%d %s", status, body)
	}
}

// TestModelsOwnTimeout: a run that outlasts it is answered, and a request that waits for
// one, long before those of all are.
func TestModelsOwnTimeout(t *testing.T) {
	s := ipc.ModelSettings{Limits: ipc.ModelLimits{Timeout: 20 * time.Millisecond}}
	a := settled(t, "digits", s, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	watched := make(chan struct{})
	go func() { a.Watch(ctx); close(watched) }()
	defer func() { cancel(); <-watched }()
	permit, err := a.Permits.Acquire(admission.Claim{Wait: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, serve(t, a, limits))
	c.send(t, post("/predict", `{"features":`+row+`}`))
	if status, body, _ := c.answer(t); status != 504 || !strings.Contains(body, "no inference could start within 20ms") {
		t.Errorf("%d %s", status, body)
	}
	a.Permits.Release(permit)
	c.send(t, post("/predict", `{"features":`+row+`}`))
	if status, body, _ := c.answer(t); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	if err := lateError(a.Models.All()[0], a.timeout(a.Models.All()[0])); !strings.Contains(err.Error(), "within the model's limits.timeout, which is 20ms") {
		t.Error(err)
	}
	if a.view.Load().shortest != 20*time.Millisecond {
		t.Errorf("the clock looks for %v", a.view.Load().shortest)
	}
}

func TestLargestBatch(t *testing.T) {
	c := dial(t, serve(t, settled(t, "digits", settings, Options{}), limits))
	rows := func(n int) string { return "[" + strings.Repeat(row+",", n-1) + row + "]" }
	for n, want := range map[int]int{1: 200, 8: 200, 9: 400} {
		for path, body := range map[string]string{
			"/predict":           `{"features":` + rows(n) + `}`,
			"/v2/models/m/infer": inferPixels("["+itoa(n)+",64]", rows(n)),
		} {
			c.send(t, post(path, body))
			if status, body, _ := c.answer(t); status != want || status == 400 && !strings.Contains(body, `inputs: 9 rows, model \"m\" takes at most 8 (max_batch_size)`) {
				t.Errorf("%s, %d rows: %d %s", path, n, status, body)
			}
		}
	}
}

func TestPathOf(t *testing.T) {
	for uri, want := range map[string]string{
		"/a/b?c=/d": "/a/b", "/a#b": "/a", "http://h/a?b": "/a", "http://h": "h", "*": "*", "": "", "/a?u=http://x/y": "/a", "//a/b": "//a/b",
	} {
		if got := string(pathOf([]byte(uri))); got != want {
			t.Errorf("%q: %q, want %q", uri, got, want)
		}
	}
}

// TestRunOutlastsTheModelsOwnTimeout: whether it can be stopped or not.
func TestRunOutlastsTheModelsOwnTimeout(t *testing.T) {
	info := []inference.TensorInfo{tensor("x", inference.FP32, -1, 1)}
	end := make(chan struct{})
	engine := engine{
		"stops": {in: info, out: info, runUntil: func(s *stop, _, _ []inference.Tensor) error {
			<-s.done()
			return inference.ErrStopped
		}},
		"goes on": {in: info, out: info, runUntil: func(*stop, []inference.Tensor, []inference.Tensor) error {
			<-end
			return nil
		}},
	}
	var files []ipc.ModelFile
	for name := range engine {
		files = append(files, ipc.ModelFile{Name: name, Version: "1", Path: name, Options: ipc.ModelSettings{
			Limits: ipc.ModelLimits{Timeout: 30 * time.Millisecond},
		}})
	}
	r, err := repository.Load(engine, files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	a := New(Options{Models: r, Permits: admission.New(admission.Options{Limit: 2}), RequestTimeout: time.Minute})
	ctx, cancel := context.WithCancel(context.Background())
	watched := make(chan struct{})
	go func() { a.Watch(ctx); close(watched) }()
	t.Cleanup(func() { cancel(); <-watched })
	address := serve(t, a, limits)
	t.Cleanup(func() { close(end) }) // before the server ends
	for _, path := range []string{"/v2/models/stops/infer", "/v2/models/goes%20on/infer"} {
		c := dial(t, address)
		c.send(t, post(path, `{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1]}]}`))
		if status, body, _ := c.answer(t); status != 504 || !strings.Contains(body, "within the model's limits.timeout, which is 30ms") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}
