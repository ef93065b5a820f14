package api

import (
	"math"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/worker/admission"
	"preforkd/internal/worker/codec"
)

// timeLimit is how long a request may take, and what says so.
type timeLimit struct {
	time.Duration
	of string
}

// end returns when a request that began at start is over, since epoch.
func (l timeLimit) end(start int64) int64 {
	if l.Duration <= 0 {
		return math.MaxInt64
	}
	return start + int64(l.Duration)
}

// narrow makes l that of a client that waits so long; 0: it does not say.
func (l *timeLimit) narrow(d time.Duration, of string) {
	if d > 0 && (d < l.Duration || l.Duration <= 0) {
		l.Duration, l.of = d, of
	}
}

// busy is what a request ends with that waited until its time was over.
func (l timeLimit) busy() error {
	return describe(admission.ErrTimeout, "no inference could start within %s (%s), all are busy", l.Duration, l.of)
}

// Headers by which a client, or a proxy before it, says how long it waits for the answer.
const (
	timeoutHeader = "X-Request-Timeout"              // such as 250ms
	envoyHeader   = "X-Envoy-Expected-Rq-Timeout-Ms" // a number of milliseconds; 0: any time
)

// deadline narrows l by what the request's headers say.
func deadline(h *fasthttp.RequestHeader, l *timeLimit) error {
	if text := h.Peek(timeoutHeader); len(text) > 0 {
		d, err := requestTimeout(text)
		if err != nil {
			return err
		}
		l.narrow(d, timeoutHeader)
	}
	if text := h.Peek(envoyHeader); len(text) > 0 {
		d, err := envoyTimeout(text)
		if err != nil {
			return err
		}
		l.narrow(d, envoyHeader)
	}
	return nil
}

func requestTimeout(text []byte) (time.Duration, error) {
	d, err := time.ParseDuration(string(text))
	switch {
	case err != nil:
		return 0, describe(errRequest, "%s: %.40q is no duration: write a number and a unit, such as 250ms", timeoutHeader, text)
	case d <= 0 || d > codec.MaxTimeout:
		return 0, describe(errRequest, "%s: %.40s is not above 0s and at most %s", timeoutHeader, text, codec.MaxTimeout)
	}
	return d, nil
}

func envoyTimeout(text []byte) (time.Duration, error) {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || n < 0 || n > codec.MaxTimeout.Milliseconds() {
		return 0, describe(errRequest, "%s: %.40q is no number of milliseconds from 0 to %d", envoyHeader, text, codec.MaxTimeout.Milliseconds())
	}
	return time.Duration(n) * time.Millisecond, nil
}
