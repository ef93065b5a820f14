package api

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
	"preforkd/internal/worker/admission"
)

// TestBodyStaysUntilTheRunEnds: a large binary input is the request's body itself, which a
// run reads that outlives its client's answer. Until it ends nobody else gets that memory.
func TestBodyStaysUntilTheRunEnds(t *testing.T) {
	info := []inference.TensorInfo{tensor("x", inference.Uint8, -1)}
	begun, end := make(chan []byte, 1), make(chan struct{})
	seen := make(chan []byte, 1)
	nothing := func(out []inference.Tensor) error {
		out[0].Name = "x"
		return out[0].Reset(inference.Uint8, []int64{0})
	}
	models, err := repository.Load(engine{
		"quick": {in: info, out: info, run: func(_, out []inference.Tensor) error { return nothing(out) }},
		"slow": {in: info, out: info, runUntil: func(_ *stop, in, out []inference.Tensor) error {
			begun <- in[0].Raw()
			<-end
			seen <- bytes.Clone(in[0].Raw())
			return nothing(out)
		}},
	}, []ipc.ModelFile{{Name: "quick", Version: "1", Path: "quick"}, {Name: "slow", Version: "1", Path: "slow"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(models.Close)
	st := &station{t: t, permits: admission.New(admission.Options{Limit: 2})}
	st.api = New(Options{Models: models, Permits: st.permits, Runners: 2, RequestTimeout: limit})
	st.serve("tcp")
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() { st.api.Watch(ctx) })
	t.Cleanup(watch.Wait)
	t.Cleanup(cancel)

	raw := func(model, fill string) string {
		return postWith("/v2/models/"+model+"/infer", "Inference-Header-Content-Length: 0\r\n", strings.Repeat(fill, limits.MaxBody))
	}
	c := st.dial()
	c.send(t, raw("slow", "a"))
	body := <-begun
	if status, text, h := c.answer(t); status != 504 || h.Get("Connection") != "close" {
		t.Fatalf("%d %s", status, text)
	}
	c.ends(t)
	for range 20 { // others, whose bodies would be written to memory that is free
		other := st.dial()
		other.send(t, raw("quick", "b"))
		if status, text, _ := other.answer(t); status != 200 {
			t.Errorf("another: %d %s", status, text)
		}
	}
	if a := body[0]; a != 'a' {
		t.Errorf("the body begins with %q", a)
	}
	close(end)
	select {
	case got := <-seen:
		if want := bytes.Repeat([]byte("a"), limits.MaxBody); !bytes.Equal(got, want) {
			t.Errorf("the run read another's body: %.40q…", got)
		}
	case <-time.After(time.Minute):
		t.Fatal("the run has not ended")
	}
}
