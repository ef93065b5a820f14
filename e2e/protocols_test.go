package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"preforkd/internal/testkit"
	"preforkd/internal/testkit/digits"
)

// perProtocol is how many samples each protocol sends.
const perProtocol = 50

// protocol asks a model for samples, in one way that clients have.
type protocol struct {
	name, path string // path with %s for the model
	body       func(n int, rows string) string
	// read returns the labels and probabilities in an answer.
	read func(body []byte) (labels []int64, probabilities [][]float64, err error)
}

var protocols = []protocol{
	{
		"predict", "/predict/%s",
		func(_ int, rows string) string { return `{"features":` + rows + `}` },
		func(body []byte) ([]int64, [][]float64, error) {
			var a struct {
				Predictions   []int64
				Probabilities [][]float64
			}
			err := json.Unmarshal(body, &a)
			return a.Predictions, a.Probabilities, err
		},
	},
	{
		"V2", "/v2/models/%s/infer",
		func(n int, rows string) string {
			return fmt.Sprintf(`{"inputs":[{"name":"pixels","shape":[%d,%d],"datatype":"FP32","data":%s}]}`, n, digits.Features, rows)
		},
		readV2,
	},
	{
		"TensorFlow Serving, rows", "/v1/models/%s:predict",
		func(_ int, rows string) string { return `{"instances":` + rows + `}` },
		func(body []byte) (labels []int64, probabilities [][]float64, err error) {
			var a struct {
				Predictions []struct {
					Label         int64
					Probabilities []float64
				}
			}
			err = json.Unmarshal(body, &a)
			for _, p := range a.Predictions {
				labels, probabilities = append(labels, p.Label), append(probabilities, p.Probabilities)
			}
			return labels, probabilities, err
		},
	},
	{
		"TensorFlow Serving, columns", "/v1/models/%s/versions/1:predict",
		func(_ int, rows string) string { return `{"inputs":{"pixels":` + rows + `}}` },
		func(body []byte) ([]int64, [][]float64, error) {
			var a struct {
				Outputs struct {
					Label         []int64
					Probabilities [][]float64
				}
			}
			err := json.Unmarshal(body, &a)
			return a.Outputs.Label, a.Outputs.Probabilities, err
		},
	},
}

func readV2(body []byte) (labels []int64, probabilities [][]float64, err error) {
	var a struct {
		Outputs []struct {
			Name string
			Data []float64
		}
	}
	err = json.Unmarshal(body, &a)
	for _, out := range a.Outputs {
		for i, v := range out.Data {
			switch {
			case out.Name == "label":
				labels = append(labels, int64(v))
			case i%digits.Classes == 0:
				probabilities = append(probabilities, out.Data[i:i+digits.Classes])
			}
		}
	}
	return labels, probabilities, err
}

// rowsText is samples as nested lists.
func rowsText(samples [][digits.Features]float32) string {
	rows := make([]string, len(samples))
	for i := range rows {
		numbers := make([]string, digits.Features)
		for k, v := range samples[i] {
			numbers[k] = strconv.FormatFloat(float64(v), 'g', -1, 32)
		}
		rows[i] = "[" + strings.Join(numbers, ",") + "]"
	}
	return "[" + strings.Join(rows, ",") + "]"
}

// TestProtocolsAgree asks for the same samples in each form: the answers are
// scikit-learn's, and to the last digit the same.
func TestProtocolsAgree(t *testing.T) {
	set := digits.Load(t)
	s := testkit.Start(t, testkit.Options{})
	all := rowsText(set.Pixels[:perProtocol])
	for _, model := range digits.Names {
		var first [][]float64
		for _, p := range protocols {
			status, body := post(t, s.URL+fmt.Sprintf(p.path, model), p.body(perProtocol, all))
			labels, probabilities, err := p.read([]byte(body))
			if status != 200 || err != nil || len(labels) != perProtocol || len(probabilities) != perProtocol {
				t.Errorf("%s, %s: %d, %v, %d labels, %d rows: %.200s", model, p.name, status, err, len(labels), len(probabilities), body)
				continue
			}
			if first == nil {
				first = probabilities
			}
			want := set.Answers[model]
			for i := range labels {
				if labels[i] != want.Labels[i] {
					t.Errorf("%s, %s: sample %d is %d, scikit-learn says %d", model, p.name, i, labels[i], want.Labels[i])
				}
				for k, v := range probabilities[i] {
					if v != first[i][k] || math.Abs(v-float64(want.Probabilities[i][k])) > tolerance {
						t.Errorf("%s, %s: sample %d, class %d: %v, %s says %v, scikit-learn %v", model, p.name, i, k, v, protocols[0].name, first[i][k], want.Probabilities[i][k])
					}
				}
			}
		}
	}
}

// TestProtocolsDescribe asks a real service what the protocols' clients ask before they
// send anything.
func TestProtocolsDescribe(t *testing.T) {
	s := testkit.Start(t, testkit.Options{Workers: 1})
	for path, want := range map[string]string{
		"/v1/models":                          `{"models":["digits","digits-cnn","digits-forest","digits-gbdt","digits-int8"]}`,
		"/v1/models/digits":                   `{"name":"digits","ready":true,"model_version_status":[{"version":"1","state":"AVAILABLE",`,
		"/v1/models/digits/versions/1":        `{"name":"digits","ready":true,"model_version_status":[{"version":"1","state":"AVAILABLE",`,
		"/v1/models/digits/metadata":          `{"model_spec":{"name":"digits","signature_name":"","version":"1"},"metadata":{"signature_def":{"signature_def":{"serving_default":{"inputs":{"pixels":{"dtype":"DT_FLOAT",`,
		"/v1/models/none":                     `{"error":"Servable not found for request: Latest(none)"}`,
		"/ping":                               `{"ready":true}`,
		"/openapi.json":                       `{"components":{`,
		"/docs":                               "<!doctype html>",
		"/v1/models/digits/labels/x/metadata": `{"error":"Unrecognized servable version label: x"}`,
	} {
		resp, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.HasPrefix(string(body), want) {
			t.Errorf("%s: %d, %v: %.200s", path, resp.StatusCode, err, body)
		}
	}
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"/v1/models/digits:explain", "{}", 501},
		{"/v1/models/digits:classify", "{}", 501},
		{"/v1/models/digits:predict", `{"instances":[[1,2]]}`, 400},
		{"/v1/models/none:predict", `{"instances":[[1,2]]}`, 404},
		{"/invocations", `{"features":[1,2]}`, 422},
	} {
		if status, body := post(t, s.URL+c.path, c.body); status != c.status {
			t.Errorf("%s: %d %s", c.path, status, body)
		}
	}
}
