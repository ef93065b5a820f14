package api

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference/repository"
)

// documents are the answers that describe this service, made once, when one of them is
// first asked for: what they describe does not change.
type documents struct {
	openapi []byte
	docs    page
}

// object is a JSON object.
type object map[string]any

// showOpenAPI answers GET /openapi.json.
func (a *API) showOpenAPI(ctx *fasthttp.RequestCtx, _ target) error {
	ctx.SetContentType(contentType)
	ctx.Response.SetBodyRaw(a.view.Load().documents().openapi)
	return nil
}

// documented is one operation on one path of this service.
type documented struct {
	*operation
	method, path string
	parameters   []parameter
	model        *repository.Model // nil: the path names none
	guarded      bool              // it asks for a token
}

// parameter is a part of a path, or a header, and the values that it may have.
type parameter struct {
	Name, In string
	Values   []string
}

// describe makes the documents.
func (a *API) describe() *documents {
	s := schemas{components: commonSchemas(), names: make(map[*repository.Model]string)}
	paths := make(object)
	list := a.operations()
	for i := range list {
		d := &list[i]
		item, _ := paths[d.path].(object)
		if item == nil {
			item = make(object)
			paths[d.path] = item
		}
		item[d.method] = s.operation(d)
	}
	components := object{"schemas": s.components}
	if a.guard != nil {
		components["securitySchemes"] = object{"token": object{"type": "http", "scheme": "bearer"}}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(object{
		"openapi": "3.1.0",
		"info": object{
			"title": "preforkd", "version": a.Version,
			"description": "Answers requests to the models that this server has loaded, in the forms of several protocols.",
		},
		"paths":      paths,
		"components": components,
	}); err != nil {
		panic(err) // of our own values: our bug
	}
	return &documents{b.Bytes(), a.renderDocs(list)}
}

// operations lists what this service answers: each endpoint on each of its paths, for
// each model where the path names one.
func (a *API) operations() (list []documented) {
	for e := range operations {
		o := &operations[e]
		if endpoint(e) == control && a.Control != nil {
			o = &changes
		}
		if endpoint(e) == custom {
			list = append(list, a.documentRoutes(o)...)
			continue
		}
		method := "get"
		if endpoints[e].allow == postOnly {
			method = "post"
		}
		for _, path := range o.paths {
			if o.tag == tagTasks && a.Tasks == nil {
				continue
			}
			if !strings.Contains(path, "{model}") {
				d := documented{operation: o, method: method, path: path, guarded: a.guard.asks(endpoints[e].class)}
				if d.model, _ = a.find(target{}); d.model != nil && endpoint(e) == invocations {
					d.parameters = []parameter{{targetModel, "header", a.names()}}
				}
				if strings.Contains(path, "{task}") {
					d.parameters = append(d.parameters, parameter{"task", "path", nil})
				}
				if o.request == nil || d.model != nil && o.takes(d.model) {
					list = append(list, d)
				}
				continue
			}
			for _, m := range a.Models.All() {
				d := documented{operation: o, method: method, model: m, guarded: a.guard.asks(endpoints[e].class)}
				if o.takes(m) && d.locate(path, endpoint(e), a.Models.Versions(m.Name), a.labels(m)) {
					list = append(list, d)
				}
			}
		}
	}
	return list
}

// documentRoutes lists the operator's routes.
func (a *API) documentRoutes(o *operation) (list []documented) {
	for _, path := range a.routePaths() {
		r, own := a.routes[path], *o
		own.summary = o.summary + ", on the layer " + r.Layer.String()
		methods := []string{"get"}
		switch {
		case r.Proxy != nil:
			methods = nil
			for _, m := range r.Proxy.Methods {
				methods = append(methods, strings.ToLower(m))
			}
			own.summary = "Another service answers" + own.summary[len(o.summary):]
		case r.Features != nil:
			methods = append(methods, "post")
			own.summary = "Model " + r.Features.Model + " on rows of a store" + own.summary[len(o.summary):]
		case len(r.Steps) > 0:
			methods, own.summary = []string{"post"}, o.summary+": the body goes through "+stepsText(r.Steps)
		}
		for _, m := range methods {
			list = append(list, documented{operation: &own, method: m, path: path, guarded: a.guard.asks(r.class)})
		}
	}
	return list
}

// routePaths are the paths of the operator's routes.
func (a *API) routePaths() []string { return slices.Sorted(maps.Keys(a.routes)) }

// names lists the models.
func (a *API) names() (names []string) {
	for _, m := range a.Models.All() {
		names = append(names, m.Name)
	}
	return names
}

// labels lists the labels of m that stand for a version that is loaded.
func (a *API) labels(m *repository.Model) (labels []string) {
	for label, version := range m.Settings.Labels {
		if _, err := a.Models.Find(m.Name, version); err == nil {
			labels = append(labels, label)
		}
	}
	slices.Sort(labels)
	return labels
}

// locate fills in d's path from a template. It reports false where no request comes to
// the endpoint that way: there is no label, or the model's name cannot be a part of a path.
func (d *documented) locate(template string, e endpoint, versions, labels []string) bool {
	d.path = strings.Replace(template, "{model}", url.PathEscape(d.model.Name), 1)
	probe := d.path
	for name, values := range map[string][]string{"version": versions, "label": labels} {
		if !strings.Contains(template, "{"+name+"}") {
			continue
		}
		if len(values) == 0 {
			return false
		}
		d.parameters = append(d.parameters, parameter{name, "path", values})
		probe = strings.Replace(probe, "{"+name+"}", url.PathEscape(values[0]), 1)
	}
	return locate([]byte(probe)).endpoint == e
}

// operation describes d, as OpenAPI has it.
func (s *schemas) operation(d *documented) object {
	o := object{"summary": d.summary, "tags": []string{d.tag}, "responses": s.responses(d)}
	if d.model != nil && d.model.Settings.Description != "" {
		o["description"] = d.model.Settings.Description
	}
	var parameters []object
	for _, p := range d.parameters {
		schema := object{"type": "string"}
		if p.Values != nil {
			schema["enum"] = p.Values
		}
		parameters = append(parameters, object{"name": p.Name, "in": p.In, "required": p.In == "path", "schema": schema})
	}
	if parameters != nil {
		o["parameters"] = parameters
	}
	if d.guarded {
		o["security"] = []object{{"token": []string{}}}
	}
	if d.request != nil {
		content := object{"schema": s.of(d.model, d.requestName, d.request)}
		if example := d.example(d.model); example != nil {
			content["example"] = example
		}
		o["requestBody"] = object{"required": true, "content": object{contentType: content}}
	}
	return o
}

// responses describes the answers to d.
func (s *schemas) responses(d *documented) object {
	answer := func(description string, schema object) object {
		return object{"description": description, "content": object{contentType: object{"schema": schema}}}
	}
	r := make(object)
	switch {
	case d.status != 0:
		r[strconv.Itoa(d.status)] = answer(d.summary, reference("Error"))
	case d.html:
		r["200"] = object{"description": "a page", "content": object{"text/html": object{"schema": object{"type": "string"}}}}
	case d.answer != nil:
		r["200"] = answer("the answer", s.of(d.model, d.answerName, d.answer))
	default:
		r["200"] = answer("the answer", object{"type": "object"})
	}
	if d.detail {
		r["422"] = answer("a value in the body is not what the model takes", reference("HTTPValidationError"))
		r["default"] = answer("an error", reference("HTTPException"))
	} else {
		r["default"] = answer("an error", reference("Error"))
	}
	return r
}
