package api

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference/repository"
)

var errControlOff = describe(errControl, "model control is off; change the model directory and preforkd reload")

// control answers requests to load or to unload a model.
func (a *API) control(ctx *fasthttp.RequestCtx, _ target) error {
	unread(ctx)
	return errControlOff
}

// indexed is one version in the answer of POST /v2/repository/index.
type indexed struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	State   string `json:"state"`
	Reason  string `json:"reason"`
}

// index answers POST /v2/repository/index: every version that this worker has loaded, all
// of which serve unless they are quarantined.
func (a *API) index(ctx *fasthttp.RequestCtx, _ target) error {
	unread(ctx)
	var wants struct {
		Ready bool `json:"ready"`
	}
	if body := bytes.TrimSpace(ctx.Request.Body()); len(body) > 0 {
		if err := json.Unmarshal(body, &wants); err != nil {
			return describe(errRequest, `body: %s; send nothing, or {"ready": true}`, plainly(err))
		}
	}
	all := []indexed{}
	for m := range a.everyModel {
		one := indexed{Name: m.Name, Version: m.Version, State: "READY"}
		if one.Reason = a.Refusal(m); one.Reason != "" {
			if wants.Ready {
				continue
			}
			one.State = "UNAVAILABLE"
		}
		all = append(all, one)
	}
	return marshal(ctx, all)
}

// everyModel yields each version of each model, by name and then from the lowest version on.
func (a *API) everyModel(yield func(*repository.Model) bool) {
	for _, served := range a.Models.All() {
		for _, version := range a.Models.Versions(served.Name) {
			if m, err := a.Models.Find(served.Name, version); err == nil && !yield(m) {
				return
			}
		}
	}
}

// marshal answers with v as JSON.
func marshal(ctx *fasthttp.RequestCtx, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	sendJSON(ctx, body)
	return nil
}

// plainly is an error of encoding/json without the names of our types.
func plainly(err error) string {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		if kind.Field == "" {
			return kind.Value + " is out of place here"
		}
		return kind.Field + ": " + kind.Value + " is out of place here"
	}
	return err.Error()
}
