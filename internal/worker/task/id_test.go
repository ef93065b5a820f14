package task

import (
	"strings"
	"testing"
)

func TestID(t *testing.T) {
	for _, model := range []string{"digits", "a.b", "a*>b c", "ä/ö", "=41", "A_b-9"} {
		id := newID(model, false, "", "")
		if got, ok := ParseID(string(id)); !ok || got != id || id.Model() != model {
			t.Errorf("%q: id %s is of model %q, %v", model, id, id.Model(), ok)
		}
		if strings.ContainsAny(string(id), " *>/\\") {
			t.Errorf("%q: id %s is no subject", model, id)
		}
	}
	if first := newID("m", false, "", ""); first == newID("m", false, "", "") {
		t.Error("two have one id")
	}
	one := newID("m", false, "t", "key")
	for _, other := range []ID{newID("m", false, "t", "key2"), newID("m", false, "t2", "key"), newID("n", false, "t", "key"), newID("m", false, "", "tkey")} {
		if one == other {
			t.Errorf("%s is of two keys", one)
		}
	}
	if one != newID("m", false, "t", "key") {
		t.Error("a key has two ids")
	}
}

func TestIDsThatWereNeverGivenOut(t *testing.T) {
	good := string(newID("m", true, "", ""))
	for _, text := range []string{
		"", ".", "..", "m.hi", "m.hi.", "m.mid." + good[5:], "." + good[1:], good + "x", good[:len(good)-1], strings.ToUpper(good),
		"=4D" + good[1:], "=zz" + good[1:], "=4" + good[1:], "../" + good, "m/.." + good[1:], "*" + good[1:], ">" + good[1:],
		strings.Repeat("m", 10000) + good[1:], good + "\x00",
	} {
		if id, ok := ParseID(text); ok {
			t.Errorf("%q was taken for %s", text, id)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("m.hi.abcdefghijklmnopqrstuvwxyz")
	f.Add("=2E.lo.abcdefghijklmnopqrstuvwxyz")
	f.Add("m.hi.*")
	f.Fuzz(func(t *testing.T, text string) {
		id, ok := ParseID(text)
		if !ok {
			return
		}
		if string(id) != text || strings.ContainsAny(text, " *>/\\\r\n\t") || strings.Count(text, ".") != 2 {
			t.Errorf("%q is no subject", text)
		}
		if again, ok := ParseID(encode(id.Model()) + text[strings.IndexByte(text, '.'):]); !ok || again != id {
			t.Errorf("%q has two forms", text)
		}
	})
}
