package api

import (
	"preforkd/internal/inference"
	"preforkd/internal/inference/repository"
)

// sample returns a value for each of m's inputs: the model's sample, if it has one, else
// zeros. ok is false where that is longer than anybody would read.
func sample(m *repository.Model) (values [][]any, shapes [][]int64, ok bool) {
	for i, info := range m.Inputs() {
		shape, row := make([]int64, len(info.Shape)), []float32(nil)
		for k, size := range info.Shape {
			if shape[k] = size; size < 0 {
				shape[k] = 1
			}
		}
		if m.Predict.Err == nil && m.Predict.Input == i && m.Predict.Row.Count <= 1 {
			if row = m.Settings.Predict.Sample; len(row) > 0 {
				shape = info.AppendShape(nil, 1, len(row))
			}
		}
		n, err := inference.Elements(shape)
		if err != nil || n > largestSample {
			return nil, nil, false
		}
		list := make([]any, n)
		for k := range list {
			v := float32(0)
			if k < len(row) {
				v = row[k]
			}
			list[k] = element(info.DataType, v)
		}
		values, shapes = append(values, list), append(shapes, shape)
	}
	return values, shapes, true
}

// element is v as JSON has it for the data type.
func element(dt inference.DataType, v float32) any {
	switch dt {
	case inference.Bool:
		return v != 0
	case inference.Bytes:
		return ""
	case inference.FP16, inference.BF16, inference.FP32, inference.FP64:
		return v
	}
	return int64(v)
}

// nest makes arrays in one another of a tensor's elements.
func nest(list []any, shape []int64) any {
	if len(shape) == 0 {
		return list[0]
	}
	if len(shape) == 1 {
		return list
	}
	nested := make([]any, shape[0])
	for k, each := 0, len(list)/max(int(shape[0]), 1); k < len(nested); k++ {
		nested[k] = nest(list[k*each:(k+1)*each], shape[1:])
	}
	return nested
}

func predictExample(m *repository.Model) object {
	values, _, ok := sample(m)
	if !ok {
		return nil
	}
	i := m.Predict.Input
	if rows := m.Predict.Row.Count; rows > 1 { // all of them are wanted
		return object{"features": nest(values[i], []int64{int64(rows), int64(len(values[i]) / rows)})}
	}
	return object{"features": values[i]}
}

func inferExample(m *repository.Model) object {
	values, shapes, ok := sample(m)
	if !ok {
		return nil
	}
	inputs := make([]object, len(values))
	for i, info := range m.Inputs() {
		inputs[i] = object{"name": info.Name, "shape": shapes[i], "datatype": info.DataType.String(), "data": values[i]}
	}
	return object{"inputs": inputs}
}

// servingExample has the columns of m: every model has some, not every model has rows.
func servingExample(m *repository.Model) object {
	values, shapes, ok := sample(m)
	if !ok {
		return nil
	}
	if len(values) == 1 && len(shapes[0]) > 0 && rowwise(m) {
		return object{"instances": nest(values[0], shapes[0])}
	}
	columns := make(object)
	for i, info := range m.Inputs() {
		columns[info.Name] = nest(values[i], shapes[i])
	}
	return object{"inputs": columns}
}

// rowwise tells whether every tensor of m may have any number of rows.
func rowwise(m *repository.Model) bool {
	for _, tensors := range [][]inference.TensorInfo{m.Inputs(), m.Outputs()} {
		for _, info := range tensors {
			if len(info.Shape) == 0 || info.Shape[0] >= 0 {
				return false
			}
		}
	}
	return true
}
