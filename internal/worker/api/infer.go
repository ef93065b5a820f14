package api

import (
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
	if a.asynchronously(ctx) {
		return a.submitInstead(ctx, t, kindInfer)
	}
	m, err := a.runnable(t)
	if err != nil {
		return err
	}
	body, err := a.content(ctx)
	if err != nil {
		return err
	}
	header, err := jsonLength(ctx, len(body))
	if err != nil {
		return err
	}
	x := a.acquire(m, t.start)
	defer a.release(x)
	if err := a.admit(ctx, x, body, body[:header]); err != nil {
		return err
	}
	if err := x.infer.DecodeBinary(body, header, m.Inputs(), m.Outputs()); err != nil {
		return err
	}
	x.limit.narrow(x.infer.Timeout, timeoutParameter)
	if err := a.run(ctx, x, x.infer.Inputs); err != nil {
		return err
	}
	b, header, err := x.infer.AppendResponse(ctx.Response.SwapBody(nil)[:0], m.Name, m.Version, x.out)
	if err != nil {
		sendJSON(ctx, b) // the buffer stays with the connection
		return err
	}
	x.send(ctx, b, header)
	return nil
}

// predict answers POST /predict.
func (a *API) predict(ctx *fasthttp.RequestCtx, t target) error {
	if a.asynchronously(ctx) {
		return a.submitInstead(ctx, t, kindPredict)
	}
	m, err := a.runnable(t)
	if err != nil {
		return err
	}
	p := &m.Predict
	if p.Err != nil {
		return describe(errUnusable, "model %q does not answer POST /predict: %v", m.Name, p.Err)
	}
	body, err := a.textBody(ctx)
	if err != nil {
		return err
	}
	x := a.acquire(m, t.start)
	defer a.release(x)
	if err := a.admit(ctx, x, body, nil); err != nil {
		return err
	}
	if err := x.predict.Decode(body, &m.Inputs()[p.Input], p.Row); err != nil {
		return invalidated(body, err)
	}
	if err := a.run(ctx, x, x.inputs(m)); err != nil {
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
	if err != nil {
		sendJSON(ctx, b)
		return err
	}
	x.send(ctx, b, 0)
	return nil
}

// inputs returns all of m's inputs: the one that is predicted from, and none of the
// optional ones.
func (x *exchange) inputs(m *repository.Model) []inference.Tensor {
	n := len(m.Inputs())
	if n == 1 {
		return x.predict.Inputs[:]
	}
	x.in = append(x.in[:0], make([]inference.Tensor, n)...)
	x.in[m.Predict.Input] = x.predict.Inputs[0]
	return x.in
}

// acquire takes an exchange with room for m's outputs, for a request that began at start.
func (a *API) acquire(m *repository.Model, start int64) *exchange {
	x := a.exchanges.Get().(*exchange)
	x.model, x.state, x.times, x.holds = m, stateOf(m), times{start: start}, false
	x.over = false
	n := len(m.Outputs())
	if x.out = x.out[:cap(x.out)]; n > len(x.out) {
		x.out = append(x.out, make([]inference.Tensor, n-len(x.out))...)
	}
	x.out = x.out[:n]
	return x
}

// release gives x back, and has counted how its request went.
func (a *API) release(x *exchange) {
	if x.holds {
		a.Permits.Release(x.permit)
	}
	a.Served(x.model, x.served())
	x.model, x.state = nil, nil
	freed := x.infer.Trim(keepBytes) + x.predict.Trim(keepBytes) + x.serving.Trim(keepBytes)
	for i := range x.out {
		freed += x.out[i].Trim(keepBytes)
	}
	a.abandon(freed)
	clear(x.in)
	if cap(x.packed) > keepBytes {
		x.packed = nil
	}
	a.exchanges.Put(x)
}
