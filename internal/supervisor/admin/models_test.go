package admin

import (
	"bytes"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"preforkd/internal/ipc"
)

func someModels() []Model {
	since := time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))
	return []Model{
		{Name: "digits", Version: "3", Digest: strings.Repeat("0a", 32), State: "serving"},
		{
			Name: "ri/sk y\x1b", Version: "12", Digest: "short", State: StateQuarantined, Deaths: 4, Request: "00000000000000ff",
			Reason: "3 workers\nended", Since: &since,
		},
	}
}

func TestModelsCross(t *testing.T) {
	s := &service{Log: NewLog(1), models: someModels()}
	path, _ := serve(t, s)
	c := dial(t, path)
	got, err := c.Models(t.Context())
	want := someModels()
	if err != nil || len(got) != 2 || !got[1].Since.Equal(*want[1].Since) {
		t.Fatalf("%+v, %v", got, err)
	}
	got[1].Since = want[1].Since
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	s.models[1].Name = "risky \x1b?#%"
	for _, want := range []bool{true, false} {
		r, err := c.Release(t.Context(), s.models[1].Name)
		if err != nil || r.Released != want || r.Model != s.models[1].Name || r.Message == "" {
			t.Errorf("%+v, %v", r, err)
		}
	}
	_, err = c.Release(t.Context(), "others")
	checkFailure(t, err, ipc.ExitUsage, "there is no model others")
	for path, method := range map[string]string{"/v1/models": http.MethodPost, "/v1/models/digits/release": http.MethodGet} {
		checkFailure(t, c.ask(t.Context(), method, path, nil, &struct{}{}), ipc.ExitUsage, path+": the method is ")
	}
}

func TestReleasedModel(t *testing.T) {
	for path, want := range map[string]string{
		"/v1/models/digits/release":         "digits",
		"/v1/models/NAME/release":           "NAME",
		"/v1/models/release/release":        "release",
		"/v1/models//release":               "",
		"/v1/models/release":                "",
		"/v1/models/a/b/release":            "",
		"/v1/models/digits":                 "",
		"/v1/models/digits/release/":        "",
		"/v1/models/digits/release/release": "",
		"/v1/models":                        "",
		"/v2/models/digits/release":         "",
	} {
		if name, ok := released(path); ok != (want != "") || ok && name != want {
			t.Errorf("%s: %q, %v", path, name, ok)
		}
	}
}

func FuzzReleased(f *testing.F) {
	f.Add("/v1/models/digits/release")
	f.Fuzz(func(t *testing.T, path string) {
		if name, ok := released(path); ok && (name == "" || strings.Contains(name, "/") || path != modelsPath+"/"+name+releasePath) {
			t.Errorf("%q: %q", path, name)
		}
	})
}

func TestModelTable(t *testing.T) {
	var b bytes.Buffer
	if err := ModelTable(&b, someModels()); err != nil {
		t.Fatal(err)
	}
	const want = "MODEL     VERSION  DIGEST        STATE        DEATHS\n" +
		"digits    3        0a0a0a0a0a0a  serving      0\n" +
		"ri/sk y\uFFFD  12       short         quarantined  4\n" +
		"2026-03-04 05:06:07: 3 workers ended\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}
