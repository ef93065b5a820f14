package api

import (
	"bytes"
	"fmt"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
)

// survey looks at the limits of all models, so that a request of a model without any pays
// nothing for them.
func (a *API) survey(v *view) {
	v.shortest = a.RequestTimeout
	for _, m := range a.Models.Every() {
		v.shortest = min(v.shortest, a.timeout(m))
		v.narrowed = v.narrowed || m.Settings.Limits.MaxBody > 0
	}
}

// timeout returns how long a request of m may take: its own limit narrows that of all.
func (a *API) timeout(m *repository.Model) time.Duration {
	if own := m.Settings.Limits.Timeout; own > 0 && own < a.RequestTimeout {
		return own
	}
	return a.RequestTimeout
}

// clockOf names the setting that limit, which is timeout's, comes from.
func clockOf(m *repository.Model, limit time.Duration) string {
	if m.Settings.Limits.Timeout == limit {
		return "the model's limits.timeout"
	}
	return "timeouts.request"
}

// narrow returns o with the limit of the model that h is a request of.
func (a *API) narrow(h *fasthttp.RequestHeader, o *ServerOptions) *ServerOptions {
	if !a.view.Load().narrowed {
		return o
	}
	t := locate(pathOf(h.RequestURI()))
	if t.endpoint == root { // fasthttp has forgotten a request whose chunks are too many
		own := *o
		own.bodyOf = "limits.max_body of the model or http.max_body"
		return &own
	}
	switch t.endpoint {
	case infer, predict, v1Predict:
	case invocations:
		t.model = h.Peek(targetModel)
	default:
		return o
	}
	m, err := a.find(t)
	if err != nil || m.Settings.Limits.MaxBody == 0 || m.Settings.Limits.MaxBody >= int64(o.MaxBody) {
		return o
	}
	own := *o
	own.MaxBody = int(m.Settings.Limits.MaxBody)
	own.bodyOf = fmt.Sprintf("limits.max_body of model %q", m.Name)
	return &own
}

// pathOf returns the path of a request's target (RFC 9112, section 3.2).
func pathOf(uri []byte) []byte {
	if i := bytes.Index(uri, []byte("://")); i >= 0 && len(uri) > 0 && uri[0] != '/' {
		uri = uri[i+3:]
		i = bytes.IndexByte(uri, '/')
		uri = uri[max(i, 0):]
	}
	if i := bytes.IndexAny(uri, "?#"); i >= 0 {
		uri = uri[:i]
	}
	return uri
}

// batch returns how many elements a request for m has, those of the first size where the
// model takes batches, and refuses more than it takes.
func batch(m *repository.Model, in []inference.Tensor) (n int, err error) {
	most := m.Settings.MaxBatchSize
	if most == 0 {
		return 1, nil
	}
	for i := range in {
		shape := in[i].Shape
		switch {
		case len(shape) == 0:
		case shape[0] > most:
			return 0, describe(inference.ErrInput, "inputs: %d rows, model %q takes at most %d (max_batch_size)", shape[0], m.Name, most)
		default:
			n = max(n, int(shape[0]))
		}
	}
	return max(n, 1), nil
}
