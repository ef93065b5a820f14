package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"html"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
)

// get returns the answer to GET path.
func get(a *API, path string) *fasthttp.Response {
	var ctx fasthttp.RequestCtx
	ctx.Request.SetRequestURI(path)
	a.Handle(&ctx)
	return &ctx.Response
}

// elements returns the content of each element called name, as it is written.
func elements(page, name string) (found []string) {
	for _, m := range regexp.MustCompile(`(?s)<`+name+`(?:\s[^>]*)?>(.*?)</`+name+`>`).FindAllStringSubmatch(page, -1) {
		found = append(found, m[1])
	}
	return found
}

func TestPageIsWellFormed(t *testing.T) {
	a := newAPI(t, Options{})
	for _, path := range []string{"/", "/docs"} {
		t.Run(path, func(t *testing.T) { isWellFormed(t, get(a, path)) })
	}
}

func isWellFormed(t *testing.T, resp *fasthttp.Response) {
	text := string(resp.Body())
	if resp.StatusCode() != 200 || string(resp.Header.ContentType()) != "text/html; charset=utf-8" || !strings.HasPrefix(text, "<!doctype html>") {
		t.Fatalf("%d %s", resp.StatusCode(), resp.Header.ContentType())
	}
	var open []string
	ids := make(map[string]bool)
	d := xml.NewDecoder(strings.NewReader(text))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		tok, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			for _, a := range tok.Attr {
				if a.Name.Local == "id" {
					if ids[a.Value] {
						t.Errorf("two elements have the id %s", a.Value)
					}
					ids[a.Value] = true
				}
			}
			if !strings.Contains(" meta link input ", " "+tok.Name.Local+" ") {
				open = append(open, tok.Name.Local)
			}
		case xml.EndElement:
			if len(open) == 0 || open[len(open)-1] != tok.Name.Local {
				t.Fatalf("</%s> where %v are open", tok.Name.Local, open)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Errorf("%v stay open", open)
	}
	for _, m := range regexp.MustCompile(`(?:for|aria-labelledby)="([^"]*)"`).FindAllStringSubmatch(text, -1) {
		for id := range strings.FieldsSeq(m[1]) {
			if !ids[id] {
				t.Errorf("no element has the id %s", id)
			}
		}
	}
}

func TestPageIsSelfContained(t *testing.T) {
	a := newAPI(t, Options{})
	for _, path := range []string{"/", "/docs"} {
		t.Run(path, func(t *testing.T) { isSelfContained(t, get(a, path)) })
	}
}

func isSelfContained(t *testing.T, resp *fasthttp.Response) {
	text, policy := string(resp.Body()), string(resp.Header.Peek("Content-Security-Policy"))
	if foreign := regexp.MustCompile(`https?:|["'(]//|@import|url\(`).FindString(text); foreign != "" {
		t.Errorf("the page refers to another host: %q", foreign)
	}
	if handlers := regexp.MustCompile(`\s(on\w+|style)=`).FindString(text); handlers != "" {
		t.Errorf("%q is against the page's policy", handlers)
	}
	for _, name := range []string{"style", "script"} {
		inside := elements(text, name)
		if len(inside) != 1 || strings.Contains(inside[0], "ZgotmplZ") || len(inside[0]) < 500 {
			t.Fatalf("%d elements %s", len(inside), name)
		}
		sum := sha256.Sum256([]byte(inside[0]))
		if want := name + "-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(policy, want) {
			t.Errorf("no %s in the policy %s", want, policy)
		}
	}
	if !strings.HasPrefix(policy, "default-src 'none'; ") {
		t.Errorf("policy: %s", policy)
	}
}

// TestPageShowsWhatIsLoaded: also names that look like HTML; and every sample is a
// request that is answered.
func TestPageShowsWhatIsLoaded(t *testing.T) {
	a := newAPI(t, Options{})
	text := string(get(a, "/").Body())
	for _, want := range []string{
		"version 1.2.3", "&lt;b&gt;&#34;&amp;amp;&lt;/b&gt;", `href="v2/models/%3Cb%3E%22&amp;amp%3B%3C%2Fb%3E"`,
		"<code>pixels</code> FP32 [any × 64]", "<code>&lt;i&gt;</code> INT64 [any × any]", "a &lt;/textarea&gt; sum",
		`<span id="where">/predict/digits</span>`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	shown := elements(text, "textarea")
	options := regexp.MustCompile(`<option value="([^"]*)" data-sample="([^"]*)">`).FindAllStringSubmatch(text, -1)
	if len(shown) != 1 || len(options) != 5 { // not of the model with two inputs
		t.Fatalf("%d fields, %d samples", len(shown), len(options))
	}
	if html.UnescapeString(options[0][1]) != "digits" || strings.TrimPrefix(shown[0], "\n") != options[0][2] {
		t.Errorf("the sample that is shown is not that of the default model: %s", shown[0])
	}
	for _, o := range options {
		name, body := html.UnescapeString(o[1]), html.UnescapeString(o[2])
		if strings.ContainsAny(name, "/") || name == "panicking" || name == "failing" || name == "nan" {
			continue // found, and then what they are for
		}
		var ctx fasthttp.RequestCtx
		ctx.Request.SetRequestURI("/predict/" + name)
		ctx.Request.Header.SetMethod("POST")
		ctx.Request.SetBodyString(body)
		a.Handle(&ctx)
		if ctx.Response.StatusCode() != 200 {
			t.Errorf("the sample of %s: %s\n%s", name, ctx.Response.Body(), body)
		}
	}
}

func TestSampleLooksLikeAPicture(t *testing.T) {
	got := formatSample([]float32{0, 5.5, 16, 1}, inference.FP32)
	if want := "{\"features\": [\n    0, 5.5,\n   16,   1\n]}"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if got, want := formatSample([]float32{1, 2}, inference.Int64), "{\"features\": [\n  1, 2\n]}"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestDocsShowEveryOperation: each has its form, with the example that the OpenAPI
// document has.
func TestDocsShowEveryOperation(t *testing.T) {
	a := newAPI(t, Options{})
	text := string(get(a, "/docs").Body())
	forms := regexp.MustCompile(`<form data-method="(GET|POST)" data-path="([^"]*)">`).FindAllStringSubmatch(text, -1)
	doc := document(t, a)
	if len(forms) != doc.Paths.Len() {
		t.Errorf("%d forms, %d paths", len(forms), doc.Paths.Len())
	}
	for _, f := range forms {
		item := doc.Paths.Find("/" + html.UnescapeString(f[2]))
		if item == nil || item.GetOperation(f[1]) == nil {
			t.Errorf("%s /%s is not in the document", f[1], f[2])
		}
	}
	bodies := elements(text, "textarea")
	for _, body := range bodies {
		if !json.Valid([]byte(html.UnescapeString(body))) {
			t.Errorf("the example is no JSON: %s", body)
		}
	}
	if len(bodies) < 10 {
		t.Errorf("%d examples", len(bodies))
	}
}
