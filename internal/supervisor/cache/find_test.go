package cache

import (
	"path/filepath"
	"strings"
	"testing"

	"preforkd/internal/ipc"
)

// TestVersions has what settings choose of the versions 1, 2, 3 and 10.
func TestVersions(t *testing.T) {
	for text, want := range map[string]string{
		"description: x":                                      "10",
		"version: 2":                                          "2",
		"versions: all":                                       "1 2 3 10",
		"versions: {latest: 2}":                               "3 10",
		"versions: {latest: 9}":                               "1 2 3 10",
		"versions: [3, 1, 3]":                                 "1 3",
		"versions: [1, 3]\nversion: 1":                        "1 3",
		"versions: [1, 3]\nlabels: {a: 3, b: 1}":              "1 3",
		"pbtxt:":                                              "10",
		"pbtxt:version_policy { all { } }":                    "1 2 3 10",
		"pbtxt:version_policy { latest { } }":                 "10",
		"pbtxt:version_policy { latest { num_versions: 3 } }": "2 3 10",
		"pbtxt:version_policy { specific { versions: [ 10, 2 ] } }": "2 10",

		"versions: [4]":                                       "a/config.yaml: versions: 4 is not there, only 1, 2, 3, 10",
		"version: 7":                                          "a/config.yaml: version: 7 is not there, only 1, 2, 3, 10",
		"versions: [1]\nversion: 3":                           "a/config.yaml: version: 3 is not one of the versions that are loaded, 1",
		"versions: [1]\nlabels: {x: 2}":                       "a/config.yaml: labels.x: 2 is not one of the versions that are loaded, 1",
		"labels: {x: 2}":                                      "labels.x: 2 is not one of the versions that are loaded, 10",
		"versions: {latest: 1, all: true}":                    "more than one of latest, all and specific",
		"pbtxt:\nversion_policy { specific { versions: 4 } }": "a/config.pbtxt:2:39: version_policy: 4 is not there",
		"pbtxt:max_batch_size: x":                             "a/config.pbtxt:1:17: max_batch_size: is x",
		"pbtxt:name: \"b\"":                                   `"b" is not what the directory is called, "a"`,
	} {
		p := places(t)
		for _, v := range []string{"2", "3", "10"} {
			write(t, filepath.Join(p.models, "a", v, "model.onnx"), "v"+v)
		}
		name := "config.yaml"
		content, isText := strings.CutPrefix(text, "pbtxt:")
		if isText {
			name = "config.pbtxt"
		}
		write(t, filepath.Join(p.models, "a", name), content)
		c, err := p.collect()
		if err != nil {
			if !strings.Contains(err.Error(), want) || ipc.ExitStatus(err) != ipc.ExitConfig {
				t.Errorf("%s: %v\nwant %s", text, err, want)
			}
			continue
		}
		var got []string
		for _, m := range c.Models {
			got = append(got, m.Version)
			if m.Options.File != filepath.Join(p.models, "a", name) {
				t.Errorf("%s: the settings are from %q", text, m.Options.File)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %s", text, got, want)
		}
		if len(c.Lease.Descriptors()) != len(got) {
			t.Errorf("%s: %d copies are leased", text, len(c.Lease.Descriptors()))
		}
		c.Lease.Close()
	}
}

func TestTritonLayout(t *testing.T) {
	p := places(t)
	write(t, filepath.Join(p.models, "a/config.pbtxt"), "default_model_filename: \"net.onnx\"\noptimization { }\n"+
		"model_warmup { name: \"w\" inputs { key: \"x\" value { data_type: TYPE_FP32 dims: 1 input_data_file: \"raw\" } } }\n")
	try := func(want string) {
		t.Helper()
		if _, err := p.collect(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	try(`a/config.pbtxt:3:14: model_warmup "w": input_data_file: open `)
	write(t, filepath.Join(p.models, "a/warmup/raw"), strings.Repeat("x", maxWarmupData+1))
	try("the model's files have more than 1048576 bytes")
	write(t, filepath.Join(p.models, "a/warmup/raw"), "1234")
	try("a/1/net.onnx: no such file")
	write(t, filepath.Join(p.models, "a/1/net.onnx"), "net")
	c := p.must(t)
	m := c.Models[0]
	if content(t, m.Path) != "net" || len(m.Warmup) != 1 || string(m.Warmup[0].Inputs[0].Data) != "1234" {
		t.Errorf("%+v", m)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "a/config.pbtxt:2:1: optimization: has no effect") {
		t.Errorf("%q", c.Warnings)
	}
	again := p.must(t) // from the cache
	if again.Models[0].Path != m.Path {
		t.Errorf("%s, then %s", m.Path, again.Models[0].Path)
	}

	write(t, filepath.Join(p.models, "a/config.yaml"), "description: x\n")
	try("there are both " + filepath.Join(p.models, "a/config.yaml") + " and " + filepath.Join(p.models, "a/config.pbtxt"))
}

// TestLargeSettings: a file that is no settings is refused before it costs much.
func TestLargeSettings(t *testing.T) {
	for _, name := range []string{"config.yaml", "config.pbtxt"} {
		p := places(t)
		write(t, filepath.Join(p.models, "a", name), strings.Repeat("# 5678901\n", 1<<20))
		if _, err := p.collect(); ipc.ExitStatus(err) != ipc.ExitConfig || !strings.Contains(err.Error(), name+": is larger than 1MiB") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWarmupOfAVersion: versions may answer differently.
func TestWarmupOfAVersion(t *testing.T) {
	p := places(t)
	write(t, filepath.Join(p.models, "a/2/model.onnx"), "two")
	write(t, filepath.Join(p.models, "a/config.yaml"), "versions: all")
	write(t, filepath.Join(p.models, "a/warmup.json"), `[{"request":{}}]`)
	write(t, filepath.Join(p.models, "a/2/warmup.json"), `[{"request":{}},{"request":{}}]`)
	for i, m := range p.must(t).Models {
		if len(m.Warmup) != i+1 || !strings.HasSuffix(m.Warmup[i].From, []string{"/a/warmup.json, request 0", "/a/2/warmup.json, request 1"}[i]) {
			t.Errorf("%+v", m.Warmup)
		}
	}
}
