package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"preforkd/internal/ipc"
)

func TestRequestOnTheWire(t *testing.T) {
	for _, c := range []struct {
		within time.Duration
		want   string
	}{
		{0, `{"kind":"status","id":7,"body":{"a":1}}`},
		{1500 * time.Millisecond, `{"kind":"status","id":7,"body":{"a":1},"within_ms":1500}`},
		{1, `{"kind":"status","id":7,"body":{"a":1},"within_ms":1}`},
	} {
		data, err := request("status", 7, map[string]int{"a": 1}, c.within)
		if err != nil || string(data) != c.want {
			t.Errorf("%s, %v; want %s", data, err, c.want)
		}
	}
	if _, err := request("x", 1, func() {}, 0); err == nil {
		t.Error("a function was encoded")
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, s := range []string{
		"", "x", "null", "[]", "{}", `{"kind":"x"}`, `{"id":1}`, `{"kind":"x","id":0}`, `{"kind":"x","id":-1}`,
		`{"kind":"x","id":1,"within_ms":-1}`, `{"kind":"x","id":1}{}`, `{"kind":"reply","id":0}`, `{"kind":1,"id":1}`,
	} {
		if m, err := decode([]byte(s)); err == nil || !strings.HasPrefix(err.Error(), "the other side sent ") {
			t.Errorf("%s: %+v, %v", s, m, err)
		}
	}
	if m, err := decode([]byte(`{"kind":"x","id":1,"later":{"field":1}}`)); err != nil || m.Kind != "x" {
		t.Errorf("a field of a later version: %v", err)
	}
}

// TestRefusalAlwaysFits: whatever the error is, the asker gets an answer, and the exit
// status survives.
func TestRefusalAlwaysFits(t *testing.T) {
	for _, text := range []string{"x", "\x01", "\xff", "\"", "<", "é", "\u2028"} {
		long := strings.Repeat(text, MaxMessage/4) // twice that, six bytes each, is too much
		if text == "x" {
			long = strings.Repeat(text, MaxMessage)
		}
		for _, err := range []error{
			errors.New(long),
			&ipc.Failure{Exit: 3, What: long, Try: long},
			fmt.Errorf("%s: %w", long, &ipc.Failure{Exit: 3, What: "w" + long}),
			&ipc.Failure{What: long}, // names no exit status
		} {
			data := refuse(1, err)
			m, decoded := decode(data)
			if len(data) > MaxMessage || decoded != nil {
				t.Errorf("%d bytes, %v", len(data), decoded)
			}
			got := refused(m.Body)
			var want, f *ipc.Failure
			if errors.As(err, &want) && want.Exit != 0 && (!errors.As(got, &f) || f.Exit != 3 || f.What == "") {
				t.Errorf("%.60v", got)
			}
		}
	}
}

func TestUnencodableResultIsRefused(t *testing.T) {
	for _, result := range []any{make(chan int), strings.Repeat("x", MaxMessage)} {
		m, err := decode(answer(3, result, nil))
		if err != nil || m.ID != 3 || m.Kind != kindRefusal || !strings.HasPrefix(refused(m.Body).Error(), "encode the reply: ") {
			t.Errorf("%+v, %v", m, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"kind":"status","id":7,"body":{"a":[1,2]},"within_ms":5}`))
	f.Add(refuse(7, &ipc.Failure{Exit: 3, What: "x", Try: "y"}))
	f.Add(refuse(0, ErrBusy))
	f.Add(answer(1, "x", nil))
	f.Add([]byte(`{"kind":"refusal","id":0,"body":{"failure":"{}"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decode(data)
		if err != nil {
			return
		}
		if m.Kind == "" || m.WithinMS < 0 {
			t.Errorf("%+v", m)
		}
		if refused(m.Body) == nil {
			t.Errorf("a refusal without an error: %s", m.Body)
		}
		var again message
		if out, err := json.Marshal(m); err != nil || json.Unmarshal(out, &again) != nil || again.ID != m.ID {
			t.Errorf("%s, %v", out, err)
		}
	})
}
