package worker

import (
	"context"
	"fmt"
	"math"

	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
	"preforkd/internal/worker/codec"
)

// selfTest runs every model: the requests of its warmup.json, else zeros. The error
// says which model gave no answer, or not the expected one.
func (w *worker) selfTest(ctx context.Context) error {
	for _, file := range w.manifest.Models {
		m, err := w.models.Find(file.Name, file.Version)
		if err != nil {
			return fmt.Errorf("self-test of model %s: %w", file.Name, err)
		}
		cases := file.Warmup
		if len(cases) == 0 {
			cases = []ipc.WarmupCase{{}}
		}
		for i, c := range cases {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("self-test of model %s: %w", file.Name, err)
			}
			if err := w.answer(m, &c); err != nil {
				return &ipc.Failure{
					Exit: ipc.ExitBoot, What: fmt.Sprintf("self-test of model %s, case %d: %v", file.Name, i, err), Err: err,
					Try: "correct the model or its warmup.json",
				}
			}
		}
	}
	return nil
}

// answer runs one case and compares.
func (w *worker) answer(m *repository.Model, c *ipc.WarmupCase) error {
	var in []inference.Tensor
	if len(c.Request) > 0 {
		var r codec.InferRequest
		if err := r.Decode(c.Request, m.Inputs(), m.Outputs()); err != nil {
			return fmt.Errorf("request: %w", err)
		}
		in = r.Inputs
	} else if err := zeros(&in, m.Inputs()); err != nil {
		return err
	}
	out := make([]inference.Tensor, len(m.Outputs()))
	permit, err := w.permits.Acquire(w.cfg.Timeouts.Request)
	if err != nil {
		return err
	}
	err = m.Run(in, out)
	w.permits.Release(permit)
	if err != nil {
		return err
	}
	for i := range out {
		if err := compare(&out[i], c); err != nil {
			return fmt.Errorf("output %q: %w", m.Outputs()[i].Name, err)
		}
	}
	for name := range c.Outputs {
		if !has(m.Outputs(), name) {
			return fmt.Errorf("the model has no output %q", name)
		}
	}
	return nil
}

func has(list []inference.TensorInfo, name string) bool {
	for i := range list {
		if list[i].Name == name {
			return true
		}
	}
	return false
}

// zeros makes inputs of the smallest size that the model takes.
func zeros(in *[]inference.Tensor, infos []inference.TensorInfo) error {
	*in = make([]inference.Tensor, len(infos))
	for i, info := range infos {
		shape := make([]int64, len(info.Shape))
		for d, n := range info.Shape {
			shape[d] = max(n, 1)
			if n == 0 {
				shape[d] = 0
			}
		}
		t := &(*in)[i]
		if err := t.Reset(info.DataType, shape); err != nil {
			return fmt.Errorf("input %q: %w", info.Name, err)
		}
		t.Name = info.Name
		clear(t.Raw())
	}
	return nil
}

// compare demands finite numbers, and the expected ones where there are any.
func compare(t *inference.Tensor, c *ipc.WarmupCase) error {
	var got []float64
	switch t.DataType {
	case inference.FP32:
		for _, v := range t.Float32s() {
			got = append(got, float64(v))
		}
	case inference.Int64:
		for _, v := range t.Int64s() {
			got = append(got, float64(v))
		}
	default:
		return nil // whatever bytes they are, they are no number out of range
	}
	for i, v := range got {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("value %d is %v", i, v)
		}
	}
	want, ok := c.Outputs[t.Name]
	if !ok {
		return nil
	}
	if len(want) != len(got) {
		return fmt.Errorf("%d values, expected are %d", len(got), len(want))
	}
	for i, v := range got {
		if math.Abs(v-want[i]) > c.Tolerance {
			return fmt.Errorf("value %d is %v, expected is %v", i, v, want[i])
		}
	}
	return nil
}
