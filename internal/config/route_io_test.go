package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRoutesThatWaitThatCannotBe(t *testing.T) {
	features := func(more string) string {
		return "routes:\n  /x: {layer: async, features: {store: 'redis://h:1', key: 'u:{u}', model: m, fields: [a]" + more + "}}\n"
	}
	for _, c := range []struct{ name, file, want string }{
		{"scheme", "routes:\n  /x: {proxy: 'ftp://h'}\n", `2:15: routes./x.proxy: "ftp://h" does not begin with http:// or https://`},
		{"no host", "routes:\n  /x: {proxy: 'http:///p'}\n", "has no host"},
		{"credentials", "routes:\n  /x: {proxy: 'http://me:secret@h/'}\n", "has a name or a password before its host"},
		{"query", "routes:\n  /x: {proxy: 'http://h/?a=1'}\n", "has a query"},
		{"fragment", "routes:\n  /x: {proxy: 'http://h/#a'}\n", "or a fragment"},
		{"compute", "routes:\n  /x: {layer: compute, proxy: 'http://h'}\n", `2:15: routes./x.layer: "compute" is for work on a core`},
		{"method", "routes:\n  /x: {proxy: {url: 'http://h', methods: [TRACE]}}\n", `"TRACE" is not allowed`},
		{"two things", "lab: true\nroutes:\n  /x: {sleep: 1s, proxy: 'http://h'}\n", "does sleep and proxy at once"},
		{"secret inline", "routes:\n  /x: {proxy: {url: 'http://h', authorization: geheim}}\n", "routes./x.proxy.authorization: is a secret, which is not written here; put it into a file and name that in routes./x.proxy.authorization_file"},
		{"no store", "routes:\n  /x: {features: {model: m}}\n", "2:3: routes./x.features: has no store"},
		{"no model", "routes:\n  /x: {features: {store: 'redis://h:1', key: 'u:{u}', fields: [a]}}\n", "has no model"},
		{"no name", "routes:\n  /x: {features: {store: 'redis://h:1', key: 'u', model: m, fields: [a]}}\n", "2:46: routes./x.features.key: names nothing that a request has"},
		{"brace", "routes:\n  /x: {features: {store: 'redis://h:1', key: 'u{', model: m, fields: [a]}}\n", "has a brace"},
		{"database", "routes:\n  /x: {features: {store: 'redis://h:1/a', key: 'u:{u}', model: m, fields: [a]}}\n", "the number of a database"},
		{"password in the URL", "routes:\n  /x: {features: {store: 'redis://:p@h:1', key: 'u:{u}', model: m}}\n", "has a name or a password"},
		{"hash over HTTP", "routes:\n  /x: {features: {store: 'http://h/{u}', format: hash, model: m, fields: [a]}}\n", `"hash" is Redis's`},
		{"host of the request", "routes:\n  /x: {features: {store: 'http://{h}/', model: m}}\n", "in its host, which no request may choose"},
		{"key over HTTP", "routes:\n  /x: {features: {store: 'http://h/{u}', key: 'u:{u}', model: m}}\n", "are Redis's"},
		{"field twice", features(", fields: [a, a]"), "is set twice"},
		{"field empty", "routes:\n  /x: {features: {store: 'redis://h:1', key: 'u:{u}', model: m, fields: [a, a]}}\n", `routes./x.features.fields[1]: "a" is empty or there twice`},
		{"binary with fields", features(", format: binary"), "are not told apart"},
		{"user without password", features(", user: me"), "has no password"},
		{"no password's file", features(", password_file: /none/there"), "2:107: routes./x.features.password_file: read secret"},
		{"star and credentials", "lab: true\nroutes:\n  /x: {sleep: 1s, cors: {origins: ['*'], credentials: true}}\n", `3:55: routes./x.cors.credentials: with origins ["*"] would let every page`},
		{"star and others", "lab: true\nroutes:\n  /x: {sleep: 1s, cors: {origins: ['*', 'https://a.b']}}\n", `has "*" and others`},
		{"origin with a path", "lab: true\nroutes:\n  /x: {sleep: 1s, cors: {origins: ['https://a.b/']}}\n", "3:36: routes./x.cors.origins[0]: \"https://a.b/\" is no origin"},
		{"null", "lab: true\nroutes:\n  /x: {sleep: 1s, cors: {origins: ['null']}}\n", "is no origin"},
		{"any subdomain", "lab: true\nroutes:\n  /x: {sleep: 1s, cors: {origins: ['https://*.b']}}\n", "is no origin"},
		{"own port", "lab: true\nroutes:\n  /x: {sleep: 1s, cors: {origins: ['https://a.b:443']}}\n", "scheme's own port"},
		{"no origins", "lab: true\nroutes:\n  /x: {sleep: 1s, cors: {credentials: true}}\n", "there are none; write cors.origins"},
		{"header", "lab: true\nroutes:\n  /x: {sleep: 1s, cors: {origins: ['https://a.b'], headers: ['a b']}}\n", "is no name of a header"},
		{"star header and credentials", "lab: true\nroutes:\n  /x: {sleep: 1s, cors: {origins: ['https://a.b'], headers: ['*'], credentials: true}}\n", "is no name where credentials"},
	} {
		_, err := Load(Sources{File: write(t, c.file), Explicit: true})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

// TestRoutesThatWait: defaults, short forms, advice; a secret is read from its file and shown nowhere.
func TestRoutesThatWait(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("geheim\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := write(t, `routes:
  /short: {layer: async, proxy: "http://h:1"}
  /long: {proxy: {url: "https://h/p", timeout: 1h, methods: [GET]}, cors: {origins: ["https://a.example"]}}
  /score: {layer: async, features: {store: "redis://h:1/3", key: "u:{u}:{v}", fields: [a, b], model: m, password_file: `+secret+`}}
  /json: {layer: async, features: {store: "https://h/rows/{u}?v={v}", model: m}}
`)
	l, err := Load(Sources{File: file, Explicit: true})
	if err != nil {
		t.Fatal(err)
	}
	short, long, score, asJSON := l.Config.Routes["/short"], l.Config.Routes["/long"], l.Config.Routes["/score"], l.Config.Routes["/json"]
	if p := short.Proxy; p.URL != "http://h:1" || p.Retries != 1 || p.Keep != 4*time.Second || !p.Connections.Auto() || len(p.Methods) != 7 || short.At != file+":2" {
		t.Errorf("%+v", short)
	}
	if p := long.Proxy; p.Timeout != time.Hour || len(p.Methods) != 1 || !long.CORS.Set() || long.Layer != LayerSync {
		t.Errorf("%+v", long)
	}
	if f := score.Features; f.FormatBy() != FormatHash || f.Password != "geheim" || f.Template() != "u:{u}:{v}" || !f.Redis() {
		t.Errorf("%+v", f)
	}
	if f := asJSON.Features; f.FormatBy() != FormatJSON || f.Redis() {
		t.Errorf("%+v", f)
	}
	if names, bad := Names(asJSON.Features.Template()); strings.Join(names, " ") != "u v" || bad != "" {
		t.Error(names, bad)
	}
	warned := strings.Join(l.Warnings, "\n")
	if len(l.Warnings) != 2 || !strings.Contains(warned, "routes./long: it waits for another service") || !strings.Contains(warned, "declare it async") ||
		!strings.Contains(warned, "routes./long.proxy.timeout (1h) is longer than timeouts.request (30s), which holds") {
		t.Errorf("%q", l.Warnings)
	}
	var out strings.Builder
	if err := l.Print(&out); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "geheim") || !strings.Contains(out.String(), "password_file: "+secret) || strings.Count(out.String(), "proxy:") != 2 {
		t.Errorf("%s", out.String())
	}
	again, err := Load(Sources{File: write(t, out.String()), Explicit: true})
	if err != nil {
		t.Fatal(err)
	}
	changed := again.Config
	other := changed.Routes["/score"]
	other.Features.Password = "anders"
	changed.Routes = map[string]Route{"/score": other, "/short": short, "/long": long, "/json": asJSON}
	if got := Differences(l.Config, l.Config, again.Config); len(got) != 0 {
		t.Errorf("what is printed is not what was read: %q", got)
	}
	if got := strings.Join(Differences(l.Config, l.Config, changed), "\n"); got != "routes./score.features.password: changed" {
		t.Errorf("%q", got)
	}
}

// TestRoutesAreDocumented: docs/io.md has every setting of a route's sections.
func TestRoutesAreDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "io.md"))
	if err != nil {
		t.Fatal(err)
	}
	var r Route
	for name, v := range map[string]any{"proxy": &r.Proxy, "features": &r.Features, "cors": &r.CORS} {
		_, table, _ := strings.Cut(string(page), "| setting of `"+name+"` |")
		table, _, _ = strings.Cut(table, "\n\n")
		for _, f := range fieldsOf(reflectOf(v).Type()) {
			if f.spec.use != inline && !strings.Contains(table, "`"+f.name+"`") {
				t.Errorf("%s.%s is not in the table", name, f.name)
			}
		}
	}
}
