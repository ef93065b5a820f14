package worker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"

	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
	"preforkd/internal/worker/codec"
)

// selfTest runs every model: the requests of its warmup.json, else zeros. The error
// says which model gave no answer, or not the expected one.
func (w *worker) selfTest(ctx context.Context) error {
	reader := w.models.Enter()
	defer w.models.Leave(reader)
	for _, file := range w.set.Load().Models {
		m, err := w.models.Find(file.Name, file.Version)
		if err != nil {
			return fmt.Errorf("self-test of model %s: %w", file.Name, err)
		}
		if err := testModel(ctx, &file, m, w.runInTurn); err != nil {
			return err
		}
	}
	return nil
}

// run runs a model once.
type run func(m *repository.Model, in, out []inference.Tensor) error

// runInTurn runs m under a permit, as requests do.
func (w *worker) runInTurn(m *repository.Model, in, out []inference.Tensor) error {
	return w.api.Run(m, in, out, w.cfg.Timeouts.Request)
}

// testModel runs m for each request that file has.
func testModel(ctx context.Context, file *ipc.ModelFile, m *repository.Model, do run) error {
	cases := file.Warmup
	if len(cases) == 0 {
		cases = []ipc.WarmupCase{{}}
	}
	for i, c := range cases {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("self-test of model %s: %w", file.Name, err)
		}
		if err := answer(m, &c, do); err != nil {
			return testFailure(file, i, err)
		}
	}
	return nil
}

// testFailure says what the request with this index ended with.
func testFailure(file *ipc.ModelFile, index int, err error) error {
	f := &ipc.Failure{Exit: ipc.ExitBoot, Err: err}
	if len(file.Warmup) == 0 {
		f.What = fmt.Sprintf("self-test of model %s, version %s, with zeros: %v", file.Name, file.Version, err)
		f.Try = "correct the model, or write a warmup.json with a request that it answers"
		return f
	}
	from := file.Warmup[index].From
	if from == "" { // a supervisor of an earlier version made the manifest
		from = fmt.Sprintf("%s, request %d", filepath.Join(filepath.Dir(filepath.Dir(file.Source)), "warmup.json"), index)
	}
	f.What = fmt.Sprintf("self-test of model %s, version %s: %s: %v", file.Name, file.Version, from, err)
	f.Try = "correct the model or this file"
	return f
}

// answer runs one case and compares.
func answer(m *repository.Model, c *ipc.WarmupCase, do run) error {
	var in []inference.Tensor
	if len(c.Request) > 0 {
		var r codec.InferRequest
		if err := r.Decode(c.Request, m.Inputs(), m.Outputs()); err != nil {
			return fmt.Errorf("its body: %w", err)
		}
		in = r.Inputs
	} else if len(c.Inputs) > 0 {
		if err := described(&in, m.Inputs(), c.Inputs); err != nil {
			return err
		}
	} else if err := zeros(&in, m.Inputs()); err != nil {
		return err
	}
	out := make([]inference.Tensor, len(m.Outputs()))
	if err := do(m, in, out); err != nil {
		return err
	}
	for i := range out {
		if err := compare(&out[i], c); err != nil {
			return fmt.Errorf("output %q: %w", m.Outputs()[i].Name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Outputs)) {
		if !has(m.Outputs(), name) {
			return fmt.Errorf("output %q: the model has none of this name", name)
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

// zeros makes inputs of the smallest size that the model takes; strings are empty.
func zeros(in *[]inference.Tensor, infos []inference.TensorInfo) error {
	*in = make([]inference.Tensor, len(infos))
	for i, info := range infos {
		if info.Optional {
			continue
		}
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
		if n, _ := inference.Elements(shape); info.DataType == inference.Bytes { // Reset has looked at it
			for range n {
				t.AppendText(nil)
			}
		}
	}
	return nil
}

// compare demands finite numbers, and the expected ones where there are any.
func compare(t *inference.Tensor, c *ipc.WarmupCase) error {
	want, expected := c.Outputs[t.Name]
	if t.DataType == inference.Bytes {
		if expected {
			return errors.New("it has strings, which are not compared: remove it from outputs")
		}
		return nil
	}
	n, err := inference.Elements(t.Shape)
	if err != nil {
		return err
	}
	for i := range int(n) {
		v := number(t.DataType, t.Raw(), i)
		wrong := math.IsNaN(v) || math.IsInf(v, 0)
		if expected && i < len(want) && (wrong || math.Abs(v-want[i]) > c.Tolerance) {
			return fmt.Errorf("value %d is %v, expected is %v, tolerance %v", i, v, want[i], c.Tolerance)
		}
		if wrong {
			return fmt.Errorf("value %d is %v, which is not finite", i, v)
		}
	}
	if expected && len(want) != int(n) {
		return fmt.Errorf("it has %d values, of shape %v, expected are %d", n, t.Shape, len(want))
	}
	return nil
}

// number returns element i of raw as a number; of integers beyond 2^53 the nearest.
func number(dt inference.DataType, raw []byte, i int) float64 {
	raw = raw[i*dt.Size():]
	little := binary.LittleEndian
	switch dt {
	case inference.Bool, inference.Uint8:
		return float64(raw[0])
	case inference.Uint16:
		return float64(little.Uint16(raw))
	case inference.Uint32:
		return float64(little.Uint32(raw))
	case inference.Uint64:
		return float64(little.Uint64(raw))
	case inference.Int8:
		return float64(int8(raw[0]))
	case inference.Int16:
		return float64(int16(little.Uint16(raw)))
	case inference.Int32:
		return float64(int32(little.Uint32(raw)))
	case inference.Int64:
		return float64(int64(little.Uint64(raw)))
	case inference.FP16:
		return half(little.Uint16(raw))
	case inference.BF16: // the upper half of an FP32
		return float64(math.Float32frombits(uint32(little.Uint16(raw)) << 16))
	case inference.FP32:
		return float64(math.Float32frombits(little.Uint32(raw)))
	case inference.FP64:
		return math.Float64frombits(little.Uint64(raw))
	}
	return math.NaN() // no tensor of an engine has another type
}

// half is an FP16: one bit of sign, five of exponent, ten of fraction (IEEE 754, binary16).
func half(bits uint16) float64 {
	exponent, fraction := int(bits>>10&0x1f), float64(bits&0x3ff)
	v := 0.0
	switch exponent {
	case 0:
		v = math.Ldexp(fraction, -24)
	case 0x1f:
		v = math.Inf(1)
		if fraction != 0 {
			return math.NaN()
		}
	default:
		v = math.Ldexp(1024+fraction, exponent-25)
	}
	if bits>>15 == 1 {
		v = -v
	}
	return v
}
