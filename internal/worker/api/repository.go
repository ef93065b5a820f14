package api

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/valyala/fasthttp"
)

// indexed is one version in the answer of POST /v2/repository/index.
type indexed struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	State   string `json:"state"`
	Reason  string `json:"reason"`
}

// index answers POST /v2/repository/index: every version that this worker has loaded, all
// of which serve unless they are quarantined, and those that are known and not loaded.
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
	for _, m := range a.Models.Every() {
		one := indexed{Name: m.Name, Version: m.Version, State: "READY"}
		if one.Reason = a.Refusal(m); one.Reason != "" {
			if wants.Ready {
				continue
			}
			one.State = "UNAVAILABLE"
		}
		all = append(all, one)
	}
	if !wants.Ready && a.Unloaded != nil {
		for _, u := range a.Unloaded() {
			all = append(all, indexed{Name: u.Name, Version: u.Version, State: "UNAVAILABLE", Reason: u.Reason})
		}
	}
	return marshal(ctx, all)
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
