package api

import (
	"bytes"
	"encoding/json"
	"html/template"
	"strings"

	"github.com/valyala/fasthttp"
)

// docsData is what docs.html shows.
type docsData struct {
	Version string
	Guarded bool // something asks for a token
	Style   template.CSS
	Script  template.JS
	Groups  []docsGroup
}

type docsGroup struct {
	Name, ID   string
	Operations []docsOperation
}

type docsOperation struct {
	Method, Path, Summary, Description string
	Parameters                         []parameter
	HasBody                            bool
	Body                               string
}

// showDocs answers GET /docs.
func (a *API) showDocs(ctx *fasthttp.RequestCtx, _ target) error {
	a.view.Load().documents().docs.send(ctx)
	return nil
}

// renderDocs makes the page of the operations, which are grouped by tag.
func (a *API) renderDocs(list []documented) page {
	t := template.Must(template.ParseFS(pageFiles, "page/docs.html"))
	style, script := pageFile("page.css")+pageFile("docs.css"), pageFile("docs.js")
	data := docsData{Version: a.Version, Guarded: a.guard != nil, Style: template.CSS(style), Script: template.JS(script)}
	for _, tag := range []string{tagShort, tagV2, tagV1, tagRoutes, tagHealth, tagAbout} {
		g := docsGroup{Name: tag, ID: strings.ReplaceAll(strings.ToLower(tag), " ", "-")}
		for i := range list {
			if list[i].tag == tag {
				g.Operations = append(g.Operations, list[i].show())
			}
		}
		if len(g.Operations) > 0 {
			data.Groups = append(data.Groups, g)
		}
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		panic(err) // the file is part of the program: our bug
	}
	return page{b.Bytes(), policy(style, script)}
}

func (d *documented) show() docsOperation {
	o := docsOperation{
		Method: strings.ToUpper(d.method), Path: strings.TrimPrefix(d.path, "/"), Summary: d.summary, Parameters: d.parameters,
		HasBody: d.request != nil,
	}
	if d.model != nil {
		o.Description = d.model.Settings.Description
	}
	if o.HasBody {
		if example := d.example(d.model); example != nil {
			text, err := json.Marshal(example)
			if err != nil {
				panic(err)
			}
			o.Body = string(text)
		}
	}
	return o
}
