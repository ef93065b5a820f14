package api

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
	"preforkd/internal/worker/codec"
	"preforkd/internal/worker/upstream"
)

// Features is what a route does that runs a model on rows of a store.
type Features struct {
	// The store is one of these.
	Redis *upstream.Redis
	HTTP  *upstream.HTTP
	// Key is the key of a row in Redis, or the path and query of one over HTTP; Names has what its
	// pieces name.
	Key   []Piece
	Names []string
	// Fields are the parts of a row, in the order of the input; none: it is a whole.
	Fields  []string
	Format  RowFormat
	Missing Missing
	// Model runs; Input gets the rows; empty: its only input.
	Model, Input string
	MaxRows      int
	// Authorization is sent to a store that speaks HTTP.
	Authorization string
	// Connections is how many requests may wait at once; 0: a share of the layer's.
	Connections int
	// At is where it is written, for messages.
	At string
}

// Piece is a part of a key: text, and after that the value of a name; -1: nothing.
type Piece struct {
	Text string
	Name int
}

// RowFormat is how a row is written.
type RowFormat int

// The formats.
const (
	RowHash   RowFormat = iota // fields of a hash, each the text of a number
	RowJSON                    // an array, or an object with fields
	RowBinary                  // elements in little endian
)

// Missing is what becomes of a field that is not there.
type Missing int

// What becomes of it.
const (
	MissingError Missing = iota
	MissingZero
	MissingNaN
)

// feed is how rows fill an input of a model.
type feed struct {
	model *repository.Model
	input int
	width int
	count int // of rows; -1: any
	err   error
}

// feedOf returns how rows of r fill m, which is looked at once.
func (r *route) feedOf(m *repository.Model) *feed {
	if f := r.feed.Load(); f != nil && f.model == m {
		return f
	}
	f := &feed{model: m}
	f.input, f.width, f.count, f.err = r.Features.fit(m)
	r.feed.Store(f)
	return f
}

// fit says how rows fill m. The error says what does not fit.
func (f *Features) fit(m *repository.Model) (input, width, count int, err error) {
	in := m.Inputs()
	input = -1
	for i := range in {
		switch {
		case f.Input == in[i].Name, f.Input == "" && input < 0 && !in[i].Optional:
			input = i
		case !in[i].Optional && f.Input == "":
			return 0, 0, 0, fmt.Errorf("model %q has several inputs, %s: write which one the rows are, input: NAME, if the others are optional", m.Name, inputNames(in))
		case !in[i].Optional:
			return 0, 0, 0, fmt.Errorf("model %q also takes the input %q, which rows do not give it", m.Name, in[i].Name)
		}
	}
	if input < 0 {
		return 0, 0, 0, fmt.Errorf("model %q has no input %q, only %s", m.Name, f.Input, inputNames(in))
	}
	info := &in[input]
	row, err := info.Row()
	switch {
	case err != nil:
		return 0, 0, 0, err
	case info.DataType == inference.Bytes:
		return 0, 0, 0, fmt.Errorf("input %q of model %q takes strings, and rows are numbers", info.Name, m.Name)
	case f.Format != RowBinary && !codec.ReadsText(info.DataType):
		return 0, 0, 0, fmt.Errorf("input %q of model %q takes %s, which is not written as text; write format: binary", info.Name, m.Name, info.DataType)
	case f.Missing == MissingNaN && info.DataType != inference.FP32 && info.DataType != inference.FP64:
		return 0, 0, 0, fmt.Errorf("input %q of model %q takes %s, which has no NaN; write missing: zero, or error", info.Name, m.Name, info.DataType)
	case row.Width < 0 && len(f.Fields) == 0:
		return 0, 0, 0, fmt.Errorf("input %q of model %q takes rows of any length; write fields", info.Name, m.Name)
	case row.Width < 0:
		row.Width = len(f.Fields)
	case len(f.Fields) > 0 && len(f.Fields) != row.Width:
		return 0, 0, 0, fmt.Errorf("%d fields, input %q of model %q takes %d", len(f.Fields), info.Name, m.Name, row.Width)
	}
	for _, o := range m.Outputs() {
		if !codec.Writes(o.DataType) {
			return 0, 0, 0, fmt.Errorf("output %q of model %q is %s, which is not sent in JSON", o.Name, m.Name, o.DataType)
		}
	}
	return input, row.Width, row.Count, nil
}

func inputNames(list []inference.TensorInfo) string {
	var names []string
	for i := range list {
		names = append(names, fmt.Sprintf("%q", list[i].Name))
	}
	return strings.Join(names, ", ")
}

// CheckRoutes says which route's rows cannot fill its model, as models are now, and where it is
// written; nil: all fit. A model that is not there is no error where loads says that it may be loaded
// later.
func (a *API) CheckRoutes(loads bool) error {
	for _, path := range a.routePaths() {
		r := a.routes[path]
		if r.Features == nil {
			continue
		}
		m, err := a.Models.Find(r.Features.Model, "")
		if err == nil {
			err = r.feedOf(m).err
		} else if err = fmt.Errorf("model %q is not loaded", r.Features.Model); loads {
			continue
		}
		if err != nil {
			return &RouteError{Path: path, At: r.Features.At, Text: err.Error()}
		}
	}
	return nil
}

// RouteError is a route that cannot be as it is set.
type RouteError struct{ Path, At, Text string }

// Error says where it is written.
func (e *RouteError) Error() string {
	where := e.At
	if where != "" {
		where += ": "
	}
	return where + "routes." + e.Path + ".features: " + e.Text
}

// score answers a request to a route that runs a model on rows of a store.
func (a *API) score(ctx *fasthttp.RequestCtx, t target) error {
	f := t.route.Features
	m, err := a.runnable(target{model: []byte(f.Model)})
	if errors.Is(err, repository.ErrUnknownModel) || errors.Is(err, repository.ErrUnknownVersion) {
		return describe(errRefused, "route %s: model %q is not loaded", t.route.Path, f.Model)
	}
	if err != nil {
		return err
	}
	feed := t.route.feedOf(m)
	if feed.err != nil {
		return describe(errService, "route %s: %v", t.route.Path, feed.err)
	}
	w, err := a.newWait(ctx, t, a.timeout(m))
	if err != nil {
		return err
	}
	defer w.recycle()
	if err := a.wanted(w, f); err != nil {
		return err
	}
	x := a.acquire(m, t.start)
	defer a.release(x)
	if err := w.layOut(x, feed); err != nil {
		return err
	}
	if err := a.fetch(w, x, f); err != nil {
		return err
	}
	if err := a.admit(ctx, x, nil, nil); err != nil {
		return err
	}
	if err := a.run(ctx, x, x.infer.Inputs); err != nil {
		return err
	}
	b, header, err := x.infer.AppendResponse(ctx.Response.SwapBody(nil)[:0], m.Name, m.Version, x.out)
	if err != nil {
		sendJSON(ctx, b) // the buffer stays with the connection
		return err
	}
	x.send(ctx, b, header)
	return nil
}

// wanted reads which rows a request wants: of its query, or of its body.
func (a *API) wanted(w *wait, f *Features) error {
	k := &w.rows.keys
	k.Begin(f.Names, f.MaxRows)
	if w.ctx.IsPost() {
		body, err := a.textBody(w.ctx)
		if err != nil {
			return err
		}
		return k.Decode(body)
	}
	args := w.ctx.QueryArgs()
	for i, name := range f.Names {
		if err := k.Set(i, args.Peek(name)); err != nil {
			return err
		}
	}
	return nil
}

// layOut makes room for w's rows in the input that they fill.
func (w *wait) layOut(x *exchange, f *feed) error {
	m, rows := x.model, w.rows.keys.Rows
	if f.count >= 0 && rows != f.count {
		return describe(inference.ErrInput, "%d rows, model %q takes %d", rows, m.Name, f.count)
	}
	x.infer.Ask(m.Inputs(), m.Outputs())
	t, info := &x.infer.Inputs[f.input], &m.Inputs()[f.input]
	w.rows.shape = info.AppendShape(w.rows.shape[:0], rows, f.width)
	if err := t.Reset(info.DataType, w.rows.shape); err != nil {
		return describe(inference.ErrInput, "%d rows: %v", rows, err)
	}
	t.Name = info.Name
	w.rows.into, w.rows.width = t, f.width
	_, err := batchRows(m, x.infer.Inputs)
	return err
}

// fetch fills the rows, under a place on the layer, which is given back before the model runs.
func (a *API) fetch(w *wait, x *exchange, f *Features) error {
	if err := a.board(w); err != nil {
		return err
	}
	defer a.land(w)
	began := now()
	var err error
	if f.Redis != nil {
		err = w.readRedis(f)
	} else {
		err = w.readHTTP(f)
	}
	x.stored = now() - began
	w.route.model.Learn(time.Duration(x.stored), 1)
	w.rows.into = nil
	if err != nil {
		return a.failure(w, err)
	}
	return nil
}

// placesOf returns where each name is in the list.
func placesOf(names []string) map[string]int {
	at := make(map[string]int, len(names))
	for i, n := range names {
		at[n] = i
	}
	return at
}
