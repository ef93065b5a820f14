package api

import (
	"github.com/valyala/fasthttp"

	"preforkd/internal/inference/repository"
	"preforkd/internal/worker/codec"
)

// servable returns the model of t, which is a path below /v1. TensorFlow Serving's clients
// know its errors by these words.
func (a *API) servable(t target) (*repository.Model, error) {
	if len(t.label) > 0 {
		return a.labelled(t)
	}
	m, err := a.Models.FindBytes(t.model, t.version)
	switch {
	case err == nil:
		return m, nil
	case len(t.version) > 0:
		return nil, describe(err, "Servable not found for request: Specific(%s, %s)", t.model, t.version)
	}
	return nil, describe(err, "Servable not found for request: Latest(%s)", t.model)
}

// labelled returns the version of a model that its settings give a label.
func (a *API) labelled(t target) (*repository.Model, error) {
	m, err := a.Models.FindBytes(t.model, nil)
	if err != nil {
		return nil, describe(err, "Servable not found for request: Latest(%s)", t.model)
	}
	version, ok := m.Settings.Labels[string(t.label)]
	if !ok {
		return nil, describe(errLabel, "Unrecognized servable version label: %s", t.label)
	}
	if m, err = a.Models.Find(m.Name, version); err != nil {
		return nil, describe(err, "Servable not found for request: Specific(%s, %s), which the label %s stands for", t.model, version, t.label)
	}
	return m, nil
}

// v1Predict answers POST /v1/models/…:predict.
func (a *API) v1Predict(ctx *fasthttp.RequestCtx, t target) error {
	m, err := a.servable(t)
	if err == nil {
		err = a.refusal(m)
	}
	if err != nil {
		return err
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
	if err := x.serving.Decode(body, m.Inputs(), m.Outputs()); err != nil {
		return err
	}
	if err := a.run(ctx, x, x.serving.Inputs); err != nil {
		return err
	}
	b, err := x.serving.AppendResponse(ctx.Response.SwapBody(nil)[:0], x.out)
	if err != nil {
		sendJSON(ctx, b)
		return err
	}
	x.send(ctx, b, 0)
	return nil
}

// v1Refused answers the requests of both protocols that no model here can answer: they
// need TensorFlow's examples, or a model that explains.
func (a *API) v1Refused(_ *fasthttp.RequestCtx, t target) error {
	if _, err := a.servable(t); err != nil {
		return err
	}
	if string(t.verb) == "explain" {
		return describe(errSupport, ":explain is not implemented: models here do not explain what they predict, use :predict")
	}
	return describe(errSupport, ":%s is not implemented: models here take tensors and no tf.Example, use :predict", t.verb)
}

// v1Models answers GET /v1/models, with the names of all models.
func (a *API) v1Models(ctx *fasthttp.RequestCtx, _ target) error {
	b := append(ctx.Response.SwapBody(nil)[:0], `{"models":[`...)
	for i, m := range a.Models.All() {
		if i > 0 {
			b = append(b, ',')
		}
		b = codec.AppendString(b, m.Name)
	}
	sendJSON(ctx, append(b, `]}`...))
	return nil
}

// v1Model answers GET /v1/models/…: what KServe asks for, name and ready, and what
// TensorFlow Serving does, model_version_status. A quarantined version is loaded and does
// not answer; TensorFlow Serving's word for that is END, with an error.
func (a *API) v1Model(ctx *fasthttp.RequestCtx, t target) error {
	m, err := a.servable(t)
	if err != nil {
		return err
	}
	versions := []string{m.Version}
	if len(t.version) == 0 && len(t.label) == 0 {
		versions = a.Models.Versions(m.Name)
	}
	b := append(ctx.Response.SwapBody(nil)[:0], `{"name":`...)
	b = codec.AppendString(b, m.Name)
	if a.Refusal(m) == "" {
		b = append(b, `,"ready":true`...)
	} else {
		b = append(b, `,"ready":false`...)
	}
	b = append(b, `,"model_version_status":[`...)
	for i := range versions {
		if i > 0 {
			b = append(b, ',')
		}
		v, err := a.Models.Find(m.Name, versions[len(versions)-1-i]) // the latest first
		if err != nil {
			return unknown(err, t.model, []byte(versions[len(versions)-1-i]))
		}
		b = a.appendStatus(b, v)
	}
	sendJSON(ctx, append(b, `]}`...))
	return nil
}

// appendStatus appends an element of model_version_status.
func (a *API) appendStatus(b []byte, m *repository.Model) []byte {
	b = append(b, `{"version":`...)
	b = codec.AppendString(b, m.Version)
	why := a.Refusal(m)
	if why == "" {
		b = append(b, `,"state":"AVAILABLE","status":{"error_code":"OK","error_message":`...)
	} else {
		b = append(b, `,"state":"END","status":{"error_code":"UNAVAILABLE","error_message":`...)
	}
	b = codec.AppendString(b, why)
	return append(b, `}}`...)
}
