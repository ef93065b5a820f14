package config

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestSteps: a pool of helpers is probed where helpers say that they are ready, workers hear how
// they may ask it, and steps keep the place where they were set.
func TestSteps(t *testing.T) {
	l, err := Load(Sources{File: write(t, `
routes:
  /classify-image: {steps: ["helper:decode", model:digits-cnn/2, helper:decode/format]}
pools:
  decode:
    workers: 3
    worker: {kind: helper, command: [decode]}
    helper: {connections: 2}
  idle:
    worker: {kind: helper, command: [decode], probe: {path: /here}}
`), Explicit: true})
	if err != nil {
		t.Fatal(err)
	}
	c := l.Config.ForPool("decode")
	if !c.Worker.Other() || !c.Worker.Probed() || c.Worker.Probe.Path != helperProbe || c.Worker.ReadyBy(nil) != ReadyProbe || c.Worker.LiveBy() != LiveProbe {
		t.Errorf("%+v", c.Worker)
	}
	if got := l.Config.Pools["idle"].Worker.Probe.Path; got != "/here" {
		t.Errorf("a path that is set: %q", got)
	}
	main := l.Config.ForPool(MainPool)
	if got := main.Helpers["decode"]; got != (Helper{2, 100, 5 * time.Second}) || len(main.Helpers) != 2 {
		t.Errorf("workers hear of %+v", main.Helpers)
	}
	r := main.Routes["/classify-image"]
	if len(r.StepsAt) != 3 || !strings.HasSuffix(r.StepsAt[1], ":3:46") {
		t.Errorf("set at %q", r.StepsAt)
	}
	want := []Step{{true, "decode", "decode"}, {false, "digits-cnn", "2"}, {true, "decode", "format"}}
	var got []Step
	for _, text := range r.Steps {
		s, err := ParseStep(text)
		if err != nil {
			t.Error(err)
		}
		got = append(got, s)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], "pools.idle: no route asks") {
		t.Errorf("warnings: %q", l.Warnings)
	}
	const line = "route /classify-image: helper:decode (sync, 2 at once for each of 3 helpers, 100 more wait), model:digits-cnn/2 (compute, a permit)"
	if lines := l.Routes(); len(lines) < 1 || !strings.HasPrefix(lines[0], line) {
		t.Errorf("%q", lines)
	}
}

// TestBadSteps: each mistake is named with its place.
func TestBadSteps(t *testing.T) {
	const pools = "pools:\n  decode: {worker: {kind: helper, command: [decode]}}\n  web: {listen: [\"unix:/w\"], worker: {command: [node]}}\n"
	for text, want := range map[string]string{
		"routes: {/x: {steps: [helper:decod]}}\n" + pools:                                        `1:23: routes./x.steps[0]: there is no pool "decod"; did you mean helper:decode?`,
		"routes: {/x: {steps: [helper:web]}}\n" + pools:                                          "1:23: routes./x.steps[0]: pool web has no helpers; write pools.web.worker.kind: helper",
		"routes: {/x: {steps: [helper:decode, digits]}}\n" + pools:                               `1:38: routes./x.steps[1]: "digits" is no step; write helper:POOL`,
		"routes: {/x: {steps: [\"model:\"]}}\n":                                                  `routes./x.steps[0]: "model:" is no step`,
		"routes: {/x: {steps: [helper:a/b/c]}}\n":                                                `is no step`,
		"routes: {/x: {steps: [\"helper:a/b c\"]}}\n":                                            `is a part of a path`,
		"routes: {/x: {steps: [model:m/]}}\n":                                                    `is no step`,
		"routes: {/x: {steps: [model:m], sleep: 1s}}\nlab: true\n":                               "does sleep and steps at once",
		"routes: {/x: {steps: [model:m], layer: compute}}\n":                                     `1:40: routes./x.layer: "compute" is not for steps`,
		"routes: {/x: {steps: [" + strings.Repeat("model:m, ", 17) + "]}}\n":                     "17 steps, there may be 16",
		"routes: {/x: {steps: []}}\n":                                                            "does nothing",
		"routes: {/x: {steps: [helper:m]}}\n":                                                    `there is no pool "m"; there is no pool of helpers`,
		"worker: {kind: helper, command: [x]}\n":                                                 "1:16: worker.kind: \"helper\" is for a pool beside main",
		"pools: {a: {worker: {kind: helper}}}\n":                                                 `pools.a.worker.kind: "helper" needs a program`,
		"pools: {a: {listen: [\"unix:/w\"], worker: {kind: helper, command: [x]}}}\n":            "pools.a.listen: is of no use",
		"pools: {a: {worker: {command: [x]}, helper: {connections: 2}}}\n":                       "pools.a.helper.connections: is for helpers; write pools.a.worker.kind: helper",
		"pools: {a: {worker: {kind: helper, command: [x]}, routes: {/x: {steps: [model:m]}}}}\n": "is for our own worker",
	} {
		_, err := Load(Sources{File: write(t, text), Explicit: true})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
