package main

import (
	"strings"
	"testing"
)

func TestOperandsLast(t *testing.T) {
	for given, want := range map[string]string{
		"preforkd scale -1":                        "preforkd scale -- -1",
		"preforkd scale +2 --pool tasks --json":    "preforkd scale --pool tasks --json -- +2",
		"preforkd scale --admin /a -3 -c /b":       "preforkd scale --admin /a -c /b -- -3",
		"preforkd scale --pool=3 4":                "preforkd scale --pool=3 -- 4",
		"preforkd scale --pool 3 4":                "preforkd scale --pool 3 -- 4",
		"preforkd scale -- -1 --pool":              "preforkd scale -- -1 --pool",
		"preforkd scale":                           "preforkd scale --",
		"preforkd scale --pool":                    "preforkd scale --pool --",
		"preforkd serve -w 2 --listen 127.0.0.1:1": "preforkd serve -w 2 --listen 127.0.0.1:1",
		"preforkd models release m --admin /a":     "preforkd models release --admin /a -- m",
		"preforkd models --json":                   "preforkd models --json",
		"preforkd":                                 "preforkd",
	} {
		if got := strings.Join(operandsLast(strings.Fields(given)), " "); got != want {
			t.Errorf("%s: %s, want %s", given, got, want)
		}
	}
}
