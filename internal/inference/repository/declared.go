package repository

import (
	"errors"
	"fmt"

	"preforkd/internal/inference"
	"preforkd/internal/ipc"
)

// declared compares what the settings say of inputs, outputs and batches with the graph.
// The error has every difference, each with the place where it is written.
func declared(m inference.Model, s *ipc.ModelSettings) error {
	errs := []error{
		declaredTensors("input", s.Inputs, m.Inputs(), s.MaxBatchSize > 0),
		declaredTensors("output", s.Outputs, m.Outputs(), s.MaxBatchSize > 0),
	}
	if s.MaxBatchSize > 0 {
		for _, in := range m.Inputs() {
			if len(in.Shape) == 0 || in.Shape[0] != -1 {
				errs = append(errs, fmt.Errorf("%s: max_batch_size: %d, and input %q of the graph has the shape %v, whose first size is not any; write max_batch_size: 0",
					s.File, s.MaxBatchSize, in.Name, in.Shape))
			}
		}
	}
	return errors.Join(errs...)
}

// declaredTensors does that for inputs or outputs. With batch the graph's first size is
// the batch's, which the settings leave out.
func declaredTensors(kind string, list []ipc.TensorSettings, graph []inference.TensorInfo, batch bool) error {
	var errs []error
	for i := range list {
		want := &list[i]
		at := index(graph, func(t *inference.TensorInfo) bool { return t.Name == want.Name })
		if at < 0 {
			errs = append(errs, fmt.Errorf("%s: %s: the graph has no %s %q, only %s", want.At, kind, kind, want.Name, names(graph)))
			continue
		}
		have := &graph[at]
		if want.DataType != have.DataType.String() {
			errs = append(errs, fmt.Errorf("%s: %s %q: data_type is %s, the graph's is %s", want.At, kind, want.Name, want.DataType, have.DataType))
		}
		sizes := have.Shape
		if batch && len(sizes) > 0 {
			sizes = sizes[1:]
		}
		if !agree(want.Graph(), sizes) {
			what := "dims are"
			if want.Reshaped {
				what = "reshape is"
			}
			errs = append(errs, fmt.Errorf("%s: %s %q: %s %v, the graph's %v%s", want.At, kind, want.Name, what, want.Graph(), sizes, hint(batch, want, have)))
		}
	}
	return errors.Join(errs...)
}

// hint says what often is the cause of other dims.
func hint(batch bool, want *ipc.TensorSettings, have *inference.TensorInfo) string {
	switch {
	case batch && agree(want.Graph(), have.Shape):
		return " without the batch's; leave out the first one, or write max_batch_size: 0"
	case !batch && len(have.Shape) > 0 && agree(want.Graph(), have.Shape[1:]):
		return "; with the first one, or set max_batch_size"
	}
	return ""
}

// agree tells whether a graph that takes sizes takes what dims announce.
func agree(dims, sizes []int64) bool {
	if len(dims) != len(sizes) {
		return false
	}
	for i, n := range sizes {
		if n != -1 && n != dims[i] {
			return false
		}
	}
	return true
}
