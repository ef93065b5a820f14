package pbtxt

import (
	"errors"
	"fmt"
	"math"
	"path"
	"strings"
	"time"

	"preforkd/internal/ipc"
)

// The largest values that are read.
const (
	maxBatch    = 1_000_000_000
	maxVersions = 1_000_000
	maxDelay    = int64(time.Hour / time.Microsecond)
)

// Decode reads the config.pbtxt in data into s, which names file in its messages. name is
// the model's. The error has all that is wrong, a line each.
func Decode(file, name string, data []byte, s *ipc.ModelSettings) (warnings []string, err error) {
	r := &reader{file: file}
	fields, err := parse(data)
	if e := (*syntaxError)(nil); errors.As(err, &e) {
		r.fail(e.place, "", "%s", e.text)
		return nil, r.err()
	}
	s.File = file
	d := &decoder{reader: r, name: name, into: s}
	r.message("", fields, d.model())
	d.finish()
	return r.warnings, r.err()
}

// decoder fills the settings of one model.
type decoder struct {
	*reader
	name string
	into *ipc.ModelSettings

	samples []sample // of model_warmup
	batches place    // of dynamic_batching
}

// model are the fields of ModelConfig.
func (d *decoder) model() map[string]rule {
	s := d.into
	rules := map[string]rule{
		"name":                   checked(d.text(new(string)), d.checkName),
		"platform":               d.engine(&s.Platform),
		"backend":                d.engine(&s.Backend),
		"max_batch_size":         d.number(0, maxBatch, func(n int64, _ place) { s.MaxBatchSize = n }),
		"version_policy":         {read: d.versionPolicy},
		"default_model_filename": checked(d.text(&s.Filename), d.checkFilename),
		"input":                  d.tensors(&s.Inputs),
		"output":                 d.tensors(&s.Outputs),
		"instance_group":         {repeated: true, read: d.instances},
		"dynamic_batching":       {read: d.batching},
		"model_warmup":           {repeated: true, read: d.warmup},
		"parameters":             {repeated: true, read: d.parameter},
	}
	for name, why := range ignored {
		rules[name] = rule{repeated: true, why: why}
	}
	return rules
}

const noEffect = "has no effect here"

// ignored are the other fields of ModelConfig, and why they have no effect.
var ignored = map[string]string{
	"runtime":                  noEffect + ": there is one runtime",
	"optimization":             noEffect + ": the engine's own settings hold",
	"batch_input":              noEffect + ": inputs are those of the graph",
	"batch_output":             noEffect + ": outputs are those of the graph",
	"sequence_batching":        noEffect + ": requests of a sequence are not kept together, each may meet another worker",
	"ensemble_scheduling":      noEffect + ": a model is one graph",
	"cc_model_filenames":       noEffect + ": no GPU is used",
	"metric_tags":              noEffect + ": metrics carry name and version",
	"model_metrics":            noEffect + ": metrics have their own histograms",
	"model_operations":         noEffect + ": libraries of operators are not loaded",
	"model_transaction_policy": noEffect + ": a request has one response",
	"model_repository_agents":  noEffect + ": the cache has copies by digest",
	"response_cache":           noEffect + ": responses are not cached",
}

// checked is rule, followed by a check of the place and the scalar that was read.
func checked(one rule, check func(key string, v *value)) rule {
	read := one.read
	one.read = func(key string, v *value) { read(key, v); check(key, v) }
	return one
}

func (d *decoder) checkName(key string, v *value) {
	var name string
	probe := &reader{file: d.file}
	probe.text(&name).read(key, v)
	if len(probe.problems) == 0 && name != "" && name != d.name {
		d.fail(v.at(), key, "%q is not what the directory is called, %q; write that, or remove the line", name, d.name)
	}
}

func (d *decoder) checkFilename(key string, v *value) {
	name := d.into.Filename
	if name == "" {
		return
	}
	if name != path.Base(name) || strings.HasPrefix(name, ".") || name == "/" || strings.Contains(name, "\n") {
		d.fail(v.at(), key, "%q is no name of a file in a version's directory; write one without a slash", name)
		d.into.Filename = ""
	}
}

// engine reads platform or backend: we have one.
func (d *decoder) engine(into *string) rule {
	return checked(d.text(into), func(key string, v *value) {
		switch *into {
		case "", "onnxruntime", "onnxruntime_onnx":
		default:
			d.fail(v.at(), key, "%q is not served here, only onnxruntime_onnx is; convert the model to ONNX and write that", *into)
		}
	})
}

func (d *decoder) versionPolicy(key string, v *value) {
	p := &d.into.Versions
	p.At = d.where(v.at())
	chosen := 0
	choose := func(read func(key string, fields []*entry)) rule {
		return rule{read: func(key string, v *value) {
			if chosen++; chosen > 1 {
				d.fail(v.at(), key, "is a second policy; write one of latest, all and specific")
				return
			}
			d.section(key, v, func(fields []*entry) { read(key, fields) })
		}}
	}
	d.section(key, v, func(fields []*entry) {
		d.message(key, fields, map[string]rule{
			"latest": choose(func(key string, fields []*entry) {
				p.Latest = 1
				d.message(key, fields, map[string]rule{
					"num_versions": d.number(1, maxVersions, func(n int64, _ place) { p.Latest = int(n) }),
				})
			}),
			"all": choose(func(key string, fields []*entry) {
				p.All = true
				d.message(key, fields, map[string]rule{})
			}),
			"specific": choose(func(key string, fields []*entry) {
				one := d.number(1, math.MaxInt64, func(n int64, at place) {
					p.Specific = append(p.Specific, fmt.Sprint(n))
					p.At = d.where(at)
				})
				one.repeated = true
				before := len(d.problems)
				d.message(key, fields, map[string]rule{"versions": one})
				if len(p.Specific) == 0 && len(d.problems) == before {
					d.fail(v.at(), key, "names no versions; write specific { versions: [1, 2] }")
				}
			}),
		})
	})
}

// instances warns of what an operator may expect of an instance group.
func (d *decoder) instances(key string, v *value) {
	count, kind := int64(1), ""
	gpus := []int64(nil)
	d.section(key, v, func(fields []*entry) {
		d.message(key, fields, map[string]rule{
			"name":  d.text(new(string)),
			"count": d.number(0, maxVersions, func(n int64, _ place) { count = n }),
			"kind":  {read: func(_ string, v *value) { kind = v.Word }},
			"gpus":  d.numbers(0, maxVersions, &gpus),
		})
	})
	if count > 1 {
		d.warn(v.at(), key, "count: %d %s: each worker has one instance, set workers to have more", count, noEffect)
	}
	if len(gpus) > 0 || kind == "KIND_GPU" {
		d.warn(v.at(), key, "GPUs are not used: the model runs on the CPU")
	}
}

func (d *decoder) batching(key string, v *value) {
	b := &ipc.BatchSettings{}
	d.into.Batching = b
	d.section(key, v, func(fields []*entry) {
		d.message(key, fields, map[string]rule{
			"max_queue_delay_microseconds": d.number(0, maxDelay, func(n int64, _ place) { d.into.MaxQueueDelay = time.Duration(n) * time.Microsecond }),
			"preferred_batch_size":         d.numbers(1, maxBatch, &b.Preferred),
			"preserve_ordering":            d.truth(&b.PreserveOrder),
			"priority_levels":              {why: noEffect},
			"default_priority_level":       {why: noEffect},
			"default_queue_policy":         {why: noEffect + ": timeouts.request bounds the wait"},
			"priority_queue_policy":        {repeated: true, why: noEffect},
		})
	})
	d.batches = v.at()
}

// parameter reads one entry of a map from text to a message with a text.
func (d *decoder) parameter(key string, v *value) {
	var name, text string
	d.section(key, v, func(fields []*entry) {
		d.message(key, fields, map[string]rule{
			"key": d.text(&name),
			"value": {read: func(key string, v *value) {
				d.section(key, v, func(fields []*entry) {
					d.message(key, fields, map[string]rule{"string_value": d.text(&text)})
				})
			}},
		})
	})
	if d.into.Parameters == nil {
		d.into.Parameters = map[string]string{}
	}
	d.into.Parameters[name] = text // the last one of a name holds, as in a map of the format
}
