package api

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"math"
	"net/url"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
)

//go:embed page
var pageFiles embed.FS

// largestSample is the longest row that people get to see in a text field.
const largestSample = 4096

// page is the answer to GET / or GET /docs, made once: what it shows does not change.
type page struct {
	html   []byte
	policy string // Content-Security-Policy
}

// pageData is what page.html shows.
type pageData struct {
	Version string
	Guarded bool // the models ask for a token
	Style   template.CSS
	Script  template.JS
	Models  []pageModel
	Samples []pageSample
}

type pageModel struct {
	Name, Path, Version, Description string
	Inputs, Outputs                  []pageTensor
}

type pageTensor struct{ Name, DataType, Shape string }

// pageSample is a request body that a model takes.
type pageSample struct{ Name, Text string }

// showPage answers GET /.
func (a *API) showPage(ctx *fasthttp.RequestCtx, _ target) error {
	a.view.Load().page.send(ctx)
	return nil
}

// send answers with p.
func (p *page) send(ctx *fasthttp.RequestCtx) {
	ctx.SetContentType("text/html; charset=utf-8")
	h := &ctx.Response.Header
	h.Set("Content-Security-Policy", p.policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	ctx.Response.SetBodyRaw(p.html)
}

// render makes the page. Its files are part of the program: an error in them is our bug.
func (a *API) render() page {
	t := template.Must(template.ParseFS(pageFiles, "page/page.html"))
	style, script := pageFile("page.css"), pageFile("page.js")
	data := pageData{Version: a.Version, Guarded: a.guard.asks(endpoints[predict].class), Style: template.CSS(style), Script: template.JS(script)}
	for _, m := range a.Models.All() {
		data.Models = append(data.Models, describeModel(m))
		if text := sampleText(m); text != "" {
			data.Samples = append(data.Samples, pageSample{m.Name, text})
			if m.Name == a.Default { // first in the list, and so the one that is shown
				last := len(data.Samples) - 1
				data.Samples[0], data.Samples[last] = data.Samples[last], data.Samples[0]
			}
		}
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		panic(err)
	}
	return page{b.Bytes(), policy(style, script)}
}

func pageFile(name string) string {
	b, err := pageFiles.ReadFile("page/" + name)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// policy allows the page its own style and script, told by their digests, and requests
// to this server; nothing else.
func policy(style, script string) string {
	digest := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return fmt.Sprintf("default-src 'none'; style-src %s; script-src %s; img-src data:; connect-src 'self'; "+
		"form-action 'none'; base-uri 'none'; frame-ancestors 'none'", digest(style), digest(script))
}

func describeModel(m *repository.Model) pageModel {
	return pageModel{
		Name: m.Name, Path: url.PathEscape(m.Name), Version: m.Version, Description: m.Settings.Description,
		Inputs: describeTensors(m.Inputs()), Outputs: describeTensors(m.Outputs()),
	}
}

func describeTensors(list []inference.TensorInfo) []pageTensor {
	tensors := make([]pageTensor, len(list))
	for i := range list {
		sizes := make([]string, len(list[i].Shape))
		for j, d := range list[i].Shape {
			if sizes[j] = strconv.FormatInt(d, 10); d < 0 {
				sizes[j] = "any"
			}
		}
		tensors[i] = pageTensor{list[i].Name, list[i].DataType.String(), "[" + strings.Join(sizes, " × ") + "]"}
	}
	return tensors
}

// sampleText returns a body of POST /predict for m; "" when there is none, or none that
// a person could read.
func sampleText(m *repository.Model) string {
	width := m.Predict.Row.Width
	if width < 0 {
		width = 4 // any will do
	}
	sample := m.Settings.Predict.Sample
	if m.Predict.Err != nil || m.Predict.Row.Count > 1 || max(width, len(sample)) > largestSample || width == 0 {
		return ""
	}
	if len(sample) == 0 {
		sample = make([]float32, width)
	}
	return formatSample(sample, m.Inputs()[m.Predict.Input].DataType)
}

// formatSample writes a row in lines: a square, so that a small picture looks like one.
func formatSample(row []float32, dt inference.DataType) string {
	columns := int(math.Sqrt(float64(len(row))))
	if columns*columns != len(row) || columns > 32 {
		columns = 8
	}
	widest := 1
	texts := make([]string, len(row))
	for i, v := range row {
		if dt == inference.Int64 {
			texts[i] = strconv.FormatInt(int64(v), 10)
		} else {
			texts[i] = strconv.FormatFloat(float64(v), 'f', -1, 32)
		}
		widest = max(widest, len(texts[i]))
	}
	var b strings.Builder
	b.WriteString(`{"features": [`)
	for i, text := range texts {
		if i > 0 {
			b.WriteByte(',')
		}
		if i%columns == 0 {
			b.WriteString("\n ")
		}
		b.WriteString(strings.Repeat(" ", 1+widest-len(text)) + text)
	}
	b.WriteString("\n]}")
	return b.String()
}
