package scoreboard

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// TestEveryCounterIsSummed finds a counter that Counts or Add forgot.
func TestEveryCounterIsSummed(t *testing.T) {
	var f Fields
	fields, n := reflect.ValueOf(&f).Elem(), 0
	for i := range fields.NumField() {
		if !fields.Type().Field(i).IsExported() {
			continue
		}
		switch c := fields.Field(i).Addr().Interface().(type) {
		case *Counter:
			c.Add(1)
			n++
		default: // of several
			list := fields.Field(i)
			for k := 0; list.Kind() == reflect.Array && k < list.Len(); k++ {
				if c, ok := list.Index(k).Addr().Interface().(*Counter); ok {
					c.Add(1)
					n++
				}
			}
		}
	}
	row := Row{Fields: &f, Layers: &Layers{}}
	for i := range knownLayers {
		row.Layers[i].Refused.Add(1)
		n++
	}
	sum := row.Counts()
	sum.Add(row.Counts())
	flat := fmt.Sprint(sum)
	if got := strings.Count(flat, "2"); got != n || strings.ContainsAny(flat, "01") {
		t.Errorf("%d counters, sums %s", n, flat)
	}
}

func TestRespond(t *testing.T) {
	var f Fields
	for _, status := range []int{100, 200, 204, 301, 404, 599, 0, -1, 99, 600, 1 << 40} {
		f.Respond(status)
	}
	if got := f.Counts().Responses; got != [5]uint64{1, 2, 1, 1, 6} {
		t.Error(got)
	}
}

func TestExitInWords(t *testing.T) {
	for e, want := range map[Exit]string{
		ExitNone: "none", ExitUnknown: "unknown", Exited(0): "exit status 0",
		Exited(3 << 8): "exit status 3", Exited(9): "signal 9",
	} {
		if e.String() != want {
			t.Errorf("%q, want %q", e, want)
		}
	}
}
