package worker

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/worker/api"
	"preforkd/internal/worker/upstream"
)

// maxRow is the largest row that is read of a store.
const maxRow = 1 << 20

// ports are those that a URL leaves out.
var ports = map[string]string{"http": "80", "https": "443", "redis": "6379", "rediss": "6379"}

// serviceOf is where another service is; after it come path and query as they are written. The settings
// have been checked.
func serviceOf(text string) (o upstream.Options, rest string) {
	scheme, rest, _ := strings.Cut(text, "://")
	host := rest
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		host, rest = rest[:i], rest[i:]
	} else {
		rest = ""
	}
	u := url.URL{Host: host}
	o.Address = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), ports[scheme]))
	o.Host = host
	if scheme == "https" || scheme == "rediss" {
		o.Secure = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	}
	return o, rest
}

// proxyOf is a route that another service answers.
func proxyOf(path string, p *config.ProxyRoute) *api.Proxy {
	o, rest := serviceOf(p.URL)
	o.Connect, o.Answer, o.Of = p.Connect, p.Response, "response_timeout"
	o.Keep, o.MaxAnswer, o.Retries = p.Keep, int64(p.MaxAnswer), p.Retries
	return &api.Proxy{
		Service: upstream.NewHTTP(o), Path: cmp.Or(rest, path), Methods: p.Methods, Timeout: p.Timeout,
		MaxBody: int(p.MaxBody), Authorization: p.Authorization, Connections: connections(p.Connections),
	}
}

// connections is a setting's number of them; 0: a share.
func connections(n config.Workers) int {
	if n.Auto() {
		return 0
	}
	return int(n)
}

var (
	formats = map[string]api.RowFormat{config.FormatHash: api.RowHash, config.FormatJSON: api.RowJSON, config.FormatBinary: api.RowBinary}
	missing = map[string]api.Missing{config.MissingZero: api.MissingZero, config.MissingNaN: api.MissingNaN}
)

// featuresOf is a route that runs a model on rows of a store.
func featuresOf(r *config.Route) *api.Features {
	f := &r.Features
	o, rest := serviceOf(f.Store)
	o.Connect, o.Answer, o.Of = f.Connect, f.Timeout, "timeout of the route's features"
	o.Keep, o.MaxAnswer, o.Retries = f.Keep, maxRow, f.Retries
	out := &api.Features{
		Fields: f.Fields, Format: formats[f.FormatBy()], Missing: missing[f.Missing], Model: f.Model, Input: f.Input,
		MaxRows: f.MaxRows, Authorization: f.Authorization, Connections: connections(f.Connections), At: r.At,
	}
	template := f.Key
	if f.Redis() {
		database, _ := config.Database(rest)
		out.Redis = upstream.NewRedis(upstream.RedisOptions{Options: o, User: f.User, Password: f.Password, Database: database})
	} else {
		out.HTTP = upstream.NewHTTP(o)
		template = rest
		if !strings.HasPrefix(rest, "/") {
			template = "/" + rest
		}
	}
	out.Names, _ = config.Names(template)
	out.Key = pieces(template, out.Names)
	return out
}

// pieces takes a template apart.
func pieces(template string, names []string) (all []api.Piece) {
	for template != "" {
		text, rest, more := strings.Cut(template, "{")
		if !more {
			return append(all, api.Piece{Text: text, Name: -1})
		}
		name, after, _ := strings.Cut(rest, "}")
		all = append(all, api.Piece{Text: text, Name: slices.Index(names, name)})
		template = after
	}
	return all
}

// corsOf is who may use a route from pages of other origins.
func corsOf(c *config.CORS) *api.CORS {
	if !c.Set() {
		return nil
	}
	return &api.CORS{Origins: c.Origins, Methods: c.Methods, Headers: c.Headers, Expose: c.Expose, Credentials: c.Credentials, MaxAge: c.MaxAge}
}

// checkRoutes says which route cannot be with the models that there are.
func (w *worker) checkRoutes() error {
	err := w.api.CheckRoutes(w.cfg.Models.Control != config.ControlNone || w.cfg.Models.Watch > 0)
	var route *api.RouteError
	if errors.As(err, &route) {
		return &ipc.Failure{Exit: ipc.ExitConfig, What: route.Error(), Try: "correct the route, or the model that it names"}
	}
	return err
}

// troubled logs requests that another service has failed.
func (w *worker) troubled() func(path, why string) {
	var pace seldom
	return func(path, why string) {
		if skipped, ok := pace.now(time.Now()); ok {
			w.log.Warn("service behind a route failed", "route", path, "service", w.serviceURL(path), "why", why, "skipped", skipped)
		}
	}
}

// serviceURL is where the service behind a route is; it has no secrets.
func (w *worker) serviceURL(path string) string {
	r := w.cfg.Routes[path]
	return cmp.Or(r.Proxy.URL, r.Features.Store)
}
