package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"

	"preforkd/bench/proc"
)

// One worker without a supervisor, with and without what reloads need of it:
// bench/peers/worker.
var (
	wrapped = peer{"wrapped", loneWorker("wrapped"), predictJSON}
	plain   = peer{"plain", loneWorker("plain", "-plain"), predictJSON}
)

func loneWorker(name string, flags ...string) *service {
	return &service{
		name:    name,
		prepare: func(ctx context.Context, l *lab) (string, error) { return "", l.buildPeer(ctx, "worker") },
		spec: func(l *lab, port int) proc.Spec {
			args := []string{l.bin("worker"), "-listen", "127.0.0.1:" + strconv.Itoa(port), "-library", l.library, "-models", filepath.Join(l.root, "models")}
			return proc.Spec{
				Name: name, Dir: l.root, Log: filepath.Join(l.dir, "logs", name+".log"), Env: []string{"GOMAXPROCS=1"},
				Args: append(args, flags...),
			}
		},
		ready: func(ctx context.Context, base string, p *proc.Proc) error {
			d := digit{pixels: "[0" + strings.Repeat(",0", 63) + "]"}
			return p.AwaitReady(ctx, func() error {
				_, err := fetch(http.MethodPost, base+"/predict", predictBody(&d))
				return err
			})
		},
	}
}

// overhead measures both in turn, the one that begins in turn as well.
func overhead(ctx context.Context, l *lab) (*result, error) {
	if _, err := wrapped.service.prepare(ctx, l); err != nil {
		return nil, err
	}
	if l.short {
		l.warmup, l.duration = l.warmup/4, l.duration/4
	}
	raw := &served{Conns: l.conns, Warmup: l.warmup, Duration: l.duration, Rounds: l.times(5)}
	chosen := []peer{wrapped, plain}
	for round := range raw.Rounds {
		for i := range chosen {
			p := chosen[(i+round)%len(chosen)]
			v, err := l.visit(ctx, p, round)
			if err != nil {
				return nil, err
			}
			l.say("round %d of %d: %-8s %7.0f requests/s  %6.2f µs CPU a request", round+1, raw.Rounds, p.name, v.Report.Throughput(), micros(v.Server))
			raw.Visits = append(raw.Visits, v)
		}
	}
	return &result{
		Title:  "What the accept wrapper and the scoreboard cost: one worker with and without them",
		Tables: []table{raw.table(chosen)},
		Goals: []goal{
			goal{
				Text: "throughput with both, × without", Limit: 0.97, Unit: " ×",
				Values: ratios(raw.column(wrapped.name, throughput), raw.column(plain.name, throughput)),
			}.judge(),
			goal{
				Text: "server CPU of a request with both, × without", Limit: 1.03, AtMost: true, Unit: " ×",
				Values: ratios(raw.column(wrapped.name, serverCPU), raw.column(plain.name, serverCPU)),
			}.judge(),
		},
		Notes: append(raw.notes(nil), fmt.Sprintf("GOMAXPROCS=1, %d connections, POST /predict; wrapped also has the handoff queue's listener", l.conns)),
		Raw:   raw,
	}, nil
}
