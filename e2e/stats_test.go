package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"preforkd/internal/load"
	"preforkd/internal/testkit"
)

// modelStats is what GET /v2/models/NAME/stats says of a model's only version.
type modelStats struct {
	Inferences uint64 `json:"inference_count"`
	Executions uint64 `json:"execution_count"`
	Stats      map[string]struct{ Count, NS uint64 }
}

func statsOf(t *testing.T, url, model string) modelStats {
	t.Helper()
	status, body := get(t, url+"/v2/models/"+model+"/stats")
	var got struct {
		Models []struct {
			modelStats
			Stats map[string]struct{ Count, NS uint64 } `json:"inference_stats"`
		} `json:"model_stats"`
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || len(got.Models) != 1 {
		t.Fatalf("%d, %v: %s", status, err, body)
	}
	s := got.Models[0].modelStats
	s.Stats = got.Models[0].Stats
	return s
}

// TestStatsAreOfAllWorkers: whichever worker answers, it tells of what all have answered, also
// of those that have been replaced.
func TestStatsAreOfAllWorkers(t *testing.T) {
	s, socket := reloadable(t, testkit.Options{Workers: 3})
	_, end := storm(t, s, load.Options{Conns: 6, Keepalive: true, Requests: 600})
	must(t, socket, []string{"reload"}, "serves")
	r := end()
	want := r.Answers + r.Warmup.Answers
	for range 2 { // one that fails
		if status, body := post(t, s.URL+"/predict/digits", `{"features":[1]}`); status != 422 {
			t.Errorf("%d: %s", status, body)
		}
	}
	for range 9 {
		got := statsOf(t, s.URL, "digits")
		if got.Executions != want || got.Inferences != want || got.Stats["success"].Count != want || got.Stats["fail"].Count != 2 || got.Stats["compute_infer"].NS == 0 {
			t.Errorf("%+v, want %d answers", got, want)
		}
	}
	if status, body := get(t, s.URL+"/v2/models/stats"); status != 200 || !strings.Contains(body, fmt.Sprintf(`"execution_count":%d`, want)) {
		t.Errorf("%d: %s", status, body)
	}
}
