package pbtxt

import (
	"fmt"
	"math"
	"path"
	"strings"

	"preforkd/internal/ipc"
)

// maxElements is how large a tensor of a warm-up request may be: a worker has to hold it.
const maxElements = 1 << 28

// sample is one ModelWarmup.
type sample struct {
	at     place
	key    string
	name   string
	batch  int64
	inputs []ipc.WarmupInput
	unused bool // something of it cannot be had here: it has been said
}

// warmup reads one sample.
func (d *decoder) warmup(key string, v *value) {
	s := sample{at: v.at(), key: key}
	d.section(key, v, func(fields []*entry) {
		d.message(key, fields, map[string]rule{
			"name":       d.text(&s.name),
			"batch_size": d.number(0, maxBatch, func(n int64, _ place) { s.batch = n }),
			"count":      {why: noEffect + ": each request is run once"},
			"inputs": {repeated: true, read: func(key string, v *value) {
				d.section(key, v, func(fields []*entry) { d.warmupInput(key, v, fields, &s) })
			}},
		})
	})
	d.samples = append(d.samples, s)
}

// warmupInput reads one entry of the map from a name to an input.
func (d *decoder) warmupInput(key string, v *value, fields []*entry, s *sample) {
	in := ipc.WarmupInput{Shape: []int64{}}
	zero, random, given := false, false, false
	before := len(d.problems)
	d.message(key, fields, map[string]rule{
		"key": d.text(&in.Name),
		"value": {read: func(key string, v *value) {
			given = true
			d.section(key, v, func(fields []*entry) {
				d.message(key, fields, map[string]rule{
					"data_type":       d.dataType(&in.DataType),
					"dims":            d.dims(1, &in.Shape),
					"zero_data":       d.truth(&zero),
					"random_data":     d.truth(&random),
					"input_data_file": d.text(&in.File),
				})
			})
		}},
	})
	if len(d.problems) > before {
		return
	}
	sources := 0
	for _, set := range []bool{zero, random, in.File != ""} {
		if set {
			sources++
		}
	}
	switch {
	case in.Name == "" || !given:
		d.fail(v.at(), key, `has no key or no value; write { key: "INPUT" value { … } }`)
	case in.DataType == "":
		d.fail(v.at(), key, "%q has no data_type; write one, such as TYPE_FP32", in.Name)
	case sources != 1:
		d.fail(v.at(), key, "%q has not one source of data; write one of zero_data: true, random_data: true and input_data_file", in.Name)
	case in.File != "" && (in.File != path.Base(in.File) || strings.HasPrefix(in.File, ".")):
		d.fail(v.at(), key, "%q is no name of a file in the model's directory warmup; write one without a slash", in.File)
	case in.DataType == "BYTES":
		d.warn(v.at(), key, "%q is text, which is not made here: the request is left out; write it into warmup.json", in.Name)
		s.unused = true
	default:
		in.Random = random
		s.inputs = append(s.inputs, in)
	}
}

// finish makes requests of the samples, when all else is known: the batch's size comes
// first in a shape where the model has batches.
func (d *decoder) finish() {
	if len(d.problems) > 0 {
		return
	}
	if m := d.into.MaxBatchSize; d.into.Batching != nil && m < 2 {
		d.warn(d.batches, "dynamic_batching", "has no effect here: max_batch_size is %d, so that no requests are joined", m)
	}
	for _, s := range d.samples {
		if s.unused {
			continue
		}
		if len(s.inputs) == 0 {
			d.fail(s.at, s.key, "has no inputs; write inputs { key: \"INPUT\" value { … } }")
			continue
		}
		c := ipc.WarmupCase{From: d.where(s.at) + ": " + s.key}
		if s.name != "" {
			c.From += fmt.Sprintf(" %q", s.name)
		}
		for _, in := range s.inputs {
			if d.into.MaxBatchSize > 0 {
				in.Shape = append([]int64{max(s.batch, 1)}, in.Shape...)
			}
			if elements(in.Shape) > maxElements {
				d.fail(s.at, s.key, "%q has more than %d elements; write smaller dims", in.Name, maxElements)
			}
			c.Inputs = append(c.Inputs, in)
		}
		if m := d.into.MaxBatchSize; m > 0 && s.batch > m {
			d.fail(s.at, s.key, "batch_size: %d is more than max_batch_size, %d; write less", s.batch, m)
		}
		d.into.Warmup = append(d.into.Warmup, c)
	}
}

// elements is the product of the sizes, all at least 1.
func elements(shape []int64) int64 {
	n := int64(1)
	for _, size := range shape {
		if n > math.MaxInt64/size {
			return math.MaxInt64
		}
		n *= size
	}
	return n
}
