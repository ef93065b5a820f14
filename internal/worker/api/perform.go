package api

import (
	"context"
	"fmt"
	"net"
	"runtime/debug"

	"github.com/valyala/fasthttp"

	"preforkd/internal/worker/peer"
	"preforkd/internal/worker/task"
)

// taskConn is the connection of a task's request: nobody is at its other end, and that goes when
// nobody waits for the task any more. So a run that is not wanted is told to stop as any other.
type taskConn struct{ net.Conn }

// NetConn returns what lies below, for package peer.
func (c taskConn) NetConn() net.Conn { return c.Conn }

// ofTask tells whether a request is a task's: what ends a worker then is the task's affair, which
// has a limit of its own, and does not count against the model.
func ofTask(ctx *fasthttp.RequestCtx) bool {
	_, ok := ctx.Conn().(taskConn)
	return ok
}

// Perform runs a task: it makes the direct call that the task stands for. When stop ends nobody
// waits for it any more.
func (a *API) Perform(stop context.Context, t *task.Task) (o task.Outcome) {
	own, other, err := peer.Pair()
	if err != nil {
		return task.Outcome{Error: err.Error(), Retry: true}
	}
	defer own.Close()
	defer other.Close()
	defer context.AfterFunc(stop, func() { other.Close() })()
	var ctx fasthttp.RequestCtx
	ctx.Init2(taskConn{own}, printer{a.Log}, true)
	ctx.Request.Header.SetMethod(fasthttp.MethodPost)
	ctx.Request.SetBodyRaw(t.Body)
	ctx.Request.Header.SetContentLength(len(t.Body))
	for name, value := range t.Header {
		ctx.Request.Header.Set(name, value)
	}
	at, handle := target{endpoint: predict, model: []byte(t.Model), version: []byte(t.Version)}, a.predict
	path := "/predict/task"
	if t.Kind == kindInfer {
		at.endpoint, handle, path = infer, a.infer, "/v2/models/task/infer"
	}
	ctx.Request.SetRequestURI(path) // the form of errors follows from it
	defer func() {
		if p := recover(); p != nil {
			a.Log.Error("task panicked", "task", t.ID, "err", p, "stack", string(debug.Stack()))
			o = task.Outcome{Error: errBug.Error()}
		}
	}()
	at.start = now()
	reader := a.Models.Enter()
	defer a.Models.Leave(reader)
	err = handle(&ctx, at)
	if err == nil {
		return task.Outcome{Result: resultOf(&ctx)}
	}
	code := status(err)
	if code == statusGone { // by our own hand
		return task.Outcome{Error: fmt.Sprint(context.Cause(stop)), Retry: true}
	}
	a.fail(&ctx, err)
	retry := code >= 500 && code != fasthttp.StatusNotImplemented && code != fasthttp.StatusGatewayTimeout
	return task.Outcome{Error: err.Error(), Retry: retry, Result: resultOf(&ctx)}
}

// resultOf copies what was answered.
func resultOf(ctx *fasthttp.RequestCtx) *task.Result {
	r := &ctx.Response
	body := append([]byte(nil), r.Body()...)
	res := &task.Result{Code: r.StatusCode(), Body: body, Size: len(body), Header: map[string]string{"Content-Type": string(r.Header.ContentType())}}
	if n := r.Header.Peek(carried[0]); len(n) > 0 {
		res.Header[carried[0]] = string(n)
	}
	return res
}
