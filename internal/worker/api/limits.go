package api

import (
	"bytes"
	"fmt"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/inference/batch"
	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
)

// survey looks at the limits of all models, so that a request of a model without any pays
// nothing for them.
func (a *API) survey(v *view) {
	v.shortest = a.RequestTimeout
	for _, m := range a.Models.Every() {
		if t := a.timeout(m).Duration; t > 0 && (v.shortest == 0 || t < v.shortest) {
			v.shortest = t
		}
		v.narrowed = v.narrowed || m.Settings.Limits.MaxBody > 0
	}
}

// Meet prepares for models that will be served: it is called before anybody can find them.
func (a *API) Meet(models []*repository.Model) {
	for _, m := range models {
		m.Tag = &batch.Model{Runner: m, Most: mostRows(&m.Settings), Delay: m.Settings.MaxQueueDelay, Apart: func(why error) {
			a.Log.Warn("requests of this model are not joined: its outputs have no row for each row of the inputs",
				"model", m.Name, "version", m.Version, "err", why, "try", "remove max_batch_size, or set no_batching: true")
		}}
	}
}

// stateOf returns how the runs of m are joined.
func stateOf(m *repository.Model) *batch.Model { return m.Tag.(*batch.Model) }

// timeout returns how long a request of m may take as far as the service says: the model's
// own limit narrows that of all.
func (a *API) timeout(m *repository.Model) timeLimit {
	if own := m.Settings.Limits.Timeout; own > 0 && (own < a.RequestTimeout || a.RequestTimeout == 0) {
		return timeLimit{own, "the model's limits.timeout"}
	}
	return timeLimit{a.RequestTimeout, "timeouts.request"}
}

// narrow returns o with the limit of the model that h is a request of.
func (a *API) narrow(h *fasthttp.RequestHeader, o *ServerOptions) *ServerOptions {
	if len(a.routes) > 0 {
		if r := a.routes[string(pathOf(h.RequestURI()))]; r != nil && r.Proxy != nil && r.Proxy.MaxBody > 0 && r.Proxy.MaxBody < o.MaxBody {
			own := *o
			own.MaxBody, own.bodyOf = r.Proxy.MaxBody, "max_body of route "+r.Path
			return &own
		}
	}
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

// batchRows returns how many elements a request for m has, those of the first size where the
// model takes batches, and refuses more than it takes.
func batchRows(m *repository.Model, in []inference.Tensor) (n int, err error) {
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

// mostRows is how many rows a run of requests that are joined has at most; below 2: none are.
func mostRows(s *ipc.ModelSettings) int {
	if s.NoBatching {
		return 0
	}
	return int(s.MaxBatchSize)
}
