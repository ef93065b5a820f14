package api

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/worker/admission"
	"preforkd/internal/worker/codec"
	"preforkd/internal/worker/helper"
)

// errHelper is of a request that a helper has not done: it ended, or what it says is of no use.
var errHelper = errors.New("a helper failed")

// refusedBy is the error of a request whose input a helper refuses, with that status.
type refusedBy struct {
	text   string
	status int
}

func (r *refusedBy) Error() string { return r.text }

// inputStatuses are those by which a helper says that what it was sent is at fault; the client
// gets them as they are.
var inputStatuses = []int{
	fasthttp.StatusBadRequest, fasthttp.StatusRequestEntityTooLarge, fasthttp.StatusUnsupportedMediaType, fasthttp.StatusUnprocessableEntity,
}

// untaken describes why Take gave no helper.
func (a *API) untaken(p *helper.Pool, err error) error {
	full := func(text string) error {
		const retry = time.Second
		return &overload{fmt.Sprintf("%s: try again in %s", text, retry), admission.ErrFull, retry, Sync}
	}
	switch {
	case errors.Is(err, helper.ErrFull):
		return full(fmt.Sprintf("as many requests wait for a helper of pool %s as may (helper.max_waiting)", p.Name()))
	case errors.Is(err, helper.ErrBusy):
		err = full(fmt.Sprintf("no helper of pool %s became free within %s (helper.max_wait)", p.Name(), p.MaxWait()))
	case errors.Is(err, helper.ErrLate):
		return describe(admission.ErrTimeout, "no helper of pool %s became free before the request's time was over", p.Name())
	case errors.Is(err, helper.ErrGone):
		return errGone
	case errors.Is(err, helper.ErrNone):
		err = describe(errHelper, "no helper of pool %s is ready, and none became so within %s (helper.max_wait)", p.Name(), p.MaxWait())
	}
	return &absentError{p.Name(), err}
}

// failed describes why Ask brought no answer.
func failed(c *helper.Conn, limit timeLimit, err error) error {
	if errors.Is(err, helper.ErrLate) {
		if limit.Duration <= 0 {
			return describe(inference.ErrStopped, "%s gave no answer in time", c)
		}
		return describe(inference.ErrStopped, "%s gave no answer within %s, which is %s", c, limit.of, limit.Duration)
	}
	return &described{err.Error(), errHelper}
}

// hear asks the helper at the other end of c what it says of the model of s.
func (a *API) hear(c *helper.Conn, s *Step, limit timeLimit, until time.Time) (*description, error) {
	var answer helper.Answer
	if err := c.Ask(&helper.Request{Path: s.path(), Until: until}, &answer); err != nil {
		return nil, failed(c, limit, err)
	}
	if answer.Status() != fasthttp.StatusOK {
		return nil, describe(errors.Join(errMisfit, errHelper), "%s: %s: GET %s of %s: status %d: %s", s.At, s, s.path(), c, answer.Status(), codec.ErrorText(answer.Body()))
	}
	in, out, err := codec.ParseMetadata(answer.Body())
	if err != nil {
		return nil, describe(errors.Join(errMisfit, errHelper), "%s: %s: GET %s of %s: %v", s.At, s, s.path(), c, err)
	}
	return &description{in, out}, nil
}

// meet checks that the helper process at the other end of c says of the model of s what the first
// one said, by which the plan was made.
func (a *API) meet(c *helper.Conn, s *Step, at *planned, limit timeLimit, until time.Time) error {
	if c.Met(s.Model) {
		return nil
	}
	d, err := a.hear(c, s, limit, until)
	if err != nil {
		return err
	}
	if !d.equal(&description{at.in, at.out}) {
		return describe(errHelper, "%s takes %s and gives %s, where others take %s and give %s: reload, so that all are the same",
			c, tensorTexts(d.in), tensorTexts(d.out), tensorTexts(at.in), tensorTexts(at.out))
	}
	c.Meet(s.Model)
	return nil
}

// errLeft is of a helper that has closed the connection before it was asked for the step.
var errLeft = errors.New("the helper leaves")

// ask has a helper do step i.
func (j *journey) ask(i int) error {
	answer, who, err := j.askOne(i)
	for err == errLeft { // once for each helper: it has said what it is for
		answer, who, err = j.askOne(i)
	}
	if err != nil {
		return err
	}
	at := &j.plan.steps[i]
	switch n := answer.Status(); {
	case slices.Contains(inputStatuses, n):
		return &refusedBy{who.String() + ": " + codec.ErrorText(answer.Body()), n}
	case n != fasthttp.StatusOK:
		return describe(errHelper, "%s: status %d: %s", who, n, codec.ErrorText(answer.Body()))
	}
	header, err := answer.JSON()
	read := &j.read[i%2]
	if err == nil {
		err = read.Decode(answer.Body(), header, at.out)
	}
	if err != nil {
		return describe(errHelper, "%s: its answer cannot be used: %v", who, err)
	}
	j.got, j.kind = read.Outputs, read.Kind
	return nil
}

// askOne has one helper answer step i, and returns which.
func (j *journey) askOne(i int) (answer *helper.Answer, who helper.Who, err error) {
	s, at := &j.route.Steps[i], &j.plan.steps[i]
	pool, until := j.api.Helpers[s.Helper], j.until()
	c, err := pool.Take(until, j.ctx.Conn())
	if err != nil {
		return nil, who, j.api.untaken(pool, err)
	}
	defer pool.Release(c)
	answer, who = &j.answers[i%2], c.Who()
	if err := j.api.meet(c, s, at, j.limit, until); err != nil {
		return nil, who, err
	}
	if c.Closed() {
		return nil, who, errLeft
	}
	var call codec.Call
	var header int
	var more []byte
	if i == 0 && j.plan.raw {
		call.Kind, more = j.ctx.Request.Header.ContentType(), j.body
		j.out, header = call.AppendRaw(j.out[:0], at.in[0].Name, len(more))
	} else {
		j.out, header = call.Append(j.out[:0], j.in)
	}
	if err := c.Ask(&helper.Request{
		Path: s.path() + "/infer", JSON: header, Body: j.out, More: more, ID: j.ctx.Request.Header.Peek("X-Request-Id"), Until: until,
	}, answer); err != nil {
		return nil, who, failed(c, j.limit, err)
	}
	return answer, who, nil
}
