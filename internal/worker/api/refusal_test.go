package api

import (
	"slices"
	"strings"
	"testing"

	"preforkd/internal/inference/repository"
	"preforkd/internal/worker/admission"
)

// TestRefusedModel: what would run it is answered with 503 and the reason, and runs
// nothing; its description is there, and so are the other models.
func TestRefusedModel(t *testing.T) {
	const why = `model "two" is quarantined: 3 workers ended`
	ran := 0
	a := newAPI(t, Options{
		Refusal: func(m *repository.Model) string {
			if m.Name == "two" {
				return why
			}
			return ""
		},
		Entering: func(*repository.Model, []byte) { ran++ }, Left: func() {},
	})
	address := serve(t, a, limits)
	for _, c := range []struct {
		request string
		status  int
		ran     int
	}{
		{post("/v2/models/two/infer", "this is not even read"), 503, 0},
		{post("/v2/models/two/versions/1/infer", "{}"), 503, 0},
		{post("/predict/two", "{}"), 503, 0},
		{"GET /v2/models/two/ready HTTP/1.1\r\nHost: x\r\n\r\n", 503, 0},
		{"GET /v2/models/two/versions/1/ready HTTP/1.1\r\nHost: x\r\n\r\n", 503, 0},
		{"GET /v2/models/two HTTP/1.1\r\nHost: x\r\n\r\n", 200, 0},
		{"GET /v2/models/digits/ready HTTP/1.1\r\nHost: x\r\n\r\n", 200, 0},
		{"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", 200, 0},
		{post("/predict", features), 200, 1},
	} {
		ran = 0
		conn := dial(t, address)
		conn.send(t, c.request)
		status, body, _ := conn.answer(t)
		if status != c.status || ran != c.ran || status == 503 && !strings.Contains(body, `model \"two\" is quarantined: 3 workers ended`) {
			t.Errorf("%.40q: %d, %d runs: %s", c.request, status, ran, body)
		}
	}
}

// TestRefusedWhileItWaited: a model that is quarantined after a request for it has been
// let in does not run. The row names it before that is decided: whoever begins after the
// quarantine sees it.
func TestRefusedWhileItWaited(t *testing.T) {
	var told []string
	named := false
	a := newAPI(t, Options{
		Permits: admission.New(admission.Options{Limit: 1}),
		Refusal: func(*repository.Model) string {
			if named {
				return "quarantined meanwhile"
			}
			return ""
		},
		Entering: func(m *repository.Model, body []byte) {
			named = true
			told = append(told, m.Name+" "+m.Version+" "+string(body[:11]))
		},
		Left: func() { told = append(told, "left") },
	})
	ctx := request("/predict", features)
	a.Handle(ctx)
	if got := string(ctx.Response.Body()); ctx.Response.StatusCode() != 503 || !strings.Contains(got, "quarantined meanwhile") {
		t.Errorf("%d: %s", ctx.Response.StatusCode(), got)
	}
	if want := []string{"digits 2 {\"features\"", "left"}; !slices.Equal(told, want) {
		t.Errorf("%q, want %q", told, want)
	}
	if a.Permits.InUse() != 0 {
		t.Error("a permit is lost")
	}
}

// TestLeftAfterPanic: an engine that panics is no longer entered.
func TestLeftAfterPanic(t *testing.T) {
	depth := 0
	a := newAPI(t, Options{Entering: func(*repository.Model, []byte) { depth++ }, Left: func() { depth-- }})
	for _, model := range []string{"panicking", "failing", "nan"} {
		ctx := request("/v2/models/"+model+"/infer", `{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1]}]}`)
		a.Handle(ctx)
		if ctx.Response.StatusCode() != 500 || depth != 0 {
			t.Errorf("%s: %d, entered %d times: %s", model, ctx.Response.StatusCode(), depth, ctx.Response.Body())
		}
	}
}
