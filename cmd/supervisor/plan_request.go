package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"preforkd/internal/ipc"
	generator "preforkd/internal/load"
)

// asked is a request of one model, and what it is made of.
type asked struct {
	model  string
	bytes  []byte
	sample string
}

// tensor is an input as the Open Inference Protocol writes it.
type tensor struct {
	Name       string         `json:"name"`
	DataType   string         `json:"datatype"`
	Shape      []int64        `json:"shape"`
	Parameters map[string]int `json:"parameters"`
	data       []byte
}

// request returns the first warm-up request of m, else zeros.
func (t *trial) request(ctx context.Context, m *ipc.ModelFile) (a asked, err error) {
	a.model = m.Name
	path := "/v2/models/" + url.PathEscape(m.Name) + "/versions/" + m.Version
	if len(m.Warmup) > 0 && len(m.Warmup[0].Request) > 0 {
		a.bytes, a.sample = generator.Post(path+"/infer", "application/json", m.Warmup[0].Request), "its warm-up request"
		return a, nil
	}
	var inputs []tensor
	if len(m.Warmup) > 0 {
		a.sample = "its warm-up request"
		for _, in := range m.Warmup[0].Inputs {
			if in.Random {
				a.sample = "zeros of its warm-up request's shape"
			}
			inputs = append(inputs, tensor{Name: in.Name, DataType: in.DataType, Shape: in.Shape, data: in.Data})
		}
	} else {
		a.sample = "zeros"
		if inputs, err = t.inputs(ctx, path); err != nil {
			return a, err
		}
	}
	a.bytes, err = encode(path+"/infer", inputs)
	return a, err
}

// inputs are those that the model at path says it has.
func (t *trial) inputs(ctx context.Context, path string) ([]tensor, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", t.socket())
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://preforkd"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", path, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", path, err)
	}
	defer resp.Body.Close()
	var answer struct {
		Inputs []tensor `json:"inputs"`
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", path, err)
	}
	return answer.Inputs, nil
}

// elementBytes are the sizes of the protocol's datatypes; a BYTES element of zeros is the length
// of an empty string.
var elementBytes = map[string]int64{
	"BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2, "BF16": 2,
	"UINT32": 4, "INT32": 4, "FP32": 4, "BYTES": 4, "UINT64": 8, "INT64": 8, "FP64": 8,
}

// maxZeros bounds a request that nobody has written.
const maxZeros = 1 << 30

// encode returns a request with binary tensors; what has no data is zeros of the smallest size
// that its shape takes.
func encode(path string, inputs []tensor) ([]byte, error) {
	var data []byte
	for i := range inputs {
		in := &inputs[i]
		n, known := elementBytes[in.DataType]
		if !known {
			return nil, fmt.Errorf("input %q has the datatype %s, for which there is no request of zeros", in.Name, in.DataType)
		}
		for d, size := range in.Shape {
			if size < 0 {
				in.Shape[d] = 1
			}
			if size > maxZeros { // so that the product cannot overflow
				n = 1
			}
			if n *= in.Shape[d]; n > maxZeros {
				return nil, fmt.Errorf("input %q of the shape %v has more than %d bytes", in.Name, in.Shape, maxZeros)
			}
		}
		if in.data == nil {
			in.data = make([]byte, n)
		}
		in.Parameters = map[string]int{"binary_data_size": len(in.data)}
		data = append(data, in.data...)
	}
	head, err := json.Marshal(map[string]any{"inputs": inputs})
	if err != nil {
		return nil, fmt.Errorf("write a request: %w", err)
	}
	return generator.Post(path, "application/octet-stream", append(head, data...), fmt.Sprintf("Inference-Header-Content-Length: %d", len(head))), nil
}
