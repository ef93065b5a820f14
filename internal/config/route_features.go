package config

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Features is the section of a route that runs a model on rows that a store holds.
type Features struct {
	// Store is where rows are: redis://HOST:PORT/DATABASE, rediss:// with TLS, or an http or https
	// URL with the names of Key in braces.
	Store string `yaml:"store"`
	// Key is the key of a row in Redis: text with names in braces, whose values a request has.
	Key string `yaml:"key"`
	// Fields are the parts of a row, in the order of the model's input: of a hash, or of an object
	// in JSON. None: a row is an array, or binary.
	Fields []string `yaml:"fields"`
	// Format is how a row is written; FormatAuto: a hash where Redis has Fields, else JSON.
	Format string `yaml:"format" default:"auto" check:"auto|hash|json|binary"`
	// Missing is what a field that is not there becomes: MissingError, MissingZero or MissingNaN.
	Missing string `yaml:"missing" default:"error" check:"error|zero|nan"`
	// Model runs, its version that answers those who name none; Input gets the rows; empty: its
	// only input.
	Model string `yaml:"model"`
	Input string `yaml:"input"`
	// MaxRows is how many rows a request may ask for.
	MaxRows int `yaml:"max_rows" default:"100" check:"1..10000"`
	// Timeout is how long the store may take, all rows together; 0: timeouts.request.
	Timeout time.Duration `yaml:"timeout" default:"1s" check:"0s|1ms..24h"`
	// User and Password are for Redis.
	User     string `yaml:"user"`
	Password string `yaml:"password" secret:"true"`
	// Authorization is sent to an HTTP store.
	Authorization string `yaml:"authorization" secret:"true"`

	Connections Workers       `yaml:"connections" default:"auto" check:"auto|1..1000000"`
	Connect     time.Duration `yaml:"connect_timeout" default:"1s" check:"1ms..1h"`
	Keep        time.Duration `yaml:"keep" default:"4s" check:"0s..1h"`
	Retries     int           `yaml:"retries" default:"1" check:"0..10"`
}

// Values of Features.Format and Features.Missing.
const (
	FormatAuto   = "auto"
	FormatHash   = "hash"
	FormatJSON   = "json"
	FormatBinary = "binary"

	MissingError = "error"
	MissingZero  = "zero"
	MissingNaN   = "nan"
)

// Set tells whether a route has the section.
func (f *Features) Set() bool {
	return f.Store != "" || f.Model != "" || f.Key != "" || len(f.Fields) > 0
}

// Redis tells whether the store is one.
func (f *Features) Redis() bool {
	return strings.HasPrefix(f.Store, "redis://") || strings.HasPrefix(f.Store, "rediss://")
}

// FormatBy returns how a row is written.
func (f *Features) FormatBy() string {
	switch {
	case f.Format != FormatAuto && f.Format != "":
		return f.Format
	case f.Redis() && len(f.Fields) > 0:
		return FormatHash
	}
	return FormatJSON
}

// Template is text with names in braces.
func (f *Features) Template() string {
	if f.Redis() {
		return f.Key
	}
	return f.Store
}

// braced finds the names in braces.
var braced = regexp.MustCompile(`\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// maxNames is how many names a template may have.
const maxNames = 8

// Names returns the names in braces of a template, each once, in their order; bad says why it is
// none.
func Names(template string) (names []string, bad string) {
	for _, m := range braced.FindAllStringSubmatch(template, -1) {
		if !slices.Contains(names, m[1]) {
			names = append(names, m[1])
		}
	}
	switch rest := braced.ReplaceAllString(template, ""); {
	case strings.ContainsAny(rest, "{}"):
		return nil, "has a brace that is not around a name of letters, digits and _; write it as in user:{user}"
	case len(names) == 0:
		return nil, "names nothing that a request has; write a name in braces, as in user:{user}"
	case len(names) > maxNames:
		return nil, fmt.Sprintf("names more than %d things; write fewer", maxNames)
	}
	return names, ""
}

// checkFeatures reports what cannot be in a route's section features.
func (g *loader) checkFeatures(key string, r *Route, c *Config) (warnings []string) {
	f := &r.Features
	key += ".features"
	if !g.checkStore(key, f) {
		return nil
	}
	format := f.FormatBy()
	seen := map[string]bool{}
	for i, name := range f.Fields {
		if name == "" || seen[name] {
			g.problemAt(fmt.Sprintf("%s.fields[%d]", key, i), fmt.Sprintf("%q is empty or there twice; write each field once", name))
		}
		seen[name] = true
	}
	switch {
	case f.Model == "":
		g.problemAt(key, "has no model; write which one runs on the rows, model: NAME")
	case format == FormatHash && !f.Redis():
		g.problemAt(key+".format", `"hash" is Redis's; write json, or binary`)
	case format == FormatHash && len(f.Fields) == 0:
		g.problemAt(key+".format", `"hash" has fields; write them in the order of the model's input, fields: [a, b]`)
	case format == FormatBinary && len(f.Fields) > 0:
		g.problemAt(key+".fields", "are not told apart in a row that is binary; remove them, or write another format")
	case f.Missing != MissingError && len(f.Fields) == 0:
		g.problemAt(key+".missing", "is of fields, and there are none; write fields, or remove the line")
	}
	if strings.ContainsAny(f.Authorization, "\r\n") {
		g.problemAt(key+".authorization", "has more than one line; write one into its file, such as Bearer TOKEN")
	}
	g.checkWaits(strings.TrimSuffix(key, ".features"), r)
	return append(adviseAsync(r), narrowing(key, f.Timeout, c)...)
}

// checkStore reports what cannot be in where the rows are, and tells whether the rest can be.
func (g *loader) checkStore(key string, f *Features) bool {
	if f.Store == "" {
		g.problemAt(key, "has no store; write where the rows are, store: redis://HOST:PORT")
		return false
	}
	if bad := BadURL(braced.ReplaceAllString(f.Store, "x"), "redis", "rediss", "http", "https"); bad != "" {
		g.problemAt(key+".store", bad)
		return false
	}
	u, _ := url.Parse(braced.ReplaceAllString(f.Store, "x"))
	at := key + ".store"
	if f.Redis() {
		at = key + ".key"
		if _, ok := Database(u.Path); !ok || u.RawQuery != "" {
			g.problemAt(key+".store", "has more behind the port than the number of a database; write redis://HOST:PORT/0")
			return false
		}
		if f.Authorization != "" {
			g.problemAt(key+".authorization", "is for a store that speaks HTTP; write password_file")
		}
	} else {
		if host, _, _ := strings.Cut(strings.TrimPrefix(f.Store, u.Scheme+"://"), "/"); strings.ContainsAny(host, "{}") {
			g.problemAt(at, "has a name in braces in its host, which no request may choose; write the host")
			return false
		}
		if f.Key != "" || f.User != "" || f.Password != "" {
			g.problemAt(key, "key, user and password are Redis's; write the names in braces into store, and authorization_file")
		}
	}
	if f.Redis() && f.Password == "" && f.User != "" {
		g.problemAt(key+".user", "has no password; write password_file")
	}
	if _, bad := Names(f.Template()); bad != "" {
		g.problemAt(at, bad)
		return false
	}
	return true
}

// Database reads the path of a Redis's URL.
func Database(path string) (n int, ok bool) {
	if path == "" || path == "/" {
		return 0, true
	}
	n, err := strconv.Atoi(strings.TrimPrefix(path, "/"))
	return n, err == nil && n >= 0 && n < 1<<16
}
