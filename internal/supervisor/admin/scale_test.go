package admin

import (
	"context"
	"testing"

	"preforkd/internal/ipc"
)

func TestParseWorkers(t *testing.T) {
	for _, c := range []struct {
		text     string
		n        int
		relative bool
		ok       bool
	}{
		{"4", 4, false, true},
		{"+1", 1, true, true},
		{" 1", 1, true, true},
		{"-2", -2, true, true},
		{"0", 0, false, true},
		{"", 0, false, false},
		{"two", 0, false, false},
		{"1.5", 0, false, false},
		{"+-1", 0, false, false},
		{"  1", 0, false, false},
		{"99999999999999999999", 0, false, false},
		{"9999999", 0, false, false},
	} {
		n, relative, err := ParseWorkers(c.text)
		if n != c.n || relative != c.relative || (err == nil) != c.ok {
			t.Errorf("%q: %d, %v, %v", c.text, n, relative, err)
		}
		if err != nil {
			checkFailure(t, err, ipc.ExitUsage, "workers: ")
		}
	}
}

func FuzzWorkers(f *testing.F) {
	f.Add("+1")
	f.Add(" 7")
	f.Fuzz(func(t *testing.T, text string) {
		n, relative, err := ParseWorkers(text)
		if err == nil && (n < -maxChange || n > maxChange || n < 0 && !relative) {
			t.Errorf("%q: %d, %v", text, n, relative)
		}
	})
}

func TestScaleCrosses(t *testing.T) {
	var asked ScaleRequest
	var answer error
	result := ScaleResult{Pool: "main", Before: 2, Workers: 3, Message: "done"}
	s := &service{Log: NewLog(1), scale: func(_ context.Context, r ScaleRequest) (ScaleResult, error) {
		asked = r
		return result, answer
	}}
	path, _ := serve(t, s)
	c := dial(t, path)
	for _, want := range []ScaleRequest{
		{Workers: 4}, {Workers: 1, Relative: true, Pool: "a&b"}, {Workers: -1, Relative: true, NoWait: true}, {Relative: true},
	} {
		got, err := c.Scale(t.Context(), want)
		if err != nil || got != result || asked != want {
			t.Errorf("%+v, %v: asked %+v, want %+v", got, err, asked, want)
		}
	}
	answer = &ipc.Failure{Exit: ipc.ExitRolledBack, What: "worker 3 failed", Try: "see"}
	got, err := c.Scale(t.Context(), ScaleRequest{Workers: 4})
	checkFailure(t, err, ipc.ExitRolledBack, "worker 3 failed\n  try: see")
	if got.Exit != ipc.ExitRolledBack || got.Workers != 3 {
		t.Errorf("%+v", got)
	}
	result, answer = ScaleResult{}, &ipc.Failure{Exit: ipc.ExitTryAgain, What: "busy"}
	if got, err = c.Scale(t.Context(), ScaleRequest{Workers: 4}); got != (ScaleResult{}) {
		t.Errorf("%+v", got)
	}
	checkFailure(t, err, ipc.ExitTryAgain, "busy")
}
