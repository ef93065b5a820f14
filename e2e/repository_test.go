package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/testkit"
)

// tritonConfig is a config.pbtxt for the digits, as their owner would write it.
const tritonConfig = `name: "digits"
platform: "onnxruntime_onnx"
max_batch_size: 64
default_model_filename: "net.onnx"
input [ { name: "pixels" data_type: TYPE_FP32 dims: [ 64 ] } ]
output [
  { name: "probabilities" data_type: TYPE_FP32 dims: [ 10 ] },
  { name: "label" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } }
]
version_policy { latest { num_versions: 2 } }
instance_group [ { count: 4 } ]
model_warmup { name: "noise" batch_size: 4 inputs { key: "pixels" value { data_type: TYPE_FP32 dims: [ 64 ] random_data: true } } }
`

// tritonModels makes a model repository in the layout of the reference server, with the
// versions 1 and 3 of the digits.
func tritonModels(t *testing.T) string {
	t.Helper()
	models := filepath.Join(t.TempDir(), "models")
	for _, version := range []string{"1", "3"} {
		addVersion(t, models, version)
	}
	write(t, filepath.Join(models, "digits/config.pbtxt"), tritonConfig)
	return models
}

func addVersion(t *testing.T, models, version string) {
	t.Helper()
	dir := filepath.Join(models, "digits", version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(testkit.Root(t), "models/digits/1/model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "net.onnx"), string(data))
	write(t, filepath.Join(dir, "README"), "version "+version) // another digest
}

// meets demands that requests meet these versions: path to version, "" for none.
func meets(t *testing.T, s *testkit.Service, want map[string]string) {
	t.Helper()
	for path, version := range want {
		status, answer := post(t, s.URL+path, string(slowBody(t, 1)))
		if version == "" {
			if status != 404 {
				t.Errorf("%s: %d %s, want 404", path, status, answer)
			}
			continue
		}
		if status != 200 || !strings.Contains(answer, `"model_version":"`+version+`"`) {
			t.Errorf("%s: %d %.200s, want version %s", path, status, answer, version)
		}
	}
}

// TestTritonRepository serves a repository as it is, takes up a version with a reload, and
// refuses a bad file without a client noticing.
func TestTritonRepository(t *testing.T) {
	models := tritonModels(t)
	s, socket := reloadable(t, testkit.Options{Models: models})
	infer := "/v2/models/digits/infer"
	version := func(v string) string { return "/v2/models/digits/versions/" + v + "/infer" }
	meets(t, s, map[string]string{infer: "3", version("1"): "1", version("3"): "3", version("2"): ""})
	for path, want := range map[string]string{
		"/v2/models/digits":            `"versions":["1","3"]`,
		"/v2/models/digits/versions/1": `"versions":["1"]`,
		"/v2/models/digits/config": `"version_policy":{"latest":{"num_versions":2}},"max_batch_size":64,` +
			`"input":[{"name":"pixels","data_type":"TYPE_FP32","dims":[64]}]`,
	} {
		if status, body := get(t, s.URL+path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s\nwant %s", path, status, body, want)
		}
	}
	if status, body := post(t, s.URL+"/v2/repository/index", ""); status != 200 ||
		body != `[{"name":"digits","version":"1","state":"READY","reason":""},{"name":"digits","version":"3","state":"READY","reason":""}]` {
		t.Errorf("%d %s", status, body)
	}
	if status, body := post(t, s.URL+infer, string(slowBody(t, 65))); status != 400 || !strings.Contains(body, "max_batch_size") {
		t.Errorf("65 rows: %d %s", status, body)
	}
	if log := s.LogText(); !strings.Contains(log, "config.pbtxt:11:18: instance_group: count: 4 has no effect here") {
		t.Error("no warning of the instance group in the log")
	}

	addVersion(t, models, "4")
	if out, code := command(t, socket, "reload"); code != 0 || !strings.Contains(out, "model digits: versions 1, 3 -> 3, 4") {
		t.Fatalf("%d: %s", code, out)
	}
	meets(t, s, map[string]string{infer: "4", version("1"): "", version("3"): "3", version("4"): "4"})
	if out, code := command(t, socket, "models"); code != 0 || strings.Count(out, "digits") != 2 {
		t.Errorf("%d: %s", code, out)
	}

	file := filepath.Join(models, "digits/config.pbtxt")
	for _, bad := range []struct {
		old, new string
		exit     int
		want     string
	}{
		{"max_batch_size: 64", "max_batch_size: many", ipc.ExitConfig, file + ":3:17: max_batch_size: is many; write a whole number"},
		{"onnxruntime_onnx", "pytorch_libtorch", ipc.ExitConfig, file + `:2:11: platform: "pytorch_libtorch" is not served here`},
		{"dims: [ 64 ] } ]", "dims: [ 64 ]", ipc.ExitConfig, file + ":13:1: the file ends early"},
		{"dims: [ 10 ]", "dims: [ 11 ]", ipc.ExitRolledBack, file + `:7:3: output "probabilities": dims are [11], the graph's [10]`},
		{"batch_size: 4", "batch_size: 65", ipc.ExitConfig, "batch_size: 65 is more than max_batch_size, 64"},
		{`key: "pixels"`, `key: "pixel"`, ipc.ExitRolledBack, file + `:12:14: model_warmup "noise": it has no input "pixels"`},
	} {
		text := strings.Replace(tritonConfig, bad.old, bad.new, 1)
		write(t, file, text)
		if out, code := command(t, socket, "reload"); code != bad.exit || !strings.Contains(out, bad.want) {
			t.Errorf("%s: %d, want %d %s\n%s", bad.new, code, bad.exit, bad.want, out)
		}
		meets(t, s, map[string]string{infer: "4", version("3"): "3"})
	}
	write(t, filepath.Join(models, "digits/config.yaml"), "description: x\n")
	if out, code := command(t, socket, "reload"); code != ipc.ExitConfig || !strings.Contains(out, "there are both") {
		t.Errorf("%d: %s", code, out)
	}
}

// TestVersionsAndLabels: a config.yaml chooses versions, the one that is served, and names
// for them. A rollback returns to the choice as it was.
func TestVersionsAndLabels(t *testing.T) {
	models := tritonModels(t)
	if err := os.Remove(filepath.Join(models, "digits/config.pbtxt")); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"1", "3"} {
		dir := filepath.Join(models, "digits", v)
		if err := os.Rename(filepath.Join(dir, "net.onnx"), filepath.Join(dir, "model.onnx")); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(models, "digits/config.yaml")
	write(t, file, "versions: [1, 3]\nversion: 1\nlabels: {stable: 1, canary: 3}\nlimits: {timeout: 5s, max_body: 2KiB}\n")
	s, socket := reloadable(t, testkit.Options{Models: models})
	infer := "/v2/models/digits/infer"
	meets(t, s, map[string]string{infer: "1", "/v2/models/digits/versions/3/infer": "3"})
	if status, body := post(t, s.URL+infer, fmt.Sprintf("%3000s", "")); status != 413 || !strings.Contains(body, "limits.max_body of model") {
		t.Errorf("%d %s", status, body)
	}

	write(t, file, "versions: [1, 3]\nlabels: {stable: 2}\n")
	if out, code := command(t, socket, "reload"); code != ipc.ExitConfig || !strings.Contains(out, file+": labels.stable: 2 is not one of the versions that are loaded, 1, 3") {
		t.Errorf("%d: %s", code, out)
	}
	write(t, file, "versions: all\nlabels: {stable: 3}\n")
	if out, code := command(t, socket, "reload"); code != 0 || !strings.Contains(out, "model digits: other settings, "+file) {
		t.Errorf("%d: %s", code, out)
	}
	meets(t, s, map[string]string{infer: "3", "/v2/models/digits/versions/1/infer": "1"})
	if out, code := command(t, socket, "rollback"); code != 0 {
		t.Errorf("%d: %s", code, out)
	}
	meets(t, s, map[string]string{infer: "1"})

	out, code := command(t, socket, "models", "--json")
	var list []struct{ Name, Version, State string }
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list) != 2 || list[0].Version != "1" || list[1].Version != "3" {
		t.Errorf("%d %v: %s", code, err, out)
	}
}
