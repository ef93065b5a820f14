package codec

import (
	"fmt"
	"strconv"

	"preforkd/internal/inference"
)

// AppendResponse appends the answer to r, which a model of this name and version gave
// with out: JSON, and then the outputs that are sent in binary form. header is the length
// of the JSON where such data follow, else 0. An error is an *OutputError; then nothing of
// b is of use.
func (r *InferRequest) AppendResponse(b []byte, model, version string, out []inference.Tensor) (_ []byte, header int, err error) {
	from := len(b)
	b = append(b, `{"model_name":`...)
	b = AppendString(b, model)
	b = append(b, `,"model_version":`...)
	b = AppendString(b, version)
	if r.HasID {
		b = append(b, `,"id":`...)
		b = appendString(b, r.ID)
	}
	b = append(b, `,"outputs":[`...)
	for k, i := range r.Outputs {
		if k > 0 {
			b = append(b, ',')
		}
		if b, err = appendTensor(b, &out[i], r.forms[k]); err != nil {
			return b, 0, err
		}
	}
	b = append(b, `]}`...)
	end := len(b)
	for k, i := range r.Outputs {
		if r.forms[k] == inBinary {
			b = appendBinary(b, &out[i])
		}
	}
	if len(b) > end { // outputs without elements leave nothing behind
		header = end - from
	}
	return b, header, nil
}

func appendTensor(b []byte, t *inference.Tensor, f form) ([]byte, error) {
	b = append(b, `{"name":`...)
	b = AppendString(b, t.Name)
	b = append(b, `,"datatype":"`...)
	b = append(b, t.DataType.String()...)
	b = append(b, `","shape":[`...)
	n := int64(1)
	for i, d := range t.Shape {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, d, 10)
		n *= d
	}
	if f == inBinary {
		b = append(b, `],"parameters":{"binary_data_size":`...)
		b = strconv.AppendInt(b, int64(binarySize(t)), 10)
		return append(b, `}}`...), nil
	}
	b = append(b, `],"data":[`...)
	b, err := appendElements(b, t, 0, int(n))
	return append(b, `]}`...), err
}

// appendElements appends elements lo to hi of t, separated by commas.
func appendElements(b []byte, t *inference.Tensor, lo, hi int) ([]byte, error) {
	write := codecOf(t.DataType).write
	if write == nil {
		return b, &OutputError{t.Name, fmt.Sprintf("the datatype %s is not supported in JSON", t.DataType)}
	}
	b, bad := write(b, t, lo, hi)
	switch {
	case bad >= 0 && t.DataType == inference.Bytes:
		return b, &OutputError{t.Name, fmt.Sprintf("element %d is not UTF-8, which JSON cannot carry: ask for binary_data", bad)}
	case bad >= 0:
		return b, &OutputError{t.Name, fmt.Sprintf("element %d is not a finite number, which JSON cannot carry", bad)}
	}
	return b, nil
}

// Prediction is what a model returned for a PredictRequest.
type Prediction struct {
	Model, Version string
	Label          *inference.Tensor // one element a row; nil: the model has no such output
	Probabilities  *inference.Tensor // the same number of elements for each row; nil: none
}

// AppendResponse appends the answer to r: for one row "prediction" and
// "probabilities", for several "predictions" and "probabilities" with an element a row.
// A model without a label predicts the index of its largest probability, or its one
// number itself. An error is an *OutputError; then nothing of b is of use.
func (r *PredictRequest) AppendResponse(b []byte, p Prediction) ([]byte, error) {
	if err := p.check(r.Rows); err != nil {
		return b, err
	}
	classes := p.classes(r.Rows)
	if p.Label == nil && classes == 1 {
		p.Label, p.Probabilities, classes = p.Probabilities, nil, 0
	}
	b, err := p.appendLabels(b, r.Rows, classes)
	if err != nil {
		return b, err
	}
	if p.Probabilities != nil {
		b = append(b, `,"probabilities":`...)
		if b, err = p.appendProbabilities(b, r.Rows, classes); err != nil {
			return b, err
		}
	}
	b = append(b, `,"model":`...)
	b = AppendString(b, p.Model)
	b = append(b, `,"version":`...)
	b = AppendString(b, p.Version)
	return append(b, '}'), nil
}

// check returns an error unless the outputs have elements for each row.
func (p *Prediction) check(rows int) error {
	if t := p.Label; t != nil && count(t) != rows {
		return &OutputError{t.Name, fmt.Sprintf("%d elements for %d rows", count(t), rows)}
	}
	if t := p.Probabilities; t != nil && (count(t) < rows || count(t)%rows != 0) {
		return &OutputError{t.Name, fmt.Sprintf("%d elements for %d rows", count(t), rows)}
	}
	return nil
}

func (p *Prediction) classes(rows int) int {
	if p.Probabilities == nil {
		return 0
	}
	return count(p.Probabilities) / rows
}

// count returns the number of t's elements.
func count(t *inference.Tensor) int { return t.Len() }

func (p *Prediction) appendLabels(b []byte, rows, classes int) ([]byte, error) {
	if rows == 1 {
		b = append(b, `{"prediction":`...)
	} else {
		b = append(b, `{"predictions":[`...)
	}
	if p.Label != nil {
		var err error
		if b, err = appendElements(b, p.Label, 0, rows); err != nil {
			return b, err
		}
	} else {
		for k := range rows {
			if k > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(largest(p.Probabilities.Float32s()[k*classes:(k+1)*classes])), 10)
		}
	}
	if rows != 1 {
		b = append(b, ']')
	}
	return b, nil
}

// largest returns the index of the largest of row, the first of equals.
func largest(row []float32) int {
	best := 0
	for i, v := range row {
		if v > row[best] {
			best = i
		}
	}
	return best
}

func (p *Prediction) appendProbabilities(b []byte, rows, classes int) (_ []byte, err error) {
	if rows != 1 {
		b = append(b, '[')
	}
	for k := range rows {
		if k > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		if b, err = appendElements(b, p.Probabilities, k*classes, (k+1)*classes); err != nil {
			return b, err
		}
		b = append(b, ']')
	}
	if rows != 1 {
		b = append(b, ']')
	}
	return b, nil
}
