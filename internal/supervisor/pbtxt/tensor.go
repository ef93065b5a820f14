package pbtxt

import (
	"math"
	"slices"

	"preforkd/internal/ipc"
)

// dataTypes are the protocol's names of the enum DataType.
var dataTypes = map[string]string{
	"TYPE_BOOL": "BOOL", "TYPE_UINT8": "UINT8", "TYPE_UINT16": "UINT16", "TYPE_UINT32": "UINT32", "TYPE_UINT64": "UINT64",
	"TYPE_INT8": "INT8", "TYPE_INT16": "INT16", "TYPE_INT32": "INT32", "TYPE_INT64": "INT64",
	"TYPE_FP16": "FP16", "TYPE_FP32": "FP32", "TYPE_FP64": "FP64", "TYPE_STRING": "BYTES", "TYPE_BF16": "BF16",
}

// dataType reads an element of that enum.
func (r *reader) dataType(into *string) rule {
	return rule{read: func(key string, v *value) {
		name, ok := dataTypes[v.Word]
		if !ok {
			r.fail(v.at(), key, "is %s; write a type, such as TYPE_FP32", kind(v))
			return
		}
		*into = name
	}}
}

// dims reads sizes; -1 is any, and 0 is none.
func (r *reader) dims(low int64, into *[]int64) rule {
	return rule{repeated: true, read: func(key string, v *value) {
		r.number(low, math.MaxInt32, func(n int64, p place) {
			if n == 0 {
				r.fail(p, key, "a size is 0; write one from 1 on, or -1 for any")
				return
			}
			*into = append(*into, n)
		}).read(key, v)
	}}
}

// tensors reads input or output.
func (d *decoder) tensors(into *[]ipc.TensorSettings) rule {
	return rule{repeated: true, read: func(key string, v *value) {
		d.section(key, v, func(fields []*entry) {
			t := ipc.TensorSettings{At: d.where(v.at())}
			before := len(d.problems)
			d.message(key, fields, d.tensor(&t))
			if len(d.problems) > before {
				return
			}
			switch {
			case t.Name == "":
				d.fail(v.at(), key, `has no name; write name: "NAME"`)
			case t.DataType == "":
				d.fail(v.at(), key, "%q has no data_type; write one, such as TYPE_FP32", t.Name)
			case len(t.Dims) == 0:
				d.fail(v.at(), key, "%q has no dims; write its sizes without the batch's, such as dims: [ 3, 224, 224 ]", t.Name)
			case slices.ContainsFunc(*into, func(o ipc.TensorSettings) bool { return o.Name == t.Name }):
				d.fail(v.at(), key, "%q is there twice; remove one", t.Name)
			default:
				*into = append(*into, t)
			}
		})
	}}
}

func (d *decoder) tensor(t *ipc.TensorSettings) map[string]rule {
	return map[string]rule{
		"name":      d.text(&t.Name),
		"data_type": d.dataType(&t.DataType),
		"dims":      d.dims(-1, &t.Dims),
		"reshape": {read: func(key string, v *value) {
			t.Reshaped = true
			d.section(key, v, func(fields []*entry) {
				d.message(key, fields, map[string]rule{"shape": d.dims(-1, &t.Reshape)})
			})
			d.warn(v.at(), key, "is compared with the graph, but requests are not reshaped: clients send the graph's shape")
		}},
		"format":                  {},
		"optional":                {why: noEffect + ": the graph's inputs are all needed"},
		"is_shape_tensor":         {why: noEffect},
		"allow_ragged_batch":      {why: noEffect + ": requests whose shapes differ are not joined"},
		"is_non_linear_format_io": {why: noEffect},
		"label_filename":          {why: noEffect + ": there is no classification extension"},
	}
}
