package api

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/valyala/fasthttp"

	"preforkd/internal/worker/lab"
	"preforkd/internal/worker/task"
)

// document loads GET /openapi.json.
func document(t *testing.T, a *API) *openapi3.T {
	t.Helper()
	resp := get(a, "/openapi.json")
	if resp.StatusCode() != 200 || string(resp.Header.ContentType()) != "application/json" {
		t.Fatalf("%d %s", resp.StatusCode(), resp.Header.ContentType())
	}
	doc, err := openapi3.NewLoader().LoadFromData(resp.Body())
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestOpenAPIIsValid(t *testing.T) {
	a := newAPI(t, Options{Tasks: task.New(task.Options{})})
	setLabels(t, a)
	doc := document(t, a)
	// Examples are checked against their schemas as well.
	if err := doc.Validate(context.Background()); err != nil {
		t.Error(err)
	}
	if doc.OpenAPI != "3.1.0" || doc.Info.Version != "1.2.3" {
		t.Errorf("%s, %s", doc.OpenAPI, doc.Info.Version)
	}
}

// TestEveryRouteIsDocumented walks the table of routes.
func TestEveryRouteIsDocumented(t *testing.T) {
	a := newAPI(t, Options{Tasks: task.New(task.Options{}), Routes: []Route{{Path: "/mine/too", Layer: Async, Lab: &Lab{lab.Sleep, time.Millisecond}}}})
	setLabels(t, a)
	documented := make(map[endpoint]bool)
	for path, item := range document(t, a).Paths.Map() {
		found := a.locate([]byte(filled(path, item))).endpoint
		documented[found] = true
		method := "GET"
		if endpoints[found].allow == postOnly {
			method = "POST"
		}
		if len(item.Operations()) != 1 || item.GetOperation(method) == nil {
			t.Errorf("%s: %v are documented, %s is answered", path, item.Operations(), endpoints[found].allow)
		}
	}
	for e := range endpoints {
		if endpoint(e) != nowhere && !documented[endpoint(e)] {
			t.Errorf("endpoint %d is not documented", e)
		}
	}
	if len(operations) != len(endpoints) {
		t.Errorf("%d operations, %d endpoints", len(operations), len(endpoints))
	}
}

// filled is a path with the last value of each parameter.
func filled(path string, item *openapi3.PathItem) string {
	for _, o := range item.Operations() {
		for _, p := range o.Parameters {
			if values := p.Value.Schema.Value.Enum; p.Value.In == "path" && len(values) == 0 { // an id
				path = strings.Replace(path, "{"+p.Value.Name+"}", "m.hi.x", 1)
			} else if p.Value.In == "path" {
				path = strings.Replace(path, "{"+p.Value.Name+"}", values[0].(string), 1)
			}
		}
	}
	return path
}

// TestWhatIsDocumentedAnswers sends each example to each path: the status is one that the
// document has, and the answer fits its schema.
func TestWhatIsDocumentedAnswers(t *testing.T) {
	a := newAPI(t, Options{Routes: []Route{{Path: "/mine", Lab: &Lab{lab.Sleep, time.Millisecond}}}})
	setLabels(t, a)
	doc := document(t, a)
	if n := doc.Paths.Len(); n < 60 {
		t.Errorf("only %d paths", n)
	}
	for path, item := range doc.Paths.Map() {
		for method, o := range item.Operations() {
			var ctx fasthttp.RequestCtx
			ctx.Request.Header.SetMethod(method)
			ctx.Request.SetRequestURI(filled(path, item))
			if o.RequestBody != nil {
				example := o.RequestBody.Value.Content["application/json"].Example
				body, err := json.Marshal(example)
				if err != nil || example == nil {
					t.Errorf("%s has no example: %v", path, err)
				}
				ctx.Request.SetBody(body)
				ctx.Request.Header.SetContentLength(len(body))
			}
			a.Handle(&ctx)
			checkAnswer(t, path, o, &ctx.Response)
		}
	}
}

func checkAnswer(t *testing.T, path string, o *openapi3.Operation, resp *fasthttp.Response) {
	t.Helper()
	status := resp.StatusCode()
	bad := slices.ContainsFunc([]string{"/failing", "/panicking", "/nan"}, func(s string) bool { return strings.Contains(path, s) })
	described := o.Responses.Status(status)
	if described == nil && bad { // models that fail, and that is what they are for
		described = o.Responses.Default()
	}
	if described == nil {
		t.Fatalf("%s: status %d is not documented: %s", path, status, resp.Body())
	}
	if status != 200 && status != 501 && status != 403 && !bad {
		t.Errorf("%s: %d %s", path, status, resp.Body())
	}
	media := described.Value.Content.Get(string(resp.Header.ContentType()))
	if media == nil {
		t.Fatalf("%s: the content type %s is not documented", path, resp.Header.ContentType())
	}
	if media.Schema.Value.Type.Is("string") {
		return
	}
	var value any
	if err := json.Unmarshal(resp.Body(), &value); err != nil {
		if !strings.Contains(path, "/nan") {
			t.Errorf("%s: %v in %s", path, err, resp.Body())
		}
		return
	}
	if err := media.Schema.Value.VisitJSON(value, openapi3.EnableJSONSchema2020()); err != nil {
		t.Errorf("%s: %s: %v", path, resp.Body(), err)
	}
}

// TestDescriptionsAreMadeOnce: a request for one of them costs no memory.
func TestDescriptionsAreMadeOnce(t *testing.T) {
	if raceEnabled {
		t.Skip("with the race detector sync.Pool forgets at random")
	}
	a := newAPI(t, Options{})
	for _, path := range []string{"/openapi.json", "/docs", "/"} {
		var ctx fasthttp.RequestCtx
		ctx.Request.SetRequestURI(path)
		if n := testing.AllocsPerRun(100, func() {
			ctx.Response.Header.Reset()
			a.Handle(&ctx)
		}); n != 0 || ctx.Response.StatusCode() != 200 {
			t.Errorf("%s: %v allocations, %d", path, n, ctx.Response.StatusCode())
		}
	}
}

// TestInvalidAnswersAreDocumented: what a bad body is answered with fits its schema.
func TestInvalidAnswersAreDocumented(t *testing.T) {
	a := newAPI(t, Options{})
	doc := document(t, a)
	for path, status := range map[string]int{"/predict": 422, "/invocations": 422, "/v2/models/digits/infer": 400, "/v1/models/digits:predict": 400} {
		for _, body := range []string{" ", "{", "{}", `{"features":["x"],"inputs":[]}`} {
			ctx := request(path, body)
			a.Handle(ctx)
			o := doc.Paths.Find(path).Post
			described := o.Responses.Status(status)
			if described == nil {
				described = o.Responses.Default()
			}
			var value any
			err := json.Unmarshal(ctx.Response.Body(), &value)
			if err == nil {
				err = described.Value.Content.Get("application/json").Schema.Value.VisitJSON(value, openapi3.EnableJSONSchema2020())
			}
			if err != nil || ctx.Response.StatusCode() != status {
				t.Errorf("%s %s: %d %s: %v", path, body, ctx.Response.StatusCode(), ctx.Response.Body(), err)
			}
		}
	}
}
