package api

import (
	"encoding/json"
	"sync"
	"testing"
	"time"

	"preforkd/internal/inference/repository"
)

// TestStats: what perf_analyzer reads is there, every key of it, and counts each request once.
func TestStats(t *testing.T) {
	var mu sync.Mutex // guards counted
	counted := map[string]Stats{}
	a := newAPI(t, Options{
		Served: func(m *repository.Model, s Served) {
			mu.Lock()
			defer mu.Unlock()
			sum := counted[m.Name]
			if s.Failed {
				sum.Failures, sum.Failed = sum.Failures+1, sum.Failed+s.Total
			} else {
				sum.Requests, sum.Inferences, sum.Executions = sum.Requests+1, sum.Inferences+uint64(s.Batch), sum.Executions+1
				sum.Queue, sum.Input, sum.Engine, sum.Output = sum.Queue+s.Queue, sum.Input+s.Input, sum.Engine+s.Engine, sum.Output+s.Output
				sum.Total += s.Total
				sum.Last = time.UnixMilli(1234)
			}
			counted[m.Name] = sum
		},
		Stats: func(m *repository.Model) Stats {
			mu.Lock()
			defer mu.Unlock()
			return counted[m.Name]
		},
	})
	address := serve(t, a, limits)
	conn := dial(t, address)
	for _, request := range []string{
		post("/v2/models/digits/infer", `{"inputs":[{"name":"pixels","shape":[1,64],"datatype":"FP32","data":`+row+`}]}`), post("/predict/digits", features), post("/predict/digits", `{"features":[1]}`), post("/v2/models/nobody/infer", "{}"),
	} {
		conn.send(t, request)
		conn.answer(t)
	}
	for path, models := range map[string]int{"/v2/models/stats": len(a.Models.All()), "/v2/models/digits/stats": 1, "/v2/models/digits/versions/1/stats?x=1": 1} {
		conn.send(t, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		status, body, _ := conn.answer(t)
		type sum struct{ Count, NS *uint64 }
		var got struct {
			Models []struct {
				Name, Version  string
				Last           *uint64         `json:"last_inference"`
				Inferences     *uint64         `json:"inference_count"`
				Executions     *uint64         `json:"execution_count"`
				InferenceStats map[string]sum  `json:"inference_stats"`
				Batches        []any           `json:"batch_stats"`
				Memory         []any           `json:"memory_usage"`
				Responses      *map[string]any `json:"response_stats"`
			} `json:"model_stats"`
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || len(got.Models) < models {
			t.Fatalf("%s: %d, %v: %s", path, status, err, body)
		}
		for _, m := range got.Models {
			if m.Last == nil || m.Inferences == nil || m.Executions == nil || m.Batches == nil || m.Memory == nil || m.Responses == nil {
				t.Errorf("%s: a key is missing: %s", path, body)
			}
			for _, key := range []string{"success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"} {
				if s, ok := m.InferenceStats[key]; !ok || s.Count == nil || s.NS == nil {
					t.Errorf("%s: no %s: %s", path, key, body)
				}
			}
			if m.Name == "digits" && (*m.Inferences != 2 || *m.Executions != 2 || *m.InferenceStats["success"].Count != 2 || *m.InferenceStats["fail"].Count != 1 || *m.Last != 1234) {
				t.Errorf("%s: %s", path, body)
			}
		}
	}
	conn.send(t, "GET /v2/models/nobody/stats HTTP/1.1\r\nHost: x\r\n\r\n")
	if status, body, _ := conn.answer(t); status != 404 {
		t.Errorf("%d: %s", status, body)
	}
}
