package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/ipc"
	"preforkd/internal/worker/task"
)

// Kinds of the requests that a task stands for.
const (
	kindPredict = "predict"
	kindInfer   = "infer"
)

var (
	errTasksOff  = errors.New("background tasks are off: set tasks.enabled: true")
	errTaskInput = errors.New("body: larger than tasks.max_input")
	errTaskKey   = errors.New("Idempotency-Key: longer than 255 bytes")
	errTaskList  = errors.New("GET /tasks lists what others have submitted: it needs a token of the class control (auth.control), or preforkd tasks ls")
)

// maxKey is how long an idempotency key may be.
const maxKey = 255

// carried are the headers of a request that its answer depends on.
var carried = [...]string{"Inference-Header-Content-Length", "X-Request-Id", "Traceparent"}

// asynchronously tells whether a client would rather fetch the answer later (RFC 7240, section 4.1).
func (a *API) asynchronously(ctx *fasthttp.RequestCtx) bool {
	if a.Tasks == nil {
		return false
	}
	_, later := preferences(ctx.Request.Header.Peek("Prefer"))
	return later
}

// preferences reads a Prefer header: how long to wait, and whether the answer may come later.
func preferences(text []byte) (wait time.Duration, later bool) {
	for part := range bytes.SplitSeq(text, []byte(",")) {
		part, _, _ = bytes.Cut(part, []byte(";"))
		name, value, _ := bytes.Cut(part, []byte("="))
		switch name = bytes.TrimSpace(name); {
		case bytes.EqualFold(name, []byte("respond-async")):
			later = true
		case bytes.EqualFold(name, []byte("wait")):
			if n, err := strconv.ParseUint(string(bytes.Trim(bytes.TrimSpace(value), `"`)), 10, 31); err == nil {
				wait = time.Duration(n) * time.Second
			}
		}
	}
	return wait, later
}

// submit answers POST /models/{m}/tasks.
func (a *API) submit(ctx *fasthttp.RequestCtx, t target) error {
	if a.Tasks == nil {
		return describe(errSupport, "%v", errTasksOff)
	}
	body, err := a.content(ctx)
	if err != nil {
		return err
	}
	kind := kindPredict
	if len(ctx.Request.Header.Peek(carried[0])) > 0 || hasInputs(body) {
		kind = kindInfer
	}
	return a.accept(ctx, t, kind, body)
}

// submitInstead answers a direct call whose answer may come later.
func (a *API) submitInstead(ctx *fasthttp.RequestCtx, t target, kind string) error {
	if err := a.guard.check(&ctx.Request.Header, tasksClass); err != nil {
		a.challenge(ctx, tasksClass, err)
		return err
	}
	body, err := a.content(ctx)
	if err != nil {
		return err
	}
	ctx.Response.Header.Set("Preference-Applied", "respond-async")
	return a.accept(ctx, t, kind, body)
}

// hasInputs tells whether body is an object with the key inputs, and so of the Open Inference
// Protocol.
func hasInputs(body []byte) bool {
	d := json.NewDecoder(bytes.NewReader(body))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return false
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return false
		}
		switch key {
		case "inputs":
			return true
		case "features":
			return false
		}
		var skipped json.RawMessage
		if d.Decode(&skipped) != nil {
			return false
		}
	}
	return false
}

// accept submits a task.
func (a *API) accept(ctx *fasthttp.RequestCtx, t target, kind string, body []byte) error {
	m, err := a.runnable(t)
	if err != nil {
		return err
	}
	if int64(len(body)) > a.Tasks.MaxInput {
		return describe(errTaskInput, "%v, which is %d bytes", errTaskInput, a.Tasks.MaxInput)
	}
	h := &ctx.Request.Header
	limit := timeLimit{}
	if err := deadline(h, &limit); err != nil {
		return err
	}
	key := string(h.Peek("Idempotency-Key"))
	if len(key) > maxKey {
		return describe(errRequest, "%v", errTaskKey)
	}
	req := task.Request{Model: m.Name, Version: string(t.version), Kind: kind, Body: body, Key: key, Wait: limit.Duration, Low: low(h.Peek("X-Task-Priority"))}
	if key != "" {
		sum := sha256.Sum256(h.Peek(fasthttp.HeaderAuthorization))
		req.Tenant = fmt.Sprintf("%x", sum[:8])
	}
	for _, name := range carried {
		if v := h.Peek(name); len(v) > 0 {
			if req.Header == nil {
				req.Header = map[string]string{}
			}
			req.Header[name] = string(v)
		}
	}
	if key != "" {
		delete(req.Header, "X-Request-Id") // who repeats a request may give it another
		delete(req.Header, "Traceparent")
	}
	id, fresh, err := a.Tasks.Submit(context.Background(), &req)
	if err != nil {
		return a.taskError(ctx, err)
	}
	status := task.Queued
	if !fresh {
		if v, err := a.Tasks.Get(context.Background(), id); err == nil {
			status = v.Status
		}
	}
	ctx.SetStatusCode(fasthttp.StatusAccepted)
	ctx.Response.Header.Set("Location", "/tasks/"+string(id))
	return sendObject(ctx, ipc.TaskState{ID: string(id), Status: string(status), Model: m.Name})
}

// low tells whether a task shall wait for others.
func low(priority []byte) bool { return bytes.EqualFold(bytes.TrimSpace(priority), []byte("low")) }

// taskError adds to an answer what its client should know of err.
func (a *API) taskError(ctx *fasthttp.RequestCtx, err error) error {
	switch {
	case errors.Is(err, task.ErrUnavailable), errors.Is(err, task.ErrFull):
		ctx.Response.Header.Set("Retry-After", "1")
	case errors.Is(err, task.ErrUnknown):
		where := "here"
		if a.Tasks.Embedded {
			where = "on this machine"
		}
		return describe(task.ErrUnknown, "there is no such task %s: it was never accepted, or its outcome has expired (tasks.result_ttl)", where)
	}
	return err
}

// one answers GET and DELETE /tasks/{id}.
func (a *API) oneTask(ctx *fasthttp.RequestCtx, t target) error {
	id, err := a.taskID(t)
	if err != nil {
		return a.taskError(ctx, err)
	}
	var v task.View
	if ctx.IsDelete() {
		v, err = a.Tasks.Cancel(context.Background(), id)
		if errors.Is(err, task.ErrDone) {
			return describe(task.ErrDone, "task %s is %s already", id, v.Status)
		}
		if err == nil && !v.Status.Terminal() {
			ctx.SetStatusCode(fasthttp.StatusAccepted)
		}
	} else {
		v, err = a.awaitTask(ctx, id)
	}
	if err != nil {
		return a.taskError(ctx, err)
	}
	if !v.Status.Terminal() {
		ctx.Response.Header.Set("Retry-After", "1")
	}
	return sendObject(ctx, TaskState(v))
}

// taskID reads the id in a path.
func (a *API) taskID(t target) (task.ID, error) {
	if a.Tasks == nil {
		return "", describe(errSupport, "%v", errTasksOff)
	}
	id, ok := task.ParseID(string(t.label))
	if !ok {
		return "", task.ErrUnknown
	}
	return id, nil
}

// longestWait bounds a long poll, and waitPart is how often a worker looks whether it leaves.
const (
	longestWait = 60 * time.Second
	waitPart    = 500 * time.Millisecond
)

// awaitTask returns how a task is, and waits for its end where the client says so: Prefer: wait=N.
func (a *API) awaitTask(ctx *fasthttp.RequestCtx, id task.ID) (v task.View, err error) {
	wait, _ := preferences(ctx.Request.Header.Peek("Prefer"))
	wait = min(wait, longestWait)
	if a.RequestTimeout > 0 {
		wait = min(wait, a.RequestTimeout)
	}
	end := time.Now().Add(wait)
	for {
		v, err = a.Tasks.Wait(context.Background(), id, min(time.Until(end), waitPart))
		if err != nil || v.Status.Terminal() || !time.Now().Before(end) || !a.Ready() {
			return v, err
		}
	}
}

// taskResult answers GET /result/{id} and /tasks/{id}/result.
func (a *API) taskResult(ctx *fasthttp.RequestCtx, t target) error {
	id, err := a.taskID(t)
	if err != nil {
		return a.taskError(ctx, err)
	}
	v, err := a.awaitTask(ctx, id)
	if err != nil {
		return a.taskError(ctx, err)
	}
	switch {
	case !v.Status.Terminal():
		ctx.SetStatusCode(fasthttp.StatusAccepted)
		ctx.Response.Header.Set("Retry-After", "1")
		return sendObject(ctx, TaskState(v))
	case v.Result != nil:
		return a.sendResult(ctx, v.Result)
	}
	status := map[task.Status]int{task.Cancelled: fasthttp.StatusConflict, task.Expired: fasthttp.StatusGone}[v.Status]
	if status == 0 {
		status = fasthttp.StatusInternalServerError
	}
	ctx.SetStatusCode(status)
	return sendObject(ctx, map[string]any{"error": v.Error, "task_id": v.ID, "status": v.Status, "attempts": v.Attempt})
}

func (a *API) sendResult(ctx *fasthttp.RequestCtx, res *task.Result) error {
	body, err := a.Tasks.Body(context.Background(), res)
	if err != nil {
		return a.taskError(ctx, err)
	}
	ctx.SetStatusCode(res.Code)
	ctx.SetContentType(contentType)
	for name, value := range res.Header {
		ctx.Response.Header.Set(name, value)
	}
	ctx.Response.SetBodyRaw(body)
	return nil
}

// listTasks answers GET /tasks.
func (a *API) listTasks(ctx *fasthttp.RequestCtx, _ target) error {
	if a.Tasks == nil {
		return describe(errSupport, "%v", errTasksOff)
	}
	if !a.guard.asks(controlClass) {
		return errTaskList
	}
	views, err := a.Tasks.List(context.Background(), string(ctx.QueryArgs().Peek("model")), 100)
	if err != nil {
		return a.taskError(ctx, err)
	}
	list := make([]ipc.TaskState, 0, len(views))
	for _, v := range views {
		list = append(list, TaskState(v))
	}
	return sendObject(ctx, map[string]any{"tasks": list})
}

// TaskState is v as operators and clients see it.
func TaskState(v task.View) ipc.TaskState {
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		t = t.UTC()
		return &t
	}
	return ipc.TaskState{
		ID: string(v.ID), Status: string(v.Status), Model: v.Model, Attempts: v.Attempt, Crashes: v.Crashes, Error: strings.TrimSpace(v.Error),
		Created: at(v.Created), Started: at(v.Started), Finished: at(v.Finished), NextAt: at(v.NextAt), Lines: v.Lines,
	}
}

// sendObject answers with v as JSON.
func sendObject(ctx *fasthttp.RequestCtx, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	sendJSON(ctx, b)
	return nil
}
