package admin

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

func FuzzReloadLine(f *testing.F) {
	f.Add([]byte(`{"progress":{"text":"x","ready":1,"of":2}}`))
	f.Add([]byte(`{"result":{"exit":4,"message":"x","took_seconds":1.5}}`))
	f.Add([]byte(`{"result":{"exit":-1}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		l, err := parseReloadLine(line)
		if err != nil {
			return
		}
		if r := l.Result; r != nil && (r.Exit < 0 || r.Exit > 255 || r.Exit > 0 && r.Message == "") {
			t.Errorf("no command can end with %+v", r)
		}
	})
}

func FuzzQuery(f *testing.F) {
	f.Add("after=1&follow=1")
	f.Add("follow=%zz")
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseQuery(raw, []string{"after", "follow"})
		if err != nil {
			if failure(err).Exit != 64 {
				t.Error(err)
			}
			return
		}
		for key, values := range q {
			if key != "after" && key != "follow" || len(values) != 1 {
				t.Errorf("%q: %q", raw, q)
			}
		}
	})
}

// FuzzTable: whatever a service says, the table of it is text and steers no terminal.
func FuzzTable(f *testing.F) {
	b, err := json.Marshal(example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"uptime_seconds":-1e9,"pools":[{"slots":[{"pid":1,"pss_bytes":-5,"models":["\u009b2J\u202e"]}]}],"events":[{"kind":"\ta"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var st Status
		if json.Unmarshal(text, &st) != nil {
			return
		}
		var out bytes.Buffer
		if err := Table(&out, st); err != nil {
			t.Fatal(err)
		}
		if i := strings.IndexFunc(out.String(), func(r rune) bool { return r != '\n' && unicode.IsControl(r) }); i >= 0 {
			t.Errorf("%q", out.String()[i:])
		}
	})
}

func FuzzDuration(f *testing.F) {
	f.Add([]byte("1.5"))
	f.Add([]byte("-9223372036.854775808"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var d, again Duration
		if json.Unmarshal(text, &d) != nil {
			return
		}
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &again); err != nil && d > -1<<62 && d < 1<<62 {
			t.Errorf("%s: %v", b, err)
		}
	})
}
