package supervisor

import (
	"strings"
	"testing"
)

// TestWatching has the states of a directory at one look after the other, as name=state, and the
// models that are to be loaded after each.
func TestWatching(t *testing.T) {
	for name, looks := range map[string][][2]string{
		"served, and nothing changes": {{"a=1 b=1", ""}, {"a=1 b=1", ""}, {"a=1 b=1", ""}},
		"appears":                     {{"a=1", ""}, {"a=1 c=1", ""}, {"a=1 c=1", "c"}, {"a=1 c=1", ""}},
		"appears while it is written": {{"a=1", ""}, {"c=1", ""}, {"c=2", ""}, {"c=3", ""}, {"c=3", "c"}, {"c=3", ""}},
		"is there before the first":   {{"a=1 c=1", ""}, {"a=1 c=1", "c"}, {"a=1 c=1", ""}},
		"changes":                     {{"a=1", ""}, {"a=2", ""}, {"a=2", "a"}, {"a=2", ""}},
		"bad until it changes":        {{"c=1", ""}, {"c=1", "c"}, {"c=1", ""}, {"c=2", ""}, {"c=2", "c"}},
		"changes there and back":      {{"a=1", ""}, {"a=2", ""}, {"a=1", ""}, {"a=1", ""}},
		"goes and comes back":         {{"a=1", ""}, {"", ""}, {"a=1", ""}, {"a=1", "a"}},
		"two at once":                 {{"", ""}, {"d=1 c=1", ""}, {"c=1 d=1", "c d"}},
	} {
		w := &watching{}
		for i, look := range looks {
			now := map[string]string{}
			for pair := range strings.FieldsSeq(look[0]) {
				model, state, _ := strings.Cut(pair, "=")
				now[model] = state
			}
			if got := strings.Join(w.look(now, func(name string) bool { return name == "a" || name == "b" }), " "); got != look[1] {
				t.Errorf("%s: look %d: %q, want %q", name, i, got, look[1])
			}
		}
	}
}
