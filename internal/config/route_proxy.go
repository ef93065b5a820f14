package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// ProxyRoute is the section of a route that another HTTP service answers.
type ProxyRoute struct {
	// URL is where requests go: http or https, host, and a path; without one the route's own.
	URL string `yaml:"url" short:"text"`
	// Methods are those that are passed on.
	Methods []string `yaml:"methods" default:"GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS" check:"GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS"`
	// Timeout is how long all of it may take; 0: timeouts.request, which it may only narrow.
	Timeout time.Duration `yaml:"timeout" default:"0s" check:"0s|1ms..24h"`
	// MaxBody is the largest request body, in bytes; 0: http.max_body, which it may only narrow.
	MaxBody Bytes `yaml:"max_body" default:"0" check:"0|1..16GiB"`
	// MaxAnswer is the largest answer, in bytes.
	MaxAnswer Bytes `yaml:"max_answer" default:"64MiB" check:"1KiB..1TiB"`
	// Authorization is sent in place of the client's.
	Authorization string `yaml:"authorization" secret:"true"`

	Connections Workers       `yaml:"connections" default:"auto" check:"auto|1..1000000"`
	Connect     time.Duration `yaml:"connect_timeout" default:"1s" check:"1ms..1h"`
	Response    time.Duration `yaml:"response_timeout" default:"0s" check:"0s|1ms..24h"`
	Keep        time.Duration `yaml:"keep" default:"4s" check:"0s..1h"`
	Retries     int           `yaml:"retries" default:"1" check:"0..10"`
}

// Set tells whether a route has the section.
func (p *ProxyRoute) Set() bool { return p.URL != "" }

// BadURL says why text is not where another service can be asked, with what may be written; empty:
// it is.
func BadURL(text string, schemes ...string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Sprintf("%s is no URL; write %s://HOST:PORT", quote(text), schemes[0])
	case !slices.Contains(schemes, u.Scheme):
		return fmt.Sprintf("%s does not begin with %s://; write one of them, then HOST:PORT", quote(text), strings.Join(schemes, ":// or "))
	case u.User != nil:
		return "has a name or a password before its host, which is not written here; remove them, and see docs/io.md for where secrets go"
	case u.Hostname() == "" || u.Fragment != "" || strings.Contains(text, "#"):
		return fmt.Sprintf("%s has no host, or a fragment; write %s://HOST:PORT", quote(text), u.Scheme)
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return fmt.Sprintf("%s has a blank or a character beyond ASCII; write it with its escape, as in %%20", quote(text))
	}
	return ""
}

// checkProxy reports what cannot be in a route's section proxy.
func (g *loader) checkProxy(key string, r *Route, c *Config) (warnings []string) {
	p := &r.Proxy
	if bad := BadURL(p.URL, "http", "https"); bad != "" {
		g.problemAt(key+".proxy", bad)
		return nil
	}
	if u, err := url.Parse(p.URL); err == nil && u.RawQuery != "" {
		g.problemAt(key+".proxy", "has a query, which is that of each request; remove it")
	}
	if len(p.Methods) == 0 {
		g.problemAt(key+".proxy.methods", "is empty; write one, or remove the line")
	}
	if p.Authorization != "" && strings.ContainsAny(p.Authorization, "\r\n") {
		g.problemAt(key+".proxy.authorization", "has more than one line; write one into its file, such as Bearer TOKEN")
	}
	g.checkWaits(key, r)
	return append(adviseAsync(r), narrowing(key+".proxy", p.Timeout, c)...)
}

// checkWaits refuses the layer compute to a route that waits for others.
func (g *loader) checkWaits(key string, r *Route) {
	if r.Layer == LayerCompute {
		g.problemAt(key+".layer", `"compute" is for work on a core, and this waits for another service, so that no inference would run; write async`)
	}
}

// adviseAsync says of a route that waits without holding a thread where it is best.
func adviseAsync(r *Route) []string {
	if r.Layer != LayerSync {
		return nil
	}
	return []string{"it waits for another service and holds no thread meanwhile, so that layers.sync.pool bounds it for nothing; declare it " + LayerAsync}
}

// narrowing says of a limit of time that another one is shorter.
func narrowing(key string, own time.Duration, c *Config) []string {
	if own <= c.Timeouts.Request {
		return nil
	}
	return []string{fmt.Sprintf("%s.timeout (%s) is longer than timeouts.request (%s), which holds", key, durationText(own), durationText(c.Timeouts.Request))}
}
