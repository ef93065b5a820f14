package admin

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"preforkd/internal/ipc"
)

func TestParseGeneration(t *testing.T) {
	for text, want := range map[string]uint64{"1": 1, "18446744073709551615": 1<<64 - 1, "0": 0, "": 0, "-1": 0, "+1": 0, "one": 0, "1.0": 0, "18446744073709551616": 0} {
		n, err := ParseGeneration(text)
		if n != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", text, n, err)
		}
		if err != nil {
			checkFailure(t, err, ipc.ExitUsage, "generation: ")
		}
	}
}

func TestRollbackCrosses(t *testing.T) {
	var asked RollbackRequest
	var answer error
	result := ReloadResult{Message: "done", Outcome: "committed", Generation: 3, Differences: []string{"workers: 1 -> 2"}}
	s := &service{Log: NewLog(1), back: func(_ context.Context, r RollbackRequest, p func(Progress)) (ReloadResult, error) {
		asked = r
		if answer != nil {
			return ReloadResult{}, answer
		}
		p(Progress{Text: "canary"})
		return result, nil
	}}
	path, _ := serve(t, s)
	c := dial(t, path)
	for _, req := range []RollbackRequest{{}, {Generation: 7}, {Generation: 1<<64 - 1, NoWait: true}} {
		var lines []string
		got, err := c.Rollback(context.Background(), req, func(p Progress) { lines = append(lines, p.Text) })
		if err != nil || asked != req || !reflect.DeepEqual(got, result) || fmt.Sprint(lines) != "[canary]" {
			t.Errorf("%+v arrived as %+v: %+v, %v, %v", req, asked, got, lines, err)
		}
	}
	answer = &ipc.Failure{Exit: ipc.ExitUsage, What: "no such generation", Try: "another"}
	_, err := c.Rollback(context.Background(), RollbackRequest{Generation: 9}, nil)
	checkFailure(t, err, ipc.ExitUsage, "no such generation")
}

func TestGenerationsCross(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.Local)
	s := &service{Log: NewLog(1), kept: []Generation{
		{Number: 3, Time: at, Cause: "rollback to 1", RollbackTo: 1, Serves: true, Differences: []string{"workers: 2 -> 1"}, Models: []ModelVersion{{"digits", "1", "ab"}}},
		{Number: 2, Time: at, Cause: "HUP", Differences: []string{"workers: 1 -> 2", "model \x1b[2J: removed"}, Models: []ModelVersion{}},
		{Number: 1, Time: at, Cause: "start", Models: []ModelVersion{}},
	}}
	path, _ := serve(t, s)
	got, err := dial(t, path).Generations(context.Background())
	if err != nil || len(got) != 3 || got[0].Models[0] != s.kept[0].Models[0] || !got[0].Serves || got[1].Cause != "HUP" {
		t.Errorf("%+v, %v", got, err)
	}
	var text strings.Builder
	if err := GenerationTable(&text, s.kept); err != nil {
		t.Fatal(err)
	}
	want := "GENERATION  COMMITTED            CAUSE          STATE\n" +
		"3           2026-03-04 05:06:07  rollback to 1  serves\n" +
		"    workers: 2 -> 1\n" +
		"2           2026-03-04 05:06:07  HUP            kept\n" +
		"    workers: 1 -> 2\n" +
		"    model \ufffd[2J: removed\n" +
		"1           2026-03-04 05:06:07  start          kept\n"
	if text.String() != want {
		t.Errorf("%s", text.String())
	}
}
