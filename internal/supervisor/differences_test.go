package supervisor

import (
	"strings"
	"testing"

	"preforkd/internal/ipc"
)

func TestModelDifferences(t *testing.T) {
	// models are NAME/VERSION/DIGEST, with @ and a description where there are settings.
	models := func(text string) (all []ipc.ModelFile) {
		for _, word := range strings.Fields(text) {
			word, description, _ := strings.Cut(word, "@")
			p := strings.Split(word, "/")
			m := ipc.ModelFile{Name: p[0], Version: p[1], Digest: p[2]}
			if m.Options.Description = description; description != "" {
				m.Options.File = "m/config.yaml"
			}
			all = append(all, m)
		}
		return all
	}
	for _, c := range []struct{ old, next, want string }{
		{"a/1/x", "a/1/x", ""},
		{"a/1/x", "a/2/x", "model a: version 1 -> 2"},
		{"a/1/x", "a/1/y", "model a: version 1 has other content"},
		{"a/1/x", "a/1/x a/2/y", "model a: versions 1 -> 1, 2"},
		{"a/1/x a/2/y", "a/2/z a/3/x", "model a: versions 1, 2 -> 2, 3\nmodel a: version 2 has other content"},
		{"a/1/x a/3/y", "a/1/x a/3/z", "model a: version 3 has other content"},
		{"a/1/x", "b/1/x b/2/y", "model b: new, versions 1, 2\nmodel a: removed"},
		{"a/1/x a/2/x", "b/1/x", "model b: new, version 1\nmodel a: removed"},
		{"a/1/x a/2/x", "a/1/x@d a/2/x@d", "model a: other settings, m/config.yaml"},
		{"a/1/x@d", "a/1/x", "model a: other settings, m/config.yaml"},
	} {
		if got := strings.Join(modelDifferences(models(c.old), models(c.next)), "\n"); got != c.want {
			t.Errorf("%s -> %s:\n%s\nwant\n%s", c.old, c.next, got, c.want)
		}
	}
}
