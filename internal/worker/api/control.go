package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
)

// control answers requests to load or to unload a model. They wait for the whole service, which
// takes as long as it takes: the request clock is that of runs, and does not end them.
func (a *API) control(ctx *fasthttp.RequestCtx, t target) error {
	unread(ctx)
	if a.Control == nil {
		return describe(errControl, "model control over HTTP is off (models.control: %s): change the model directory and preforkd reload, or set models.control to explicit", a.ControlSetting)
	}
	if err := plainOrder(ctx.Request.Body()); err != nil {
		return err
	}
	order := ipc.ModelOrder{Name: string(t.model), Unload: string(t.verb) == "unload"}
	err := a.Control(order)
	var f *ipc.Failure
	switch {
	case err == nil:
		ctx.SetContentType(contentType)
		return nil
	case !errors.As(err, &f):
		return describe(errUndecided, "%v", err)
	case f.Exit == ipc.ExitUsage:
		return unknown(repository.ErrUnknownModel, t.model, nil)
	}
	return describe(controlErrors[f.Exit], "%s", f.What)
}

// controlErrors are what the service's refusals are here; a status that is not here is 500.
var controlErrors = map[int]error{
	ipc.ExitBoot:        errRequest, // the model is at fault
	ipc.ExitRolledBack:  errRequest,
	ipc.ExitConfig:      errRequest,
	ipc.ExitTryAgain:    errUndecided,
	ipc.ExitUnavailable: errUndecided,
	ipc.ExitPermission:  errControl,
}

// plainOrder refuses a body that asks for more than to load what lies in the directory. What the
// reference server's clients send along otherwise does not matter.
func plainOrder(body []byte) error {
	if body = bytes.TrimSpace(body); len(body) == 0 {
		return nil
	}
	var wants struct {
		Parameters map[string]json.RawMessage `json:"parameters"`
	}
	if err := json.Unmarshal(body, &wants); err != nil {
		return describe(errRequest, `body: %s; send nothing, or {"parameters": {}}`, plainly(err))
	}
	for key := range wants.Parameters {
		if key == "config" || strings.HasPrefix(key, "file:") {
			return describe(errControl, "parameters: %.100q: files are taken by the admin socket only: preforkd models load NAME --file", key)
		}
	}
	return nil
}
