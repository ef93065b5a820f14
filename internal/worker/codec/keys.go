package codec

import (
	"fmt"
	"slices"
)

// nothing is an object without members.
var nothing = []byte("{}")

// maxKey is how long one value of a KeysRequest may be.
const maxKey = 512

// KeysRequest says which rows of a store a request wants: a value for each of some names, or as
// many of each as there are rows; one alone is that of every row. The zero value is ready to use.
type KeysRequest struct {
	// Rows is how many rows are asked for.
	Rows int

	s     scanner
	names []string
	most  int
	text  []byte // all values, one after the other
	lists []keys // by name
}

// keys are the values of one name.
type keys struct {
	spans []span
	array bool
}

// span is a part of text.
type span struct{ from, to int }

// Begin forgets what was asked for. At most most rows are.
func (r *KeysRequest) Begin(names []string, most int) {
	r.names, r.most, r.Rows, r.text = names, most, 1, r.text[:0]
	r.lists = resize(r.lists, len(names))
	for i := range r.lists {
		r.lists[i].spans, r.lists[i].array = r.lists[i].spans[:0], false
	}
}

// Decode reads body, an object in JSON, after Begin. The error is an *Error. Nothing of body is kept.
func (r *KeysRequest) Decode(body []byte) error {
	ok := r.s.start(body) && r.object() && r.s.end() && r.complete()
	return r.ended(ok)
}

// Set gives the one value of the name of that index, after Begin; empty: none.
func (r *KeysRequest) Set(name int, value []byte) error {
	r.s.start(nothing) // for its errors
	r.s.path.push(part{name: r.names[name]})
	ok := true
	if len(value) == 0 {
		ok = r.s.fail(-1, "missing")
	} else {
		ok = r.keep(name, value, -1)
	}
	return r.ended(ok)
}

// ended returns the scanner's error, and lets go of what it read.
func (r *KeysRequest) ended(ok bool) error {
	err := r.s.err
	r.s.b, r.s.rawKey, r.s.path, r.s.err = nil, nil, path{}, nil
	if !ok {
		return err
	}
	return nil
}

// Value returns the value of a name for a row. It is valid until the next Begin.
func (r *KeysRequest) Value(name, row int) []byte {
	l := &r.lists[name]
	if !l.array {
		row = 0
	}
	return r.text[l.spans[row].from:l.spans[row].to]
}

// Trim frees memory beyond limit bytes, and returns how much.
func (r *KeysRequest) Trim(limit int) (freed int) {
	return trim(&r.text, limit) + trim(&r.s.scratch, limit)
}

func (r *KeysRequest) object() bool {
	_, ok := r.s.object("'{'", r.member)
	return ok
}

func (r *KeysRequest) member(key []byte) bool {
	s := &r.s
	i := slices.IndexFunc(r.names, func(n string) bool { return n == string(key) })
	if i < 0 {
		return s.skipUnknown(1)
	}
	if !s.once(1<<i, r.names[i]) || !r.values(i) {
		return false
	}
	s.path.pop()
	return true
}

// values reads one value, or an array of them.
func (r *KeysRequest) values(name int) bool {
	s := &r.s
	if s.peek() != '[' {
		return r.value(name)
	}
	at := s.i
	s.i++
	r.lists[name].array = true
	for k := 0; ; k++ {
		more, ok := s.more(']', k == 0)
		switch {
		case !ok:
			return false
		case !more && k == 0:
			return s.fail(at, "empty")
		case !more:
			return true
		case k == r.most:
			return s.failf(at, "more than %d rows, which is as many as this path takes", r.most)
		}
		s.path.push(part{index: k})
		if !r.value(name) {
			return false
		}
		s.path.pop()
	}
}

// value reads a string or an integer.
func (r *KeysRequest) value(name int) bool {
	s := &r.s
	c, at := s.peek(), s.i
	switch {
	case c == '"':
		text, ok := s.str()
		return ok && r.keep(name, text, at)
	case startsNumber(c):
		n, ok := s.number()
		if ok && !n.whole {
			return s.failf(at, "%s is not written as an integer", clip(s.b[at:s.i]))
		}
		return ok && r.keep(name, s.b[at:s.i], at)
	}
	return s.unexpected("a string or an integer")
}

// keep adds a value that was read at an offset of the body.
func (r *KeysRequest) keep(name int, value []byte, at int) bool {
	switch {
	case len(value) == 0:
		return r.s.fail(at, "empty")
	case len(value) > maxKey:
		return r.s.failf(at, "longer than %d bytes", maxKey)
	}
	from := len(r.text)
	r.text = append(r.text, value...)
	r.lists[name].spans = append(r.lists[name].spans, span{from, len(r.text)})
	return true
}

// complete checks what can be told only after the whole object.
func (r *KeysRequest) complete() bool {
	first := -1
	for i := range r.lists {
		l := &r.lists[i]
		r.s.path.push(part{name: r.names[i]})
		switch {
		case len(l.spans) == 0:
			return r.s.fail(-1, "missing")
		case !l.array:
		case first < 0:
			first, r.Rows = i, len(l.spans)
		case len(l.spans) != r.Rows:
			return r.s.fail(-1, fmt.Sprintf("%d values, %s has %d", len(l.spans), r.names[first], r.Rows))
		}
		r.s.path.pop()
	}
	return true
}
