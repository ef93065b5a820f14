package api

import (
	"strings"
	"testing"
	"time"

	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
	"preforkd/internal/worker/admission"
)

// settled returns an API with the versions 1 and 3 of one model, which have settings.
func settled(t *testing.T, model string, s ipc.ModelSettings, o Options) *API {
	t.Helper()
	var files []ipc.ModelFile
	for _, version := range []string{"1", "3"} {
		files = append(files, ipc.ModelFile{Name: "m", Version: version, Path: model, Source: "models/m", Options: s})
	}
	r, err := repository.Load(models[model], files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	o.Models, o.Permits = r, admission.New(admission.Options{Limit: 1})
	if o.RequestTimeout == 0 {
		o.RequestTimeout = time.Minute
	}
	return New(o)
}

// settings are those of a config.pbtxt for the model "digits".
var settings = ipc.ModelSettings{
	Versions: ipc.VersionPolicy{Specific: []string{"1", "3"}}, MaxBatchSize: 8, Filename: "net.onnx",
	Inputs:        []ipc.TensorSettings{{Name: "pixels", DataType: "FP32", Dims: []int64{64}}},
	Outputs:       []ipc.TensorSettings{{Name: "label", DataType: "INT64", Dims: []int64{1}, Reshape: []int64{}, Reshaped: true}},
	MaxQueueDelay: 100 * time.Microsecond, Batching: &ipc.BatchSettings{Preferred: []int64{4}},
	Parameters: map[string]string{"mode": "fast"},
}

func TestExtensions(t *testing.T) {
	a := settled(t, "digits", settings, Options{Refusal: func(m *repository.Model) string {
		if m.Version == "3" {
			return "it is quarantined"
		}
		return ""
	}})
	c := dial(t, serve(t, a, limits))
	const config = `{"name":"m","platform":"test_adder","backend":"test_adder","version_policy":{"specific":{"versions":[1,3]}},"max_batch_size":8,` +
		`"input":[{"name":"pixels","data_type":"TYPE_FP32","dims":[64]}],"output":[{"name":"label","data_type":"TYPE_INT64","dims":[]},` +
		`{"name":"probabilities","data_type":"TYPE_FP32","dims":[2]}],"dynamic_batching":{"preferred_batch_size":[4],` +
		`"max_queue_delay_microseconds":100,"preserve_ordering":false},"default_model_filename":"net.onnx","parameters":{"mode":{"string_value":"fast"}}}`
	const ready = `[{"name":"m","version":"1","state":"READY","reason":""}`
	for _, x := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/v2/models/m/config", "", 200, config},
		{"GET", "/v2/models/m/versions/1/config?x=y", "", 200, config},
		{"GET", "/v2/models/m/versions/2/config", "", 404, "version 2 is not found"},
		{"POST", "/v2/models/m/config", "", 405, "method not allowed"},
		{"POST", "/v2/repository/index", "", 200, ready + `,{"name":"m","version":"3","state":"UNAVAILABLE","reason":"it is quarantined"}]`},
		{"POST", "/v2/repository/index", `{"ready":false}`, 200, `UNAVAILABLE`},
		{"POST", "/v2/repository/index", ` {"ready":true} `, 200, ready + `]`},
		{"POST", "/v2/repository/index", `{"ready":1}`, 400, "body: ready: number is out of place here"},
		{"POST", "/v2/repository/index", `[]`, 400, "body: array is out of place here"},
		{"POST", "/v2/repository/index", `{`, 400, "body: unexpected end of JSON input"},
		{"GET", "/v2/repository/index", "", 405, "method not allowed"},
		{"POST", "/v2/repository/models/m/load", `{"parameters":{}}`, 403, "model control over HTTP is off (models.control: none): change the model directory and preforkd reload, or set models.control to explicit"},
		{"POST", "/v2/repository/models/m/unload", "", 403, "model control over HTTP is off (models.control: none): change the model directory and preforkd reload, or set models.control to explicit"},
		{"POST", "/v2/repository/mine/models/m/load", "", 403, "model control over HTTP is off (models.control: none): change the model directory and preforkd reload, or set models.control to explicit"},
		{"GET", "/v2/repository/models/m/load", "", 405, ""},
		{"POST", "/v2/repository/models/m/drop", "", 404, "no such path"},
		{"POST", "/v2/repository/models/m", "", 404, "no such path"},
		{"POST", "/v2/repository", "", 404, "no such path"},
		{"GET", "/v2/systemsharedmemory/status", "", 501, "system shared memory is not supported: one worker would"},
		{"GET", "/v2/systemsharedmemory/region/a/status", "", 501, "system shared memory is not supported"},
		{"POST", "/v2/systemsharedmemory/region/a/register", `{"key":"/x"}`, 501, "system shared memory"},
		{"POST", "/v2/cudasharedmemory/unregister", "", 501, "CUDA shared memory is not supported"},
		{"GET", "/v2/systemsharedmemory/region/status", "", 404, "no such path"},
		{"GET", "/v2/systemsharedmemory", "", 404, "no such path"},
		{"GET", "/v2/trace/setting", "", 501, "tracing is not supported"},
		{"POST", "/v2/models/m/trace/setting", "{}", 501, "tracing is not supported"},
		{"GET", "/v2/models/m/versions/1/trace/setting", "", 404, "no such path"},
		{"GET", "/v2/trace", "", 404, "no such path"},
		{"GET", "/v2/logging", "", 501, "set log.level and preforkd reload"},
		{"PUT", "/v2/logging", "", 405, ""},
		{"GET", "/v2/models/m", "", 200, `"versions":["1","3"]`},
		{"GET", "/v2/models/m/ready", "", 503, "quarantined"},
		{"GET", "/v2/models/m/versions/1/ready", "", 200, `"ready":true`},
	} {
		c.send(t, x.method+" "+x.path+" HTTP/1.1\r\nHost: x\r\nContent-Length: "+itoa(len(x.body))+"\r\n\r\n"+x.body)
		status, body, h := c.answer(t)
		exact := strings.HasPrefix(x.want, "{") || strings.HasSuffix(x.want, "]") && strings.HasPrefix(x.want, "[")
		if status != x.status || !strings.Contains(body, x.want) || exact && body != x.want || h.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s %s: %d %s\nwant %d %s", x.method, x.path, x.body, status, body, x.status, x.want)
		}
	}
	c.send(t, "POST /v2/repository/index HTTP/1.1\r\nHost: x\r\n\r\n") // as curl -X POST does
	if status, body, h := c.answer(t); status != 200 || h.Get("Connection") != "close" {
		t.Errorf("%d %s %v", status, body, h)
	}
}

// TestVersionPolicies has the other forms.
func TestVersionPolicies(t *testing.T) {
	for want, s := range map[string]ipc.ModelSettings{
		`"version_policy":{"all":{}}`:                     {Versions: ipc.VersionPolicy{All: true}, Version: "1"},
		`"version_policy":{"latest":{"num_versions":1}}`:  {},
		`"version_policy":{"latest":{"num_versions":2}}`:  {Versions: ipc.VersionPolicy{Latest: 2}},
		`"version_policy":{"specific":{"versions":[3]}}`:  {Version: "3"},
		`"default_model_filename":"model.onnx"`:           {Version: "1"},
		`"output":[{"name":"label","data_type":"TYPE_INT`: {},
	} {
		c := dial(t, serve(t, settled(t, "digits", s, Options{}), limits))
		c.send(t, "GET /v2/models/m/config HTTP/1.1\r\nHost: x\r\n\r\n")
		if status, body, _ := c.answer(t); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%d %s\nwant %s", status, body, want)
		}
	}
}
