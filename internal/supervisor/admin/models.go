package admin

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"
)

// Model is one model of the generation in charge.
type Model struct {
	Name    string     `json:"name"`
	Version string     `json:"version"`
	Digest  string     `json:"digest"`            // hexadecimal SHA-256 of its content
	State   string     `json:"state"`             // "serving", or StateQuarantined
	Deaths  uint64     `json:"deaths"`            // workers that ended in the middle of its requests, since it is served with this content
	Request string     `json:"request,omitempty"` // digest of the request of the latest
	Reason  string     `json:"reason,omitempty"`  // why it is quarantined
	Since   *time.Time `json:"since,omitempty"`   // when that began
	Weights *Weights   `json:"weights,omitempty"` // what workers have of it; nil: none has said it
}

// StateQuarantined is the state of a model whose requests are refused.
const StateQuarantined = "quarantined"

// ReleaseResult is what became of a model that was to be released.
type ReleaseResult struct {
	Model    string `json:"model"`
	Released bool   `json:"released"` // false: it was not quarantined
	Message  string `json:"message"`
}

// The paths of all models, and of what is done to one, NAME being any.
const (
	modelsPath   = "/v1/models"
	releasePath  = "/release"
	loadPath     = "/load"
	unloadPath   = "/unload"
	releaseRoute = modelsPath + "/NAME" + releasePath
	loadRoute    = modelsPath + "/NAME" + loadPath
	unloadRoute  = modelsPath + "/NAME" + unloadPath
)

// released returns the model whose release path asks for.
func released(path string) (name string, ok bool) { return modelOf(path, releasePath) }

// modelOf returns the model that path, which ends with verb, is about.
func modelOf(path, verb string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(path, modelsPath+"/")
	if !ok {
		return "", false
	}
	name, ok = strings.CutSuffix(rest, verb)
	return name, ok && name != "" && !strings.Contains(name, "/")
}

// modelRoute returns the route of a path of one model, and other paths as they are.
func modelRoute(path string) string {
	for verb, route := range map[string]string{releasePath: releaseRoute, loadPath: loadRoute, unloadPath: unloadRoute} {
		if _, ok := modelOf(path, verb); ok {
			return route
		}
	}
	return path
}

func (s *Server) models(c *call) error {
	ctx, cancel := context.WithTimeout(c.r.Context(), answerLimit)
	defer cancel()
	models, err := s.service.Models(ctx)
	if err != nil {
		return late(ctx, err)
	}
	return c.write(models)
}

func (s *Server) release(c *call) error {
	name, _ := released(c.r.URL.Path)
	ctx, cancel := context.WithTimeout(c.r.Context(), answerLimit)
	defer cancel()
	result, err := s.service.Release(ctx, name)
	if err != nil {
		return late(ctx, err)
	}
	return c.write(result)
}

// Models returns the models of the generation in charge.
func (c *Client) Models(ctx context.Context) (models []Model, err error) {
	err = c.ask(ctx, http.MethodGet, modelsPath, nil, &models)
	return models, err
}

// Release ends the quarantine of a model. One that the service does not have is a Failure.
func (c *Client) Release(ctx context.Context, name string) (result ReleaseResult, err error) {
	err = c.ask(ctx, http.MethodPost, modelsPath+"/"+url.PathEscape(name)+releasePath, nil, &result)
	return result, err
}

// digestShown is how much of a digest people see: enough to tell versions apart.
const digestShown = 12

// ModelTable prints models for people.
func ModelTable(w io.Writer, models []Model) error {
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MODEL\tVERSION\tDIGEST\tSTATE\tDEATHS")
	for _, m := range models {
		digest := m.Digest[:min(len(m.Digest), digestShown)]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\n", clean(m.Name), clean(m.Version), clean(digest), clean(m.State), m.Deaths)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	quarantined(&b, models)
	_, err := w.Write(b.Bytes())
	return err
}

// quarantined prints why and since when models are.
func quarantined(w io.Writer, models []Model) {
	for _, m := range models {
		if m.State != StateQuarantined {
			continue
		}
		since := ""
		if m.Since != nil {
			since = m.Since.Format(timeLayout) + ": "
		}
		fmt.Fprintf(w, "%s%s\n", since, clean(m.Reason))
	}
}
