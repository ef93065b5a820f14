package e2e

import (
	"encoding/json"
	"testing"

	"preforkd/internal/testkit"
	"preforkd/internal/testkit/digits"
)

// TestQuantizedDigits compares the model with weights of 8 bits with the one that it was
// made of, on what was really written.
func TestQuantizedDigits(t *testing.T) {
	set := digits.Load(t)
	s := testkit.Start(t, testkit.Options{})
	right := map[string]int{}
	labels := map[string][]int64{}
	for _, name := range []string{"digits-cnn", "digits-int8"} {
		status, body := post(t, s.URL+"/v2/models/"+name+"/infer", inferBody(t, set))
		var answer struct {
			Outputs []struct {
				Name string    `json:"name"`
				Data []float64 `json:"data"`
			} `json:"outputs"`
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 {
			t.Fatalf("%s: %d, %v: %s", name, status, err, body)
		}
		for _, out := range answer.Outputs {
			for i, v := range out.Data {
				if out.Name != "label" {
					break
				}
				labels[name] = append(labels[name], int64(v))
				if int64(v) == set.Truth[i] {
					right[name]++
				}
			}
		}
		t.Logf("%s: %d of %d right, %.2f %%", name, right[name], len(set.Truth), 100*float64(right[name])/float64(len(set.Truth)))
	}
	other := 0
	for i, v := range labels["digits-cnn"] {
		if labels["digits-int8"][i] != v {
			other++
		}
	}
	t.Logf("%d answers differ", other)
	if len(labels["digits-int8"]) != len(set.Truth) || right["digits-int8"] < right["digits-cnn"]-len(set.Truth)/100 {
		t.Errorf("%d of %d are right, of the float model's %d", right["digits-int8"], len(set.Truth), right["digits-cnn"])
	}
}
