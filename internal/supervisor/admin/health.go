package admin

import (
	"context"
	"net/http"
)

const healthPath = "/v1/health"

// Health is how a service is, in two words and why.
type Health struct {
	Live   bool   `json:"live"`   // its supervisor works
	Ready  bool   `json:"ready"`  // clients may be sent to it
	Reason string `json:"reason"` // of Ready, either way
}

// String returns it in one line, for people and for logs.
func (h Health) String() string {
	switch {
	case h.Ready:
		return "ready: " + clean(h.Reason)
	case h.Live:
		return "not ready: " + clean(h.Reason)
	}
	return "not live: " + clean(h.Reason)
}

// health answers 200 whatever it says: who looks at no more asks the operations listener.
func (s *Server) health(c *call) error {
	ctx, cancel := context.WithTimeout(c.r.Context(), answerLimit)
	defer cancel()
	return c.write(s.service.Health(ctx))
}

// Health returns how the service is.
func (c *Client) Health(ctx context.Context) (h Health, err error) {
	err = c.ask(ctx, http.MethodGet, healthPath, nil, &h)
	return h, err
}
