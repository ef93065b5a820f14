package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// CORS is the section of which pages of other origins may use a route from a browser.
type CORS struct {
	// Origins are theirs, scheme://host[:port]; "*": all.
	Origins []string `yaml:"origins"`
	// Methods are those that they may use; Headers what they may send beyond what every page may,
	// "*": anything; Expose what they may read of the answer's header.
	Methods []string `yaml:"methods" default:"GET,HEAD,POST" check:"GET|HEAD|POST|PUT|PATCH|DELETE"`
	Headers []string `yaml:"headers" default:"Content-Type"`
	Expose  []string `yaml:"expose"`
	// Credentials lets them send cookies and credentials of the browser.
	Credentials bool `yaml:"credentials" default:"false"`
	// MaxAge is how long a browser need not ask again.
	MaxAge time.Duration `yaml:"max_age" default:"10m" check:"0s..24h"`
}

// AnyOrigin is the origin of all pages.
const AnyOrigin = "*"

// Set tells whether a route has the section.
func (c *CORS) Set() bool { return len(c.Origins) > 0 }

// checkCORS reports what cannot be in a route's section cors.
func (g *loader) checkCORS(key string, c *CORS) {
	key += ".cors"
	if _, written := g.places[key+".credentials"]; !c.Set() {
		for _, k := range []string{"credentials", "methods", "headers", "expose", "max_age"} {
			if _, ok := g.places[key+"."+k]; ok || written {
				g.problemAt(key+"."+k, "is for pages of other origins, and there are none; write cors.origins")
				return
			}
		}
		return
	}
	for i, o := range c.Origins {
		if bad := badOrigin(o); bad != "" {
			g.problemAt(fmt.Sprintf("%s.origins[%d]", key, i), bad)
		}
	}
	if slices.Contains(c.Origins, AnyOrigin) {
		switch {
		case c.Credentials:
			g.problemAt(key+".credentials", `with origins ["*"] would let every page act for whoever visits it, and browsers refuse it (Fetch, section 3.3.5); name the origins`)
		case len(c.Origins) > 1:
			g.problemAt(key+".origins", `has "*" and others; write "*" alone, or name the origins`)
		}
	}
	for list, names := range map[string][]string{"headers": c.Headers, "expose": c.Expose} {
		for i, name := range names {
			at := fmt.Sprintf("%s.%s[%d]", key, list, i)
			switch {
			case name == "*" && c.Credentials:
				g.problemAt(at, `"*" is no name where credentials are allowed (Fetch, section 3.3.5); name the headers`)
			case name != "*" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" || name == "":
				g.problemAt(at, fmt.Sprintf("%q is no name of a header; write one, such as X-Request-Id", name))
			}
		}
	}
}

// badOrigin says why text is no origin, as browsers write it (RFC 6454, section 6.2); empty: it is.
func badOrigin(text string) string {
	if text == AnyOrigin {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Hostname() == "" || u.Scheme+"://"+u.Host != text || text != strings.ToLower(text) || strings.Contains(u.Host, "*") {
		return fmt.Sprintf(`%s is no origin; write scheme://host[:port] in small letters and without a path, such as https://app.example, or "*"`, quote(text))
	}
	if u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" && u.Port() == "80" {
		return fmt.Sprintf("%s has its scheme's own port, which browsers leave out; remove it", quote(text))
	}
	return ""
}
