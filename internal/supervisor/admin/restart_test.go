package admin

import (
	"context"
	"net/http"
	"reflect"
	"testing"

	"preforkd/internal/ipc"
)

func TestParseSlot(t *testing.T) {
	for text, want := range map[string]int{
		"0": 0, "17": 17, "": -1, "-1": -1, "+1": -1, " 1": -1, "one": -1, "1.0": -1, "9999999": -1, "99999999999999999999": -1,
	} {
		n, err := ParseSlot(text)
		if err != nil {
			checkFailure(t, err, ipc.ExitUsage, "slot: ")
			n = -1
		}
		if n != want {
			t.Errorf("%q: %d, not %d", text, n, want)
		}
	}
}

func TestRestartCrosses(t *testing.T) {
	var asked RestartRequest
	var answer error
	result := RestartResult{Pool: "main", Replaced: []int{0, 1}, Message: "done"}
	s := &service{Log: NewLog(1), restart: func(_ context.Context, r RestartRequest) (RestartResult, error) {
		asked = r
		return result, answer
	}}
	path, _ := serve(t, s)
	c := dial(t, path)
	for _, want := range []RestartRequest{{Slot: 3}, {Pool: "a&b"}, {All: true}, {All: true, Pool: "x", NoWait: true}} {
		got, err := c.Restart(t.Context(), want)
		if err != nil || !reflect.DeepEqual(got, result) || asked != want {
			t.Errorf("%+v, %v: asked %+v, want %+v", got, err, asked, want)
		}
	}
	answer = &ipc.Failure{Exit: ipc.ExitRolledBack, What: "slot 1 keeps its worker", Try: "see"}
	got, err := c.Restart(t.Context(), RestartRequest{All: true})
	checkFailure(t, err, ipc.ExitRolledBack, "slot 1 keeps its worker\n  try: see")
	if got.Exit != ipc.ExitRolledBack || len(got.Replaced) != 2 {
		t.Errorf("%+v", got)
	}
	result, answer = RestartResult{}, &ipc.Failure{Exit: ipc.ExitTryAgain, What: "busy"}
	_, err = c.Restart(t.Context(), RestartRequest{Slot: 1})
	checkFailure(t, err, ipc.ExitTryAgain, "busy")
	for _, query := range []string{"", "?slot=1&all=true", "?slot=x", "?slot=", "?all=maybe"} {
		if _, err := c.do(t.Context(), http.MethodPost, "/v1/restart"+query, nil); err == nil {
			t.Errorf("%q was accepted", query)
		}
	}
}
