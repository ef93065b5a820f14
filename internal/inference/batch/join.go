package batch

import (
	"fmt"

	"preforkd/internal/inference"
)

// join makes in, which is reused, the inputs of all jobs one after the other: rows rows.
func join(in []inference.Tensor, jobs []*Job, rows int) ([]inference.Tensor, error) {
	first := jobs[0].In
	in = resize(in, len(first))
	for i := range first {
		t := &in[i]
		if first[i].DataType == inference.Invalid {
			t.DataType = inference.Invalid
			continue
		}
		t.Name = first[i].Name
		t.Shape = append(append(t.Shape[:0], int64(rows)), first[i].Shape[1:]...)
		if err := t.Reset(first[i].DataType, t.Shape); err != nil {
			return in, fmt.Errorf("join %d requests: input %q: %w", len(jobs), t.Name, err)
		}
		at := t.Raw()
		for _, j := range jobs {
			if t.DataType == inference.Bytes {
				appendTexts(t, &j.In[i], 0, j.In[i].Len())
				continue
			}
			at = at[copy(at, j.In[i].Raw()):]
		}
	}
	return in, nil
}

// rowwise returns an error unless each of out, of a run of rows rows, has a row for each.
func rowwise(out []inference.Tensor, rows int) error {
	for i := range out {
		if s := out[i].Shape; len(s) == 0 || s[0] != int64(rows) {
			return fmt.Errorf("output %q has the shape %v for %d rows", out[i].Name, s, rows)
		}
	}
	return nil
}

// split makes to the rows of all, a run's outputs, from row from on.
func split(to, all []inference.Tensor, from, rows, of int) error {
	for i := range all {
		s, t := &all[i], &to[i]
		t.Name = s.Name
		t.Shape = append(append(t.Shape[:0], int64(rows)), s.Shape[1:]...)
		if err := t.Reset(s.DataType, t.Shape); err != nil {
			return fmt.Errorf("output %q: %w", s.Name, err)
		}
		if s.DataType == inference.Bytes {
			each := s.Len() / of
			appendTexts(t, s, from*each, (from+rows)*each)
			continue
		}
		each := len(s.Raw()) / of
		copy(t.Raw(), s.Raw()[from*each:(from+rows)*each])
	}
	return nil
}

func appendTexts(t, s *inference.Tensor, lo, hi int) {
	for k := lo; k < hi; k++ {
		t.AppendText(s.Text(k))
	}
}

// resize returns a slice of n elements that keeps those that list ever had.
func resize(list []inference.Tensor, n int) []inference.Tensor {
	list = list[:cap(list)]
	if n > len(list) {
		list = append(list, make([]inference.Tensor, n-len(list))...)
	}
	return list[:n]
}
