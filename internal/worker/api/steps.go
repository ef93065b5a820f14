package api

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
)

// Step is one of those that a route takes a request's body through: a model of this worker, or
// one that the helpers of a pool have.
type Step struct {
	Helper  string // the pool; empty: Model is this worker's
	Model   string
	Version string // of this worker's model; empty: the default
	At      string // where operators have written the step, for errors
}

// String is the step as operators write it.
func (s *Step) String() string {
	switch {
	case s.Helper == s.Model:
		return "helper:" + s.Helper
	case s.Helper != "":
		return "helper:" + s.Helper + "/" + s.Model
	case s.Version != "":
		return "model:" + s.Model + "/" + s.Version
	}
	return "model:" + s.Model
}

// stepsText lists steps as operators write them.
func stepsText(steps []Step) string {
	var texts []string
	for i := range steps {
		texts = append(texts, steps[i].String())
	}
	return strings.Join(texts, ", ")
}

// path is that of a step's requests to its helper.
func (s *Step) path() string { return "/v2/models/" + s.Model }

// plan is how the tensors of a route's steps become those of the next, for the models that are
// loaded.
type plan struct {
	steps []planned
	raw   bool // the request's body is the one string that the first helper takes
	bare  bool // the answer's is the one string that the last helper gives
}

// planned is a step of a plan.
type planned struct {
	model   *repository.Model // nil: a helper's
	in, out []inference.TensorInfo
	from    []int // of each input, which output of the step before; -1: it is left out
}

// errMisfit is of a route whose steps do not fit together.
var errMisfit = errors.New("the steps of the route do not fit together")

// description is what a helper says of one of its models.
type description struct{ in, out []inference.TensorInfo }

func (d *description) equal(e *description) bool {
	same := func(a, b inference.TensorInfo) bool {
		return a.Name == b.Name && a.DataType == b.DataType && slices.Equal(a.Shape, b.Shape)
	}
	return slices.EqualFunc(d.in, e.in, same) && slices.EqualFunc(d.out, e.out, same)
}

// Prove returns nil once every route's steps are known to fit together, for which their helpers
// must be ready; it waits for those as long as go on says so, which is told for whom. Else the
// error says which step is at fault, and where it is written.
func (a *API) Prove(goOn func(waitsFor string) bool) error {
	for _, r := range a.routes {
		for len(r.Steps) > 0 {
			_, err := a.planOf(r, timeLimit{}, time.Time{})
			if err == nil {
				break
			}
			var absent *absentError
			if !errors.As(err, &absent) || !goOn(absent.pool) {
				return err
			}
		}
	}
	return nil
}

// absentError is of a request for which no helper was ready, or none free.
type absentError struct {
	pool string
	err  error
}

func (e *absentError) Error() string { return e.err.Error() }
func (e *absentError) Unwrap() error { return e.err }

// planOf returns the plan of r, made anew where other models are loaded than it was made for.
// Until then helpers may be asked what they take and give; zero: as long as may be.
func (a *API) planOf(r *route, limit timeLimit, until time.Time) (*plan, error) {
	old := r.plan.Load()
	p := &plan{steps: make([]planned, len(r.Steps))}
	same := old != nil
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.Helper != "" {
			continue
		}
		m, err := a.Models.Find(s.Model, s.Version)
		if err != nil {
			return nil, describe(errors.Join(errMisfit, err), "%s: %s: %v", s.At, s, unknown(err, []byte(s.Model), []byte(s.Version)))
		}
		p.steps[i].model = m
		same = same && old.steps[i].model == m
	}
	if same {
		return old, nil
	}
	for i := range r.Steps {
		s, at := &r.Steps[i], &p.steps[i]
		if at.model != nil {
			at.in, at.out = at.model.Inputs(), at.model.Outputs()
		} else {
			d, err := a.describedBy(s, limit, until)
			if err != nil {
				return nil, err
			}
			at.in, at.out = d.in, d.out
		}
		if i == 0 {
			continue
		}
		var why string
		if at.from, why = join(&p.steps[i-1], at); why != "" {
			return nil, describe(errMisfit, "%s: %s does not fit behind %s: %s", s.At, s, &r.Steps[i-1], why)
		}
	}
	p.raw = p.steps[0].model == nil && oneString(p.steps[0].in)
	last := &p.steps[len(p.steps)-1]
	p.bare = last.model == nil && oneString(last.out)
	r.plan.Store(p)
	return p, nil
}

// oneString tells whether list is one string: a body of any form.
func oneString(list []inference.TensorInfo) bool {
	if len(list) != 1 || list[0].DataType != inference.Bytes {
		return false
	}
	shape := list[0].Shape
	return len(shape) == 0 && !list[0].AnyShape || len(shape) == 1 && (shape[0] == 1 || shape[0] == -1)
}

// join says which output of before each input of after is: that of its name, or the only one
// where after needs no other. why is what does not fit.
func join(before, after *planned) (from []int, why string) {
	needed := 0
	for i := range after.in {
		if !after.in[i].Optional {
			needed++
		}
	}
	from = make([]int, len(after.in))
	for i := range after.in {
		want := &after.in[i]
		k := slices.IndexFunc(before.out, func(t inference.TensorInfo) bool { return t.Name == want.Name })
		if k < 0 && needed == 1 && len(before.out) == 1 && !want.Optional {
			k = 0
		}
		from[i] = k
		switch {
		case k < 0 && want.Optional:
		case k < 0:
			return nil, fmt.Sprintf("it takes %s, which is none of %s", tensorText(want), tensorTexts(before.out))
		case !mayFit(&before.out[k], want):
			return nil, fmt.Sprintf("it takes %s, and gets %s", tensorText(want), tensorText(&before.out[k]))
		}
	}
	return from, ""
}

// mayFit tells whether a value of out may be one of in.
func mayFit(out, in *inference.TensorInfo) bool {
	if out.DataType != in.DataType {
		return false
	}
	if out.AnyShape || in.AnyShape {
		return true
	}
	return slices.EqualFunc(out.Shape, in.Shape, func(a, b int64) bool { return a < 0 || b < 0 || a == b })
}

func tensorText(t *inference.TensorInfo) string {
	shape := fmt.Sprint(t.Shape)
	if t.AnyShape {
		shape = "of any shape"
	}
	return fmt.Sprintf("%q %s %s", t.Name, t.DataType, shape)
}

func tensorTexts(list []inference.TensorInfo) string {
	text := ""
	for i := range list {
		if i > 0 {
			text += ", "
		}
		text += tensorText(&list[i])
	}
	return text
}

// describedBy returns what the helper of s says of its model, as it was heard first.
func (a *API) describedBy(s *Step, limit timeLimit, until time.Time) (*description, error) {
	key := [2]string{s.Helper, s.Model}
	if d, ok := a.descriptions.Load(key); ok {
		return d.(*description), nil
	}
	pool := a.Helpers[s.Helper]
	if pool == nil {
		return nil, describe(errMisfit, "%s: %s: there is no pool of helpers %q", s.At, s, s.Helper)
	}
	c, err := pool.Take(until, nil)
	if err != nil {
		return nil, a.untaken(pool, err)
	}
	defer pool.Release(c)
	d, err := a.hear(c, s, limit, until)
	if err != nil {
		return nil, err
	}
	known, _ := a.descriptions.LoadOrStore(key, d)
	c.Meet(s.Model)
	return known.(*description), nil
}
