package main

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// clocks are what preforkd itself measured of a model's requests, all workers together, from
// when a request had been read until its answer was written into the connection's buffer: the
// means, in µs.
type clocks struct {
	Requests int64   `json:"requests"`
	Queue    float64 `json:"queue_us"`
	Input    float64 `json:"input_us"`
	Engine   float64 `json:"engine_us"`
	Output   float64 `json:"output_us"`
	Total    float64 `json:"total_us"`
}

// beyond is what is neither the engine nor the wait for it.
func (c *clocks) beyond() float64 { return c.Total - c.Queue - c.Engine }

// readClocks asks for the statistics of a model since the service was started.
func readClocks(base, model string) (*clocks, error) {
	text, err := fetch(http.MethodGet, base+"/v2/models/"+model+"/stats", nil)
	if err != nil {
		return nil, err
	}
	return parseClocks(text)
}

// parseClocks reads the answer of the protocol's statistics extension.
func parseClocks(text []byte) (*clocks, error) {
	type sum struct{ Count, Ns int64 }
	var a struct {
		Models []struct {
			Sums struct {
				Success, Queue sum
				Input          sum `json:"compute_input"`
				Engine         sum `json:"compute_infer"`
				Output         sum `json:"compute_output"`
			} `json:"inference_stats"`
		} `json:"model_stats"`
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return nil, fmt.Errorf("%w in %.300s", err, text)
	}
	if len(a.Models) != 1 || a.Models[0].Sums.Success.Count == 0 {
		return nil, fmt.Errorf("not the statistics of one model that was asked: %.300s", text)
	}
	s := a.Models[0].Sums
	mean := func(of sum) float64 { return float64(of.Ns) / float64(s.Success.Count) / 1000 }
	return &clocks{
		Requests: s.Success.Count,
		Queue:    mean(s.Queue), Input: mean(s.Input), Engine: mean(s.Engine), Output: mean(s.Output), Total: mean(s.Success),
	}, nil
}
