package api

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
	"preforkd/internal/worker/admission"
	"preforkd/internal/worker/codec"
	"preforkd/internal/worker/task"
)

// Errors of the handlers themselves.
var (
	errNoRoute  = errors.New("no such path")
	errMethod   = errors.New("method not allowed")
	errNotReady = errors.New("not ready")
	errRefused  = errors.New("the model is quarantined")
	errUnusable = errors.New("the model does not answer POST /predict")
	errLength   = errors.New("Content-Length: missing, so that the body is empty")
	errEncoding = errors.New("Content-Encoding: only gzip, deflate and identity are supported")
	errBinary   = errors.New("Inference-Header-Content-Length: this path takes JSON only: use POST /v2/models/…/infer for binary tensor data")
	errSupport  = errors.New("not supported")
	errControl  = errors.New("model control is off")
	errRequest  = errors.New("request")
	// errUndecided is of a change of models that was not begun, or whose end is not known.
	errUndecided = errors.New("the service does not change its models now")
	errLabel     = errors.New("unknown label of the model")
	errGone      = errors.New("the client closed its side of the connection before an inference could start")
	errForsaken  = errors.New("the client closed its side of the connection before its inference had ended")
	errBug       = errors.New("internal error: a defect of preforkd, its log has the details")
)

// statusGone is counted for a request that nobody waits for; it is nginx's.
const statusGone = 499

// statuses is the table from an error to an HTTP status: the first entry that err is.
// What is in none is 500.
var statuses = []struct {
	err    error
	status int
}{
	{inference.ErrInput, fasthttp.StatusBadRequest},
	{errUnusable, fasthttp.StatusBadRequest},
	{errBinary, fasthttp.StatusBadRequest},
	{repository.ErrUnknownModel, fasthttp.StatusNotFound},
	{repository.ErrUnknownVersion, fasthttp.StatusNotFound},
	{errLabel, fasthttp.StatusNotFound},
	{errNoRoute, fasthttp.StatusNotFound},
	{errMethod, fasthttp.StatusMethodNotAllowed},
	{task.ErrUnknown, fasthttp.StatusNotFound},
	{task.ErrGone, fasthttp.StatusGone},
	{task.ErrDone, fasthttp.StatusConflict},
	{task.ErrKeyReused, fasthttp.StatusUnprocessableEntity},
	{task.ErrFull, fasthttp.StatusTooManyRequests},
	{task.ErrUnavailable, fasthttp.StatusServiceUnavailable},
	{errTaskInput, fasthttp.StatusRequestEntityTooLarge},
	{errTaskList, fasthttp.StatusForbidden},
	{errLength, fasthttp.StatusLengthRequired},
	{fasthttp.ErrBodyTooLarge, fasthttp.StatusRequestEntityTooLarge},
	{errEncoding, fasthttp.StatusUnsupportedMediaType}, // RFC 9110, section 15.5.16
	{errSupport, fasthttp.StatusNotImplemented},
	{errControl, fasthttp.StatusForbidden},
	{errUndecided, fasthttp.StatusServiceUnavailable},
	{errUnauthorized, fasthttp.StatusUnauthorized},
	{errForbidden, fasthttp.StatusForbidden},
	{errNotReady, fasthttp.StatusServiceUnavailable},
	{errRefused, fasthttp.StatusServiceUnavailable},
	{admission.ErrRefused, fasthttp.StatusServiceUnavailable},
	{admission.ErrFull, fasthttp.StatusServiceUnavailable},
	{admission.ErrHeavy, fasthttp.StatusServiceUnavailable},
	{admission.ErrSlow, fasthttp.StatusServiceUnavailable},
	{admission.ErrLate, fasthttp.StatusServiceUnavailable},
	{errService, fasthttp.StatusBadGateway},
	{errLate, fasthttp.StatusGatewayTimeout},
	{errNoRow, fasthttp.StatusNotFound},
	{errHelper, fasthttp.StatusBadGateway},
	{errGone, statusGone},
	{errForsaken, statusGone},
	{admission.ErrTimeout, fasthttp.StatusGatewayTimeout},
	{inference.ErrStopped, fasthttp.StatusGatewayTimeout},
}

// status returns err's HTTP status.
func status(err error) int {
	var body *codec.Error
	var header *fasthttp.ErrSmallBuffer
	var network net.Error
	var refused *refusedBy
	switch {
	case errors.As(err, &refused):
		return refused.status
	case errors.As(err, &body):
		return fasthttp.StatusBadRequest
	case errors.As(err, &header):
		return fasthttp.StatusRequestHeaderFieldsTooLarge
	case errors.As(err, &network) && network.Timeout():
		return fasthttp.StatusRequestTimeout
	}
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			return s.status
		}
	}
	if errors.Is(err, errRequest) {
		return fasthttp.StatusBadRequest
	}
	return fasthttp.StatusInternalServerError
}

// described is a cause in the words that a client reads.
type described struct {
	text  string
	cause error
}

func (d *described) Error() string { return d.text }
func (d *described) Unwrap() error { return d.cause }

func describe(cause error, format string, args ...any) error {
	return &described{fmt.Sprintf(format, args...), cause}
}

// unknown describes an error of repository.Find. Clients of the reference server look
// for these words.
func unknown(err error, name, version []byte) error {
	if errors.Is(err, repository.ErrUnknownVersion) {
		return describe(err, "Request for unknown model: '%s' version %s is not found", name, version)
	}
	return describe(err, "Request for unknown model: '%s' is not found", name)
}

// refusal returns why m's requests are refused for now; nil: they are not.
func (a *API) refusal(m *repository.Model) error {
	if why := a.Refusal(m); why != "" {
		return &described{why, errRefused}
	}
	return nil
}

func leavingError() error {
	return describe(admission.ErrRefused, "this worker leaves, and what it runs does not end: try again")
}

// invalid is an error about a value in a body that is answered in FastAPI's form.
type invalid struct {
	body  []byte
	cause *codec.Error
}

func (v *invalid) Error() string { return v.cause.Error() }
func (v *invalid) Unwrap() error { return v.cause }

// invalidated makes an invalid of what Decode returned for body.
func invalidated(body []byte, err error) error {
	var cause *codec.Error
	if errors.As(err, &cause) {
		return &invalid{body, cause}
	}
	return err
}

// fail answers with err, in the form of the path's protocol.
func (a *API) fail(ctx *fasthttp.RequestCtx, err error) {
	b := ctx.Response.SwapBody(nil)[:0]
	var value *invalid
	var full *overload
	switch {
	case errors.As(err, &full):
		ctx.Response.Header.Set("Retry-After", strconv.Itoa(int(full.retry/time.Second))) // RFC 9110, section 10.2.3
	case errors.Is(err, errGone), errors.Is(err, errForsaken):
		ctx.SetConnectionClose()
	}
	switch {
	case errors.As(err, &value):
		ctx.SetStatusCode(fasthttp.StatusUnprocessableEntity)
		b = codec.AppendDetail(b, value.body, value.cause)
	case inDetail(ctx):
		ctx.SetStatusCode(status(err))
		b = codec.AppendDetailText(b, err.Error())
	default:
		ctx.SetStatusCode(status(err))
		b = codec.AppendError(b, err.Error())
	}
	sendJSON(ctx, b)
}

// inDetail tells whether ctx is a request to a path whose errors have FastAPI's form.
func inDetail(ctx *fasthttp.RequestCtx) bool {
	switch locate(ctx.URI().PathOriginal()).endpoint {
	case predict, invocations:
		return true
	}
	return false
}

// rejected describes an error of reading a request.
func rejected(err error, o *ServerOptions) error {
	var header *fasthttp.ErrSmallBuffer
	var network net.Error
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return describe(err, "body: larger than %s, which is %d bytes", cmp.Or(o.bodyOf, "http.max_body"), o.MaxBody)
	case errors.As(err, &header):
		return describe(err, "header: larger than %d bytes", headerBytes)
	case errors.As(err, &network) && network.Timeout():
		return describe(err, "request: not received in time: %s for the header, %s for the body", o.HeaderTimeout, o.RequestTimeout)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return describe(errRequest, "request: ended early")
	}
	return fmt.Errorf("%w: %w", errRequest, err)
}
