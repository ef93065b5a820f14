package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"preforkd/internal/ipc"
)

// call is one request being answered.
type call struct {
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	query   url.Values
	limit   time.Duration // for the client to take what is written
	started bool          // the answer has begun
}

// route is what the server knows of a path.
type route struct {
	method string
	keys   []string // of the query
	serve  func(*call) error
	body   string // the key of the query with which a request has a body; empty: it never has
}

// routes returns the handler of all paths.
func (s *Server) routes() http.Handler {
	table := map[string]route{
		"/v1/status":    {method: http.MethodGet, serve: s.status},
		healthPath:      {method: http.MethodGet, serve: s.health},
		"/v1/reload":    {method: http.MethodPost, keys: []string{"dry_run", "no_wait"}, serve: s.reload},
		upgradePath:     {method: http.MethodPost, keys: []string{"program", "no_wait", "env"}, serve: s.upgrade, body: "env"},
		rollbackPath:    {method: http.MethodPost, keys: []string{"generation", "no_wait"}, serve: s.rollback},
		generationsPath: {method: http.MethodGet, serve: s.generations},
		"/v1/scale":     {method: http.MethodPost, keys: []string{"workers", "pool", "no_wait", "force"}, serve: s.scale},
		"/v1/restart":   {method: http.MethodPost, keys: []string{"slot", "all", "pool", "no_wait"}, serve: s.restart},
		modelsPath:      {method: http.MethodGet, serve: s.models},
		releaseRoute:    {method: http.MethodPost, serve: s.release},
		loadRoute:       {method: http.MethodPost, keys: []string{"version", "pool", "no_wait", "files"}, serve: s.loadModel, body: "files"},
		unloadRoute:     {method: http.MethodPost, keys: []string{"pool", "no_wait"}, serve: s.unloadModel},
		tasksPath:       {method: http.MethodGet, keys: []string{"model", "limit"}, serve: s.tasks(ipc.TaskList, "")},
		deadTasks:       {method: http.MethodGet, keys: []string{"limit"}, serve: s.tasks(ipc.TaskDead, "")},
		taskRoute:       {method: http.MethodGet, serve: s.tasks(ipc.TaskShow, "")},
		stopRoute:       {method: http.MethodPost, serve: s.tasks(ipc.TaskCancel, cancelTask)},
		retryRoute:      {method: http.MethodPost, serve: s.tasks(ipc.TaskRetry, retryTask)},
		"/v1/stop":      {method: http.MethodPost, keys: []string{"quick"}, serve: s.stop},
		"/v1/events":    {method: http.MethodGet, keys: []string{"after", "follow"}, serve: s.events},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{w: w, r: r, control: http.NewResponseController(w), limit: s.write}
		_ = c.wind()
		defer c.bug()
		if err := c.serve(table); err != nil && !c.started {
			c.fail(err)
		}
	})
}

// serve finds the route of c and carries it out. An error after the answer has begun has
// been told within it.
func (c *call) serve(table map[string]route) error {
	path := taskRouteOf(modelRoute(c.r.URL.Path))
	rt, ok := table[path]
	if !ok {
		return usage(fmt.Sprintf("%s: no such path", c.r.URL.Path),
			"use one of /v1/status, "+healthPath+", /v1/reload, "+upgradePath+", "+rollbackPath+", "+generationsPath+", /v1/scale, /v1/restart, /v1/stop, /v1/events, "+modelsPath+", "+releaseRoute+", "+loadRoute+", "+unloadRoute+", "+tasksPath+", "+deadTasks+", "+taskRoute+", "+stopRoute+", "+retryRoute)
	}
	if c.r.Method != rt.method {
		return usage(fmt.Sprintf("%s: the method is %s", c.r.URL.Path, rt.method), "curl -X "+rt.method)
	}
	// An unread body hides that its sender has gone.
	if c.r.ContentLength != 0 && (rt.body == "" || !c.r.URL.Query().Has(rt.body)) {
		c.w.Header().Set("Connection", "close")
		_ = c.control.SetReadDeadline(time.Now().Add(headerLimit))
		return usage(c.r.URL.Path+": a request has no body", "write what you want into the query")
	}
	var err error
	if c.query, err = parseQuery(c.r.URL.RawQuery, rt.keys); err != nil {
		return err
	}
	return rt.serve(c)
}

// parseQuery reads a query that may hold keys, each once.
func parseQuery(raw string, keys []string) (url.Values, error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, usage("query: "+err.Error(), "write it as key=value&key=value")
	}
	for key, values := range q {
		if !slices.Contains(keys, key) {
			return nil, usage(fmt.Sprintf("query: %q is not known here", key), "known: "+strings.Join(keys, ", "))
		}
		if len(values) > 1 {
			return nil, usage(fmt.Sprintf("query: %s is there %d times", key, len(values)), "write it once")
		}
	}
	return q, nil
}

// flag returns the truth of a key of the query; one that is absent is false.
func (c *call) flag(key string) (bool, error) {
	if !c.query.Has(key) {
		return false, nil
	}
	on, err := strconv.ParseBool(c.query.Get(key))
	if err != nil {
		return false, usage(fmt.Sprintf("query: %s=%q is neither 1 nor 0", key, c.query.Get(key)), "write "+key+"=1")
	}
	return on, nil
}

func usage(what, try string) error {
	return &ipc.Failure{Exit: ipc.ExitUsage, What: what, Try: try}
}

func (s *Server) status(c *call) error {
	ctx, cancel := context.WithTimeout(c.r.Context(), answerLimit)
	defer cancel()
	st, err := s.service.Status(ctx)
	if err != nil {
		return late(ctx, err)
	}
	return c.write(st)
}

func (s *Server) stop(c *call) error {
	quick, err := c.flag("quick")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), answerLimit)
	defer cancel()
	if err := s.service.Stop(ctx, quick); err != nil {
		return late(ctx, err)
	}
	return c.write(struct{}{})
}

// late words the error of a service that did not answer in time.
func late(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return &ipc.Failure{
			Exit: ipc.ExitUnavailable, What: fmt.Sprintf("the supervisor did not answer within %v", answerLimit),
			Try: "see its log; kill -ABRT prints its stacks", Err: err,
		}
	}
	return err
}

func (s *Server) events(c *call) error {
	follow, err := c.flag("follow")
	if err != nil {
		return err
	}
	after := uint64(0)
	if text := c.query.Get("after"); text != "" {
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			return usage(fmt.Sprintf("query: after=%q is not the number of an event", text), "write after=0 for all that are kept")
		}
	}
	c.begin("application/x-ndjson")
	if err := c.control.Flush(); err != nil { // so that a follower knows that it follows
		return err
	}
	for e := range s.service.Events(c.r.Context(), after, follow) {
		if err := c.line(e); err != nil {
			return err
		}
	}
	return nil
}

// wind gives the client its time to take what is written next, however long the service
// has taken before.
func (c *call) wind() error { return c.control.SetWriteDeadline(time.Now().Add(c.limit)) }

// begin starts an answer with status 200.
func (c *call) begin(contentType string) {
	_ = c.wind()
	c.started = true
	c.w.Header().Set("Content-Type", contentType)
	c.w.WriteHeader(http.StatusOK)
}

// write answers with v.
func (c *call) write(v any) error {
	c.begin("application/json")
	return c.encode(v)
}

// encode writes v and a line break; people read it with curl, so < stays <.
func (c *call) encode(v any) error {
	e := json.NewEncoder(c.w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// line adds a line with v to the answer and waits until the client has taken it, or has
// not done so in time.
func (c *call) line(v any) error {
	if err := c.wind(); err != nil {
		return err
	}
	if err := c.encode(v); err != nil {
		return err
	}
	return c.control.Flush()
}

// bug answers with a panic of this goroutine, which would otherwise be swallowed.
func (c *call) bug() {
	p := recover()
	if p == nil {
		return
	}
	if c.started { // the answer ends where it is
		panic(http.ErrAbortHandler)
	}
	c.fail(&ipc.Failure{
		Exit: ipc.ExitBug, What: fmt.Sprintf("%s: panic: %v\n%s", c.r.URL.Path, p, debug.Stack()),
		Try: "report this; the service goes on",
	})
}

// fail answers with err.
func (c *call) fail(err error) {
	_ = c.wind()
	c.started = true
	_ = c.control.SetWriteDeadline(time.Now().Add(c.limit)) // what failed may have taken long
	f := failure(err)
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(httpStatus(f.Exit))
	_, _ = fmt.Fprintln(c.w, ipc.EncodeFailure(f))
}

// failure returns err as what an operator reads.
func failure(err error) *ipc.Failure {
	if f := (*ipc.Failure)(nil); errors.As(err, &f) {
		return f
	}
	return &ipc.Failure{Exit: ipc.ExitOther, What: err.Error()}
}

// httpStatus is the HTTP status of a failure with the given exit status, for those who
// look at no more than that.
func httpStatus(exit int) int {
	switch exit {
	case ipc.ExitUsage:
		return http.StatusBadRequest
	case ipc.ExitPermission:
		return http.StatusForbidden
	case ipc.ExitTryAgain, ipc.ExitRolledBack:
		return http.StatusConflict
	case ipc.ExitConfig:
		return http.StatusUnprocessableEntity
	case ipc.ExitUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
