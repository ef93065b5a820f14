package api

import (
	"bytes"
	"strconv"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
	"preforkd/internal/worker/codec"
)

// runnable is find for requests that run the model.
func (a *API) runnable(t target) (*repository.Model, error) {
	m, err := a.find(t)
	if err == nil {
		err = a.refusal(m)
	}
	return m, err
}

// find returns the model of t, or the default one.
func (a *API) find(t target) (*repository.Model, error) {
	if len(t.model) > 0 {
		m, err := a.Models.FindBytes(t.model, t.version)
		if err != nil {
			return nil, unknown(err, t.model, t.version)
		}
		return m, nil
	}
	if a.Default != "" {
		m, err := a.Models.Find(a.Default, "")
		if err != nil {
			return nil, unknown(err, []byte(a.Default), nil)
		}
		return m, nil
	}
	if all := a.Models.All(); len(all) > 0 {
		return all[0], nil
	}
	return nil, describe(repository.ErrUnknownModel, "no model is loaded")
}

// infer answers POST /v2/models/…/infer.
func (a *API) infer(ctx *fasthttp.RequestCtx, t target) error {
	m, err := a.runnable(t)
	if err != nil {
		return err
	}
	body, err := jsonBody(ctx)
	if err != nil {
		return err
	}
	x := a.acquire(m)
	defer a.release(x)
	if err := x.infer.Decode(body, m.Inputs(), m.Outputs()); err != nil {
		return refused(ctx, err)
	}
	if err := a.run(ctx, m, t.start, x.infer.Inputs, x.out); err != nil {
		return err
	}
	b, err := x.infer.AppendResponse(ctx.Response.SwapBody(nil)[:0], m.Name, m.Version, x.out)
	sendJSON(ctx, b)
	return err
}

// predict answers POST /predict.
func (a *API) predict(ctx *fasthttp.RequestCtx, t target) error {
	m, err := a.runnable(t)
	if err != nil {
		return err
	}
	p := &m.Predict
	if p.Err != nil {
		return describe(errUnusable, "model %q does not answer POST /predict: %v", m.Name, p.Err)
	}
	body, err := jsonBody(ctx)
	if err != nil {
		return err
	}
	x := a.acquire(m)
	defer a.release(x)
	if err := x.predict.Decode(body, &m.Inputs()[p.Input], p.Row); err != nil {
		return refused(ctx, invalidated(body, err))
	}
	if err := a.run(ctx, m, t.start, x.predict.Inputs[:], x.out); err != nil {
		return err
	}
	answer := codec.Prediction{Model: m.Name, Version: m.Version}
	if p.Label != repository.None {
		answer.Label = &x.out[p.Label]
	}
	if p.Probabilities != repository.None {
		answer.Probabilities = &x.out[p.Probabilities]
	}
	b, err := x.predict.AppendResponse(ctx.Response.SwapBody(nil)[:0], answer)
	sendJSON(ctx, b)
	return err
}

// acquire takes an exchange with room for m's outputs.
func (a *API) acquire(m *repository.Model) *exchange {
	x := a.exchanges.Get().(*exchange)
	n := len(m.Outputs())
	if x.out = x.out[:cap(x.out)]; n > len(x.out) {
		x.out = append(x.out, make([]inference.Tensor, n-len(x.out))...)
	}
	x.out = x.out[:n]
	return x
}

func (a *API) release(x *exchange) {
	x.infer.Trim(keepBytes)
	x.predict.Trim(keepBytes)
	x.serving.Trim(keepBytes)
	for i := range x.out {
		x.out[i].Trim(keepBytes)
	}
	a.exchanges.Put(x)
}

// jsonBody returns the body, all of which has to be JSON. The content type is ignored:
// clients of the reference server send JSON as application/octet-stream.
func jsonBody(ctx *fasthttp.RequestCtx) ([]byte, error) {
	body := ctx.Request.Body()
	if len(body) == 0 && !framed(ctx) {
		ctx.SetConnectionClose() // a body without a length may follow: it is no request
		return nil, errLength
	}
	if n := ctx.Request.Header.Peek("Inference-Header-Content-Length"); len(n) > 0 {
		if length, err := strconv.Atoi(string(n)); err != nil || length != len(body) {
			return nil, errBinary
		}
	}
	return body, nil
}

// framed tells whether the request said how long its body is (RFC 9112, section 6.3).
func framed(ctx *fasthttp.RequestCtx) bool {
	for line := range bytes.SplitSeq(ctx.Request.Header.RawHeaders(), []byte("\n")) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) || bytes.EqualFold(name, []byte("Transfer-Encoding")) {
			return true
		}
	}
	return false
}

// refused is err, unless the body was not JSON because it is compressed.
func refused(ctx *fasthttp.RequestCtx, err error) error {
	if c := ctx.Request.Header.Peek("Content-Encoding"); len(c) > 0 && !bytes.EqualFold(c, []byte("identity")) {
		return errEncoding
	}
	return err
}
