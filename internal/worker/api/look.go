package api

import (
	"bytes"
	"math"
	"time"

	"preforkd/internal/worker/accept"
	"preforkd/internal/worker/admission"
)

// Computes tells of what a request begins with whether it may need a permit: whether it may be one
// that runs a model, or to a route of the layer compute. It is asked for every request.
func (a *API) Computes(begins []byte) bool {
	line, _, whole := bytes.Cut(begins, []byte("\n"))
	uri, posts, can := a.asks(line)
	if !can || !whole {
		return can
	}
	t := a.locate(pathOf(uri))
	return t.computes(posts)
}

// asks returns the target of a line that begins a request, and whether it is a POST; can: it may be one
// that computes.
func (a *API) asks(line []byte) (uri []byte, posts, can bool) {
	for i, method := range [...]string{"POST ", "GET ", "HEAD "} {
		if n := min(len(line), len(method)); string(line[:n]) == method[:n] {
			uri, _, _ = bytes.Cut(line[n:], []byte(" "))
			return uri, i == 0, i == 0 || a.computing
		}
	}
	return nil, false, false
}

// computes tells whether requests to t need a permit.
func (t *target) computes(posts bool) bool {
	if t.route != nil {
		return t.route.Layer == Compute
	}
	return posts && runs(t.endpoint)
}

// runs tells whether requests to e run a model.
func runs(e endpoint) bool {
	switch e {
	case infer, predict, invocations, v1Predict:
		return true
	}
	return false
}

// Look looks at what there is of a request that nobody has read; false: its header is not complete. What
// it does not understand is read and answered where it is, and so is what a model will not run for.
func (a *API) Look(begins []byte) (accept.Head, bool) {
	line, rest, ok := bytes.Cut(begins, []byte("\n"))
	uri, posts, can := a.asks(line)
	if !can || !ok {
		return accept.Head{}, !can
	}
	t := a.locate(pathOf(uri))
	if !t.computes(posts) {
		return accept.Head{}, true
	}
	f := headFields{length: none}
	for {
		if line, rest, ok = bytes.Cut(rest, []byte("\n")); !ok {
			return accept.Head{}, false
		}
		if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
			break
		}
		f.read(line)
	}
	if t.endpoint == invocations {
		t.model = f.target
	}
	if f.length == none && !posts {
		f.length = 0
	}
	return a.head(t, &f, len(begins)-len(rest)), true
}

// head is what follows from a header of so many bytes.
func (a *API) head(t target, f *headFields, header int) accept.Head {
	h, limit := accept.Head{Computes: true}, timeLimit{a.RequestTimeout, "timeouts.request"}
	if t.route != nil {
		h.Cost = t.route.model.Expect()
	} else {
		reader := a.Models.Enter()
		defer a.Models.Leave(reader)
		m, err := a.runnable(t)
		if err != nil {
			return accept.Head{}
		}
		h.Cost, limit = stateOf(m).Expect(), a.timeout(m)
	}
	limit.narrow(f.limit, "")
	h.Limit = limit.Duration
	// Without a limit of time nobody waits.
	if !f.odd && f.length >= 0 && h.Limit > 0 && (a.limits.MaxBody <= 0 || f.length <= a.limits.MaxBody) {
		h.Size = header + f.length
	}
	return h
}

// Admits returns why a request may not wait in the queue that all workers have in common.
func (a *API) Admits(h accept.Head) error {
	return a.Permits.Admits(admission.Claim{Wait: h.Limit, Cost: h.Cost})
}

const none = -1

// headFields are those of a request's header that matter before it is read.
type headFields struct {
	length int           // of the body; none: it does not say
	limit  time.Duration // how long its client waits; 0: it does not say
	target []byte        // the model, of invocations
	odd    bool          // there is something to be done before the body comes, or something wrong
}

// read reads a line.
func (f *headFields) read(line []byte) {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 || name[0] == ' ' || name[0] == '\t' { // of obs-fold: RFC 9112, section 5.2
		f.odd = true
		return
	}
	value = bytes.TrimSpace(value)
	is := func(want string) bool { return len(name) == len(want) && bytes.EqualFold(name, []byte(want)) }
	switch {
	case is("Content-Length"):
		f.odd = f.odd || f.length != none
		f.length = digits(value)
		f.odd = f.odd || f.length == none
	case is("Transfer-Encoding"), is("Expect"), is("Upgrade"):
		f.odd = true
	case is(timeoutHeader):
		d, err := requestTimeout(value)
		f.narrow(d, err)
	case is(envoyHeader):
		d, err := envoyTimeout(value)
		f.narrow(d, err)
	case is(targetModel):
		f.target = value
	}
}

func (f *headFields) narrow(d time.Duration, err error) {
	if f.odd = f.odd || err != nil; d > 0 && (f.limit == 0 || d < f.limit) {
		f.limit = d
	}
}

// digits returns the number that text is; none: it is none, or too large for any body.
func digits(text []byte) int {
	n := 0
	for _, c := range text {
		if c < '0' || c > '9' || n > math.MaxInt32 {
			return none
		}
		n = 10*n + int(c-'0')
	}
	if len(text) == 0 {
		return none
	}
	return n
}
