package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"preforkd/bench/proc"
	"preforkd/internal/load"
)

const (
	boot    = 60 * time.Second // for a peer to become ready
	goodbye = 10 * time.Second // for it to end
	checks  = 16               // samples whose answers are checked before a measurement
)

// visit is one measurement of one peer.
type visit struct {
	Peer   string       `json:"peer"`
	Round  int          `json:"round"`
	Report *load.Report `json:"report"`
	// CPU times are per request, over all that ended in the window.
	Server time.Duration `json:"server_cpu_ns"`
	Client time.Duration `json:"client_cpu_ns"`
	Ended  uint64        `json:"ended"` // how many those were
	Window time.Duration `json:"window_ns"`
	Idle   time.Duration `json:"idle_ns"` // of all cores
	// Others is the share of the machine's cores that neither the peer nor the client
	// used, as far as it was used.
	Others float64       `json:"others"`
	PSS    map[int]int64 `json:"pss_bytes"` // by pid, after the load; the peer's first process first
	Main   int           `json:"main_pid"`
	Clocks *clocks       `json:"clocks,omitempty"` // of preforkd's inferences
}

// visit starts p, checks its answers, measures it, and ends it.
func (l *lab) visit(ctx context.Context, p peer, round int) (*visit, error) {
	port, err := proc.FreePort()
	if err != nil {
		return nil, err
	}
	server, err := proc.Start(p.service.spec(l, port))
	if err != nil {
		return nil, err
	}
	defer server.Stop(goodbye)
	address := "127.0.0.1:" + strconv.Itoa(port)
	base := "http://" + address
	starting, cancel := context.WithTimeout(ctx, boot)
	defer cancel()
	if err := p.service.ready(starting, base, server); err != nil {
		return nil, err
	}
	want, err := l.check(p, base)
	if err != nil {
		return nil, fmt.Errorf("%s answers wrongly: %w", p.name, err)
	}
	v := &visit{Peer: p.name, Round: round, PSS: map[int]int64{}, Main: server.PID()}
	g, err := load.New(load.Options{
		Addr: address, Conns: l.conns, Keepalive: true, Warmup: l.warmup, Duration: l.duration,
		Request: p.request(&l.samples[0]),
		Check: func(_ int, body []byte) error {
			if !bytes.Equal(body, want) {
				return fmt.Errorf("another answer than before: %.200q", body)
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	if err := v.measure(ctx, g, server); err != nil {
		return nil, err
	}
	if v.Report.Failures.Total() > 0 || v.Report.Answers == 0 {
		return nil, fmt.Errorf("%s: requests failed:\n%v", p.name, v.Report)
	}
	if p.service == &preforkd {
		if v.Clocks, err = readClocks(base, p.model); err != nil {
			return nil, err
		}
	}
	tree, err := server.Tree()
	for _, pid := range tree {
		if pss, err := proc.PSS(pid); err == nil { // else it has ended meanwhile
			v.PSS[pid] = pss
		}
	}
	return v, err
}

// check compares the answers to some samples with scikit-learn's, where they are known, and
// returns that to the first.
func (l *lab) check(p peer, base string) (first []byte, err error) {
	for i := range min(checks, len(l.samples)) {
		d := &l.samples[i]
		answer, err := p.ask(base, d)
		if err != nil {
			return nil, err
		}
		if p.model != "digits" {
			_, _, err = p.read(answer)
		} else {
			err = d.right(answer, p.read)
		}
		if err != nil {
			return nil, err
		}
		if i == 0 {
			first = answer
		}
	}
	return first, nil
}

// reading is what clocks and counters said at one moment.
type reading struct {
	at                     time.Time
	requests               uint64
	server, client, system time.Duration
	idle                   time.Duration // of all cores
}

func read(g *load.Generator, server *proc.Proc) (r reading, err error) {
	p := g.Progress()
	r.at, r.requests = time.Now(), p.Requests()
	var errs [3]error
	r.server, errs[0] = server.CPU()
	r.client, errs[1] = proc.SelfCPU()
	r.system, r.idle, errs[2] = busy()
	return r, errors.Join(errs[:]...)
}

// measure runs the load and reads the clocks around the measured time.
func (v *visit) measure(ctx context.Context, g *load.Generator, server *proc.Proc) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { // ends with the load; awaited below
		var err error
		v.Report, err = g.Run(ctx)
		ended <- err
	}()
	var before reading
	err := g.Wait(ctx, func(p load.Progress) bool { return p.Measuring })
	if err == nil {
		before, err = read(g, server)
	}
	if err != nil {
		cancel()
		return errors.Join(err, <-ended)
	}
	if err := <-ended; err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	after, err := read(g, server)
	if err != nil {
		return err
	}
	v.Ended = after.requests - before.requests
	n := time.Duration(max(v.Ended, 1))
	v.Server, v.Client = (after.server-before.server)/n, (after.client-before.client)/n
	others := after.system - before.system - n*(v.Server+v.Client)
	v.Idle = after.idle - before.idle
	v.Window = after.at.Sub(before.at)
	v.Others = max(others.Seconds()/(v.Window.Seconds()*float64(runtime.NumCPU())), 0)
	return nil
}

// busy returns the CPU time that all processes have used, and what a hypervisor has
// taken, since boot, and the time in which the cores had nothing to do: proc_stat(5), in ticks of 10 ms.
func busy() (used, idle time.Duration, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal …
	if len(fields) < 9 {
		return 0, 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	for i, into := range map[int]*time.Duration{1: &used, 2: &used, 3: &used, 4: &idle, 5: &idle, 8: &used} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		*into += time.Duration(n) * 10 * time.Millisecond
	}
	return used, idle, nil
}

// engineCall is one measurement of the bare engine call.
type engineCall struct {
	Version string `json:"version"`
	Calls   int64  `json:"calls"`
	CPU     int64  `json:"cpu_ns"`
	Wall    int64  `json:"wall_ns"`
}

// micros is the CPU time of one call in µs.
func (e *engineCall) micros() float64 { return float64(e.CPU) / float64(e.Calls) / 1000 }

// engine measures the bare engine call of a model for as long as a peer.
func (l *lab) engine(ctx context.Context, model string) (*engineCall, error) {
	return l.engineRows(ctx, filepath.Join(l.root, "models", model), 1, l.duration)
}

// engineRows measures calls of so many rows of the model in a folder.
func (l *lab) engineRows(ctx context.Context, dir string, rows int, d time.Duration) (*engineCall, error) {
	text, err := l.output(ctx, l.bin("engine"), "-library", l.library, "-duration", d.String(), "-rows", strconv.Itoa(rows),
		"-model", filepath.Join(dir, "1", "model.onnx"))
	if err != nil {
		return nil, err
	}
	e := new(engineCall)
	if err := json.Unmarshal([]byte(text), e); err != nil || e.Calls == 0 {
		return nil, fmt.Errorf("the engine's measurement is %q: %w", text, err)
	}
	return e, nil
}
