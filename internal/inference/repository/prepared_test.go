package repository

import (
	"testing"

	"preforkd/internal/ipc"
)

// TestPrepared: a prepared model is loaded in place of the file; where that cannot be, the file
// is, and it is said.
func TestPrepared(t *testing.T) {
	for name, c := range map[string]struct {
		prepared string
		plain    bool
		path     string
		bad      bool
	}{
		"prepared":            {prepared: "made", path: "not there"},
		"none":                {path: "good"},
		"damaged":             {prepared: "damaged", path: "good", plain: true},
		"damaged and no file": {prepared: "damaged", path: "not there", bad: true},
	} {
		e := &engine{models: map[string]*model{"good": classifier(), "made": classifier()}}
		f := file("m", "1")
		f.Prepared, f.Path = c.prepared, c.path
		r, err := Load(e, []ipc.ModelFile{f})
		if (err != nil) != c.bad {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		m, err := r.Find("m", "1")
		if err != nil || (m.Plain != nil) != c.plain {
			t.Errorf("%s: %v, loaded plainly: %v", name, err, m.Plain)
		}
		r.Close()
		if e.open != 0 {
			t.Errorf("%s: %d models stay open", name, e.open)
		}
	}
}
