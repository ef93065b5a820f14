package api

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/valyala/fasthttp"

	"preforkd/internal/inference"
	"preforkd/internal/ipc"
)

// configuration is the JSON form of a ModelConfig (model_config.proto of the reference
// server), as its extension model_configuration has it: numbers of 64 bits are numbers.
type configuration struct {
	Name       string                       `json:"name"`
	Platform   string                       `json:"platform"`
	Backend    string                       `json:"backend"`
	Policy     map[string]any               `json:"version_policy"`
	MaxBatch   int64                        `json:"max_batch_size"`
	Input      []configTensor               `json:"input"`
	Output     []configTensor               `json:"output"`
	Batching   *configBatching              `json:"dynamic_batching,omitempty"`
	File       string                       `json:"default_model_filename"`
	Parameters map[string]map[string]string `json:"parameters"`
}

type configTensor struct {
	Name     string  `json:"name"`
	DataType string  `json:"data_type"`
	Dims     []int64 `json:"dims"`
}

type configBatching struct {
	Preferred []int64 `json:"preferred_batch_size"`
	Delay     int64   `json:"max_queue_delay_microseconds"`
	Ordering  bool    `json:"preserve_ordering"`
}

// modelConfig answers GET /v2/models/…/config.
func (a *API) modelConfig(ctx *fasthttp.RequestCtx, t target) error {
	m, err := a.find(t)
	if err != nil {
		return err
	}
	s := &m.Settings
	c := configuration{
		Name: m.Name, Platform: m.Platform, Backend: strings.TrimSuffix(m.Platform, "_onnx"), Policy: policyOf(s),
		MaxBatch: s.MaxBatchSize, File: s.ModelFile(), Parameters: map[string]map[string]string{},
		Input:  configTensors(m.Inputs(), s.Inputs, s.MaxBatchSize > 0),
		Output: configTensors(m.Outputs(), s.Outputs, s.MaxBatchSize > 0),
	}
	for name, text := range s.Parameters {
		c.Parameters[name] = map[string]string{"string_value": text}
	}
	b := s.Batching
	if b == nil && mostRows(s) > 1 {
		b = &ipc.BatchSettings{PreserveOrder: true}
	}
	if b != nil {
		c.Batching = &configBatching{append([]int64{}, b.Preferred...), s.MaxQueueDelay.Microseconds(), b.PreserveOrder}
	}
	return marshal(ctx, c)
}

// policyOf is what chose the versions that are loaded.
func policyOf(s *ipc.ModelSettings) map[string]any {
	p := &s.Versions
	specific := p.Specific
	if p.Latest == 0 && s.Version != "" && !p.All && specific == nil {
		specific = []string{s.Version} // it is the only one
	}
	switch {
	case p.All:
		return map[string]any{"all": struct{}{}}
	case specific != nil:
		versions := make([]json.Number, len(specific))
		for i, v := range specific {
			versions[i] = json.Number(v)
		}
		return map[string]any{"specific": map[string]any{"versions": versions}}
	}
	return map[string]any{"latest": map[string]any{"num_versions": max(p.Latest, 1)}}
}

// configTensors are the graph's, with the sizes that the settings say. With batch the
// first size is the batch's, which is left out.
func configTensors(graph []inference.TensorInfo, said []ipc.TensorSettings, batch bool) []configTensor {
	list := make([]configTensor, len(graph))
	for i := range graph {
		dims := graph[i].Shape
		if batch && len(dims) > 0 {
			dims = dims[1:]
		}
		at := slices.IndexFunc(said, func(t ipc.TensorSettings) bool { return t.Name == graph[i].Name })
		if at >= 0 && !said[at].Reshaped { // clients send the graph's shape
			dims = said[at].Dims
		}
		list[i] = configTensor{graph[i].Name, typeName(graph[i].DataType), append([]int64{}, dims...)}
	}
	return list
}

// typeName is the name in the enum DataType.
func typeName(dt inference.DataType) string {
	if dt == inference.Bytes {
		return "TYPE_STRING"
	}
	return "TYPE_" + dt.String()
}
