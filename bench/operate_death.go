package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"preforkd/internal/load"
)

// death is one service whose model ends workers, until that is quarantined.
type death struct {
	Deaths     int           `json:"deaths"`     // until the quarantine
	Later      int           `json:"later"`      // in requests that were under way then
	Quarantine time.Duration `json:"quarantine"` // after the first deadly request
	Owned      int           `json:"owned"`      // failures of others, on connections that a dead worker had answered last
	Fresh      int           `json:"fresh"`      // the same, on connections that nobody had answered
	Stray      int           `json:"stray"`      // other failures of others
	After      int           `json:"after"`      // failures of others once every worker was back
	Closed     uint64        `json:"closed"`     // connections of others, between two requests
	Requests   uint64        `json:"requests"`   // of the others
	Failed     load.Counts   `json:"failed"`
}

const (
	deadlyClients = 4
	otherClients  = 28
	enoughDeaths  = 3 // worker.quarantine_after
)

// operateDeath has 4 of 32 clients send, in a loop, a request that ends its worker.
func operateDeath(ctx context.Context, l *lab) (*result, error) {
	if runtime.GOARCH != "amd64" {
		return nil, errors.New("a division by zero ends no process of this architecture")
	}
	version, err := ourselves.prepare(ctx, l)
	if err != nil {
		return nil, err
	}
	rounds := l.times(5)
	t := table{head: []string{
		"round", "deaths until the quarantine", "later", "after s", "requests of the 28", "failed: connection of a dead worker", "never answered before", "other", "after the last death", "closed idle",
	}}
	var raw []*death
	var until, stray, after []float64
	for round := range rounds {
		d, err := l.death(ctx)
		if err != nil {
			return nil, err
		}
		l.say("round %d of %d: %d deaths, %d later; the others: %d of %d requests failed, %d afterwards",
			round+1, rounds, d.Deaths, d.Later, d.Failed.Total(), d.Requests, d.After)
		raw = append(raw, d)
		t.add(fmt.Sprint(round+1), fmt.Sprint(d.Deaths), fmt.Sprint(d.Later), digits(d.Quarantine.Seconds()), fmt.Sprint(d.Requests),
			fmt.Sprint(d.Owned), fmt.Sprint(d.Fresh), fmt.Sprint(d.Stray), fmt.Sprint(d.After), fmt.Sprint(d.Closed))
		until, stray, after = append(until, float64(d.Deaths)), append(stray, float64(d.Stray)), append(after, float64(d.After))
	}
	most := func(text string, values []float64) goal { // a median would hide one
		return goal{Text: text + ", most of all rounds", Exact: true, Values: []float64{slices.Max(values)}}.judge()
	}
	return &result{
		Title:  "A model that dies on one request",
		Tables: []table{t},
		Goals: []goal{
			goal{Text: "deaths until the quarantine", Exact: true, Limit: enoughDeaths, Values: until}.judge(),
			most("failures of the 28 on connections that no dead worker owned", stray),
			most("failures of the 28 after the last death", after),
		},
		Notes: []string{
			"preforkd: " + version,
			fmt.Sprintf("%d clients send a division by zero (SIGFPE) to one model, %d the usual request to another, each 5 ms after an answer; two workers", deadlyClients, otherClients),
			"later: workers that were in such a request when the last death that counts came",
			"a connection belongs to the worker that answered last on it, as X-Preforkd-Worker says; one without an answer was accepted by a worker that died in its first request",
		},
		Raw: raw,
	}, nil
}

// death runs one round.
func (l *lab) death(ctx context.Context) (*death, error) {
	s := &stage{c: &ourselves, settings: quickReload}
	if err := l.begin(ctx, s); err != nil {
		return nil, err
	}
	defer s.end()
	if err := addDeadly(s.path("models/divide")); err != nil {
		return nil, err
	}
	if _, err := s.operate(ctx, "reload"); err != nil {
		return nil, err
	}
	deadly := load.Options{
		Addr: s.address(), Conns: deadlyClients, Keepalive: true, Think: badThink, Status: http.StatusServiceUnavailable,
		Request: load.Post("/v2/models/divide/infer", "application/json", []byte(division(0))),
	}
	bad, err := load.New(deadly)
	if err != nil {
		return nil, err
	}
	d := &death{}
	ended := make(chan error, 1)
	var began, settled time.Time
	report, err := s.under(ctx, load.Options{Conns: otherClients, Think: badThink}, func(*load.Generator) error {
		began = time.Now()
		go func() { // ends at Stop below
			_, err := bad.Run(ctx)
			ended <- err
		}()
		err := d.await(ctx, s, began)
		settled = time.Now()
		if err == nil {
			err = rest(ctx, of(&l.options, 10*time.Second, 2*time.Second))
		}
		bad.Stop()
		return errors.Join(err, <-ended)
	})
	if err != nil {
		return nil, err
	}
	return d, d.count(ctx, s, report, settled)
}

// await waits until the model is quarantined and every worker is back.
func (d *death) await(ctx context.Context, s *stage, began time.Time) error {
	limited, cancel := context.WithTimeout(ctx, boot)
	defer cancel()
	for {
		if err := rest(limited, 100*time.Millisecond); err != nil {
			return fmt.Errorf("no quarantine: %w", err)
		}
		events, err := s.happened(limited)
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.Kind == "quarantine" {
				d.Quarantine = e.Time.Sub(began)
			}
		}
		if d.Quarantine > 0 && s.whole(nil) == nil {
			// Those that were in such a request may end a moment later.
			if err := rest(limited, time.Second); err != nil {
				return err
			}
			if s.whole(nil) == nil {
				return nil
			}
		}
	}
}

// count sorts the failures of the clients that sent nothing deadly.
func (d *death) count(ctx context.Context, s *stage, report *load.Report, settled time.Time) error {
	events, err := s.happened(ctx)
	if err != nil {
		return err
	}
	dead := map[string]bool{}
	quarantined := false
	for _, e := range events {
		switch {
		case e.Kind == "quarantine":
			quarantined = true
		case e.Kind == "crash" && e.Model == "divide":
			dead[strconv.Itoa(e.PID)] = true
			if quarantined {
				d.Later++
			} else {
				d.Deaths++
			}
		}
	}
	d.Requests, d.Failed, d.Closed = report.Requests, report.Failures, report.Closes.Announced+report.Closes.Idle
	for _, f := range report.First {
		lost := f.Class == load.Unwritten || f.Class == load.Unanswered || f.Class == load.Partial
		if report.Start.Add(f.At).After(settled) {
			d.After++
		}
		switch {
		case lost && f.Worker == "":
			d.Fresh++
		case lost && dead[f.Worker[strings.LastIndex(f.Worker, "/")+1:]]:
			d.Owned++
		default:
			d.Stray++
		}
	}
	return nil
}

// division is a request to the model that addDeadly adds.
func division(n int) string {
	return fmt.Sprintf(`{"inputs":[{"name":"n","shape":[1],"datatype":"INT64","data":[%d]}]}`, n)
}

// addDeadly writes a model that divides 100 by its input. Where that is 0 the processor
// raises #DE, which is SIGFPE and the end of the process.
func addDeadly(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "1"), 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "1", "model.onnx"), dividing(), 0o644),
		os.WriteFile(filepath.Join(dir, "warmup.json"), []byte(`[{"request":`+division(5)+`}]`), 0o644))
}

// dividing is that model, as onnx.proto says: the numbers are its field numbers.
func dividing() []byte {
	number := func(b []byte, field int, v uint64) []byte {
		return binary.AppendUvarint(binary.AppendUvarint(b, uint64(field)<<3), v)
	}
	part := func(b []byte, field int, content []byte) []byte {
		b = binary.AppendUvarint(b, uint64(field)<<3|2)
		return append(binary.AppendUvarint(b, uint64(len(content))), content...)
	}
	text := func(b []byte, field int, s string) []byte { return part(b, field, []byte(s)) }
	const int64Type = 7
	value := func(name string) []byte { // of shape [1]
		shape := part(nil, 1, number(nil, 1, 1))
		return part(text(nil, 1, name), 2, part(nil, 1, part(number(nil, 1, int64Type), 2, shape)))
	}
	hundred := part(text(number(number(nil, 1, 1), 2, int64Type), 8, "hundred"), 9, binary.LittleEndian.AppendUint64(nil, 100))
	node := text(text(text(text(nil, 1, "hundred"), 1, "n"), 2, "y"), 4, "Div")
	graph := part(part(part(text(part(nil, 1, node), 2, "divide"), 5, hundred), 11, value("n")), 12, value("y"))
	return part(part(number(nil, 1, 7), 7, graph), 8, number(nil, 2, 13)) // opset 13
}
