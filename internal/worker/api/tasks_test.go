package api

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/worker/task"
)

func TestPreferences(t *testing.T) {
	for text, want := range map[string]struct {
		wait  time.Duration
		later bool
	}{
		"":                                      {0, false},
		"respond-async":                         {0, true},
		"Respond-Async, wait=10":                {10 * time.Second, true},
		"wait=\"3\" ; x=y,handling=lenient":     {3 * time.Second, false},
		"wait=-1, wait=x, respond-asynchronous": {0, false},
		"wait=99999999999999999999":             {0, false},
	} {
		if wait, later := preferences([]byte(text)); wait != want.wait || later != want.later {
			t.Errorf("%q: %v, %v", text, wait, later)
		}
	}
}

func FuzzPreferences(f *testing.F) {
	f.Add([]byte("respond-async, wait=10; q=1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if wait, _ := preferences(text); wait < 0 {
			t.Errorf("%q: a wait of %v", text, wait)
		}
	})
}

func TestWhichCallATaskIs(t *testing.T) {
	for body, want := range map[string]bool{
		`{"inputs":[]}`: true, `{"id":"1","parameters":{"inputs":1},"inputs":[]}`: true, `{"features":[],"inputs":[]}`: false,
		`{"parameters":{"inputs":1},"features":[]}`: false, ``: false, `[]`: false, `{`: false, `{"id":`: false, "\x00\x01": false, `"inputs"`: false,
	} {
		if got := hasInputs([]byte(body)); got != want {
			t.Errorf("%q: %v", body, got)
		}
	}
}

// TestPerform has tasks run as the direct calls that they stand for.
func TestPerform(t *testing.T) {
	a := newAPI(t, Options{Entering: nil})
	predict := &task.Task{Request: task.Request{Model: "digits", Kind: kindPredict, Body: []byte(`{"features":[[1]]}`)}}
	direct := func(path string, body []byte) (int, string) {
		var ctx fasthttp.RequestCtx
		ctx.Request.Header.SetMethod("POST")
		ctx.Request.SetRequestURI(path)
		ctx.Request.SetBody(body)
		ctx.Request.Header.SetContentLength(len(body))
		a.Handle(&ctx)
		return ctx.Response.StatusCode(), string(ctx.Response.Body())
	}
	status, body := direct("/predict/digits", predict.Body)
	o := a.Perform(context.Background(), predict)
	if o.Result == nil || o.Result.Code != status || string(o.Result.Body) != body || o.Retry {
		t.Errorf("%+v, directly %d %s", o, status, body)
	}
	o = a.Perform(context.Background(), &task.Task{Request: task.Request{Model: "none", Kind: kindInfer, Body: []byte(`{}`)}})
	if o.Result == nil || o.Result.Code != 404 || o.Error == "" || o.Retry || !strings.HasPrefix(string(o.Result.Body), `{"error":`) {
		t.Errorf("%+v", o)
	}
}
