package codec

import (
	"slices"

	"preforkd/internal/inference"
)

// maxIndexes is how many of the indexes of arrays in one another an error names.
const maxIndexes = maxPath - 4

// column is one input while it is read.
type column struct {
	sizes  []int64 // its shape
	total  int     // elements of that shape; 0: no memory is taken for them
	stored int     // elements that have been read
	given  int     // how often it was given
}

// layOut finds the shape of input i and takes memory for it. Its value is next, or, with
// around = 1, the value that its first row has.
func (r *ServingRequest) layOut(i, around int) bool {
	s, c, info := &r.s, &r.columns[i], &r.in[i]
	if codecOf(info.DataType).read == nil {
		return s.failf(s.i, "the model takes %s here, which is not supported in JSON", info.DataType)
	}
	s.space()
	c.sizes, c.stored, c.total = c.sizes[:0], 0, 0
	if around == 1 {
		c.sizes = append(c.sizes, int64(r.Rows))
	}
	c.sizes = s.sizes(c.sizes, len(info.Shape)+1)
	switch {
	case len(c.sizes) > len(info.Shape):
		return s.failf(s.i, "more arrays in one another than in the shape %v that the model takes", info.Shape)
	case len(c.sizes) < len(info.Shape):
		return s.failf(s.i, "the shape %v, the model takes %v", c.sizes, info.Shape)
	case slices.Contains(c.sizes, 0):
		return s.failf(s.i, "the shape %v, of which a size is 0", c.sizes)
	case around == 1 && info.Shape[0] >= 0 && info.Shape[0] != int64(r.Rows):
		return s.failf(s.i, "%d instances, the model takes %d", r.Rows, info.Shape[0])
	}
	for k, size := range info.Shape {
		if size >= 0 {
			c.sizes[k] = size
		}
	}
	n, err := inference.Elements(c.sizes)
	if err != nil {
		return s.fail(s.i, err.Error())
	}
	if n > s.most(info.DataType) { // there cannot be as many: see settled
		return true
	}
	c.total = int(n)
	r.Inputs[i].Name = info.Name
	if err := r.Inputs[i].Reset(info.DataType, c.sizes); err != nil {
		return s.fail(s.i, err.Error())
	}
	s.reserve(&r.Inputs[i], c.total)
	return true
}

// settled checks, after all has been read without an error, that the elements of every
// input are there: then each has a value, and the shapes that layOut took were right.
func (r *ServingRequest) settled() bool {
	for i := range r.columns {
		if c := &r.columns[i]; c.total == 0 || c.stored != c.total {
			return r.s.failf(-1, "input %q: %d elements, the shape %v has more or fewer", r.in[i].Name, c.stored, c.sizes)
		}
	}
	return true
}

// value reads a part of input i, whose shape is that of its sizes from level on.
func (r *ServingRequest) value(i, level int) bool {
	c, s := &r.columns[i], &r.s
	s.space()
	if level == len(c.sizes) {
		return r.scalar(i)
	}
	if level == len(c.sizes)-1 && r.in[i].DataType != inference.Bytes {
		return r.innermost(i, level)
	}
	at := s.i
	if !s.open('[', "'['") {
		return false
	}
	for k := 0; ; k++ {
		more, ok := s.more(']', k == 0)
		if !ok {
			return false
		}
		if !more {
			return r.counted(i, level, k, at)
		}
		if level < maxIndexes {
			s.path.push(part{index: k})
		}
		if !r.value(i, level+1) {
			return false
		}
		if level < maxIndexes {
			s.path.pop()
		}
	}
}

// room returns the part of input i's tensor where its next n elements go; t is nil where
// it has no such part: they are checked and counted.
func (r *ServingRequest) room(i, n int) (t *inference.Tensor, lo, hi int) {
	c := &r.columns[i]
	if c.stored+n > c.total {
		return nil, 0, 0
	}
	return &r.Inputs[i], c.stored, c.stored + n
}

// innermost reads an array of elements.
func (r *ServingRequest) innermost(i, level int) bool {
	c, s, at := &r.columns[i], &r.s, r.s.i
	t, lo, hi := r.room(i, int(c.sizes[level]))
	n, ok := codecOf(r.in[i].DataType).read(s, t, lo, hi, 1)
	c.stored += n
	return ok && r.counted(i, level, n, at)
}

// counted checks that an array has as many elements as the shape says.
func (r *ServingRequest) counted(i, level, n, at int) bool {
	c, s := &r.columns[i], &r.s
	switch {
	case int64(n) == c.sizes[level]:
		return true
	case r.in[i].Shape[level] >= 0:
		return s.failf(at, "%d elements, the model takes %d", n, c.sizes[level])
	}
	return s.failf(at, "%d elements, the first array beside it has %d", n, c.sizes[level])
}

// scalar reads one element of input i.
func (r *ServingRequest) scalar(i int) bool {
	s, from := &r.s, r.s.i
	t, lo, hi := r.room(i, 1)
	r.columns[i].stored++
	if r.in[i].DataType == inference.Bytes {
		return r.text(t)
	}
	// Elements are read as those of an array: this one is made an array of its own.
	text, body, depth := s.token(), s.b, s.path.n
	if len(text) == 0 {
		return s.unexpected("a value")
	}
	r.cell = append(append(append(r.cell[:0], '['), text...), ']')
	s.b, s.i = r.cell, 0
	_, ok := codecOf(r.in[i].DataType).read(s, t, lo, hi, 1)
	s.b, s.i = body, from+len(text)
	if !ok { // where it is in the body
		s.path.n = depth
		s.err.Field, s.err.loc = s.path.String(), s.path.loc()
		s.err.Offset += from - len("[")
	}
	return ok
}

// token returns the text of the number or word that is next, or the first character of
// what is neither.
func (s *scanner) token() []byte {
	for i, c := range s.b[s.i:] {
		switch c {
		case '"', '[', '{':
			if i == 0 {
				return s.b[s.i : s.i+1]
			}
		case ',', ']', '}', ' ', '\t', '\n', '\r':
			return s.b[s.i : s.i+i]
		}
	}
	return s.b[s.i:]
}

// sizes appends to dst the sizes of the value that is next, an array or anything else,
// until it has limit of them. It looks ahead, without reading, and follows the first
// element of each array; what makes it err is an error when it is read.
func (s *scanner) sizes(dst []int64, limit int) []int64 {
	base, depth, objects := len(dst), 0, 0
	open, known := 0, false // levels whose first array has not ended; all levels are known
	for i := s.i; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			i = s.closing(i)
		case c == '{':
			objects++
		case c == '}':
			objects--
		case objects > 0:
		case c == '[':
			if depth++; !known {
				dst, open = append(dst, s.first(i)), depth
				if len(dst) >= limit {
					known = true
				}
			}
		case c == ']':
			depth--
			known, open = true, min(open, depth)
		case c == ',' && depth <= open && depth > 0:
			dst[base+depth-1]++
		}
		if depth <= 0 && objects <= 0 {
			break
		}
	}
	return dst
}

// first returns 1 if the array that begins at offset i has an element, else 0.
func (s *scanner) first(i int) int64 {
	for _, c := range s.b[i+1:] {
		switch c {
		case ' ', '\t', '\n', '\r':
			continue
		case ']':
			return 0
		}
		return 1
	}
	return 0
}

// closing returns the offset of the quote that ends the string which begins at offset i.
func (s *scanner) closing(i int) int {
	for i++; i < len(s.b) && s.b[i] != '"'; i++ {
		if s.b[i] == '\\' {
			i++
		}
	}
	return i
}
