package codec

import (
	"fmt"

	"preforkd/internal/inference"
)

// PredictRequest is the body of POST /predict: {"features":[…]} with one row of
// numbers, or with an array of rows. The zero value is ready to use.
type PredictRequest struct {
	// Inputs holds the model's only input.
	Inputs [1]inference.Tensor
	// Rows is the number of rows in it.
	Rows int

	s     scanner
	info  *inference.TensorInfo // while Decode runs
	row   inference.Row
	shape []int64
}

// Decode reads body for the input info of a model, whose Row is row. The error is an
// *Error. Nothing of body is kept.
func (r *PredictRequest) Decode(body []byte, info *inference.TensorInfo, row inference.Row) error {
	r.info, r.row, r.Rows = info, row, 0
	ok := r.s.start(body) && r.request() && r.s.end()
	err := r.s.err
	r.s.b, r.s.rawKey, r.s.path, r.s.err = nil, nil, path{}, nil
	r.info = nil
	if !ok {
		return err
	}
	return nil
}

// Trim frees memory beyond limit bytes for each tensor and text, and returns how much.
func (r *PredictRequest) Trim(limit int) (freed int) {
	return r.Inputs[0].Trim(limit) + trim(&r.s.scratch, limit)
}

func (r *PredictRequest) request() bool {
	s := &r.s
	seen, ok := s.object("'{'", r.member)
	if !ok {
		return false
	}
	if seen == 0 {
		s.path.push(part{name: "features"})
		s.fail(-1, "missing")
		return s.breaks(ruleMissing)
	}
	return true
}

func (r *PredictRequest) member(key []byte) bool {
	s := &r.s
	if string(key) != "features" {
		return s.skipUnknown(1)
	}
	if !s.once(1, "features") || !r.features() {
		return false
	}
	s.path.pop()
	return true
}

// features reads the rows. How many there are has to be known before memory is laid
// out for them: see survey.
func (r *PredictRequest) features() bool {
	s := &r.s
	if s.peek() != '[' {
		s.unexpected("an array of numbers")
		return s.breaks(ruleList)
	}
	at := s.i
	nested, rows, width := s.nested(), 1, r.row.Width
	if nested || width < 0 {
		var first int
		if rows, first = s.survey(); width < 0 {
			width = first
		}
	}
	if r.row.Count >= 0 && rows != r.row.Count {
		s.failf(at, "%d rows, the model takes %d", rows, r.row.Count)
		return s.miscounts(rows, r.row.Count)
	}
	t := &r.Inputs[0]
	if n := (len(s.b)-s.i)/2 + 1; width > n || rows > n/max(width, 1) {
		t = nil // there cannot be as many: nothing is allocated for them
	} else if err := r.layOut(rows, width); err != nil {
		return s.fail(at, err.Error())
	}
	r.Rows = rows
	if !nested {
		return r.readRow(t, 0, width)
	}
	s.i++
	for k := 0; ; k++ {
		more, ok := s.more(']', k == 0)
		if !more || !ok {
			return ok
		}
		s.path.push(part{index: k})
		if s.peek() != '[' {
			s.unexpected("a row")
			return s.breaks(ruleList)
		}
		if k >= rows {
			t = nil
		}
		if !r.readRow(t, k, width) {
			return false
		}
		s.path.pop()
	}
}

func (r *PredictRequest) layOut(rows, width int) error {
	r.shape = r.info.AppendShape(r.shape[:0], rows, width)
	r.Inputs[0].Name = r.info.Name
	return r.Inputs[0].Reset(r.info.DataType, r.shape)
}

// readRow reads row k.
func (r *PredictRequest) readRow(t *inference.Tensor, k, width int) bool {
	s := &r.s
	at, lo, hi := s.i, k*width, (k+1)*width
	if t == nil {
		lo, hi = 0, 0
	}
	n, ok := codecOf(r.info.DataType).read(s, t, lo, hi, 1)
	if !ok {
		if r.info.DataType == inference.Int64 {
			return s.breaks(ruleInteger)
		}
		return s.breaks(ruleNumber)
	}
	if n != width || n == 0 {
		s.failf(at, "%d numbers, the model takes %s", n, r.takes(width))
		return s.miscounts(n, max(width, 1))
	}
	return true
}

func (r *PredictRequest) takes(width int) string {
	switch {
	case width == 0:
		return "at least one"
	case r.row.Width < 0:
		return fmt.Sprintf("rows of one length, the first has %d", width)
	}
	return fmt.Sprint(width)
}

// nested tells whether the array that is next begins with an array.
func (s *scanner) nested() bool {
	at := s.i
	s.i++
	c := s.peek()
	s.i = at
	return c == '['
}

// survey looks ahead, without reading, at the array that is next: how many rows it has
// and how many numbers are in the first. It stops at anything that cannot be in an
// array of numbers; that is an error when it is read.
func (s *scanner) survey() (rows, width int) {
	depth, commas, numbers := 0, 0, false
scan:
	for _, c := range s.b[s.i:] {
		switch c {
		case '[':
			if depth++; depth == 2 {
				rows++
			}
		case ']':
			if depth--; depth == 0 {
				break scan
			}
		case ',':
			if depth == 1 && rows == 0 || depth == 2 && rows == 1 {
				commas++
			}
		case ' ', '\t', '\n', '\r', '+', '-', '.', 'e', 'E':
		default:
			if c-'0' > 9 {
				break scan
			}
			numbers = numbers || rows <= 1
		}
	}
	if numbers {
		width = commas + 1
	}
	return max(rows, 1), width
}
