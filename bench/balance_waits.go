package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"preforkd/bench/proc"
	"preforkd/internal/load"
)

const (
	waitsAtOnce = 5000
	waitsLast   = time.Second
	waitsPath   = "/second"
)

// waits is what so many waits at once took of one service.
type waits struct {
	Name  string `json:"name"`
	Round int    `json:"round"`
	// First is the time of all in the warm-up, Walls of those after it, over the same
	// connections: from when all had been told to send until the last answer had come.
	First time.Duration   `json:"first_ns"`
	Walls []time.Duration `json:"walls_ns"`
	// CPU is the process's for a wait, in the last of Walls.
	CPU time.Duration `json:"cpu_ns"`
	// The process's memory that nobody shares: when one request had been answered; after the
	// warm-up, when its connections were closed; while all wait; and when all have been answered,
	// with their connections open.
	Fresh, Grown, Waiting, Open int64
}

func (w *waits) wall() float64 {
	var all []float64
	for _, d := range w.Walls {
		all = append(all, d.Seconds())
	}
	return median(all)
}

// total is what a wait takes of a process that had none before; beyond, of one that had as many.
func (w *waits) total() float64  { return float64(w.Waiting-w.Fresh) / waitsAtOnce / 1000 }
func (w *waits) beyond() float64 { return float64(w.Waiting-w.Grown) / waitsAtOnce / 1000 }
func (w *waits) idle() float64   { return float64(w.Open-w.Fresh) / waitsAtOnce / 1000 }

// manyWaits is the raw data of balance-waits.
type manyWaits struct {
	Runs []*waits `json:"runs"`
}

// balanceWaits has one worker wait for 5,000 clients at once.
func balanceWaits(ctx context.Context, l *lab) (*result, error) {
	version, err := ourVersion(ctx, l)
	if err != nil {
		return nil, err
	}
	if _, err := buildBalance(ctx, l); err != nil {
		return nil, err
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // of the clients, which share the cores
	raw := &manyWaits{}
	stands := []func() (*standing, error){
		func() (*standing, error) {
			return l.standOf(ctx, 1, ours, "lab: true\nhttp: {worker_header: true}\nlayers: {async: {max: 6000}}\nroutes:\n  "+waitsPath+": {layer: async, sleep: 1s}\n", l.digits())
		},
		func() (*standing, error) {
			return l.standBalance(ctx, ideal, []string{"GOMAXPROCS=" + strconv.Itoa(runtime.NumCPU())}, "-permits", "6000")
		},
	}
	for round := range l.times(3) {
		for i := range stands {
			s, err := stands[(i+round)%len(stands)]()
			if err != nil {
				return nil, err
			}
			w, err := waitOn(ctx, s)
			s.end()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			w.Round = round
			l.say("round %d: %s: %v the first time, then %v; %.1f KB a wait, %.1f KB where the heap is grown, %.1f KB an idle connection, %.0f µs CPU a wait", round+1, w.Name,
				w.First.Round(time.Millisecond), w.Walls, w.total(), w.beyond(), w.idle(), micros(w.CPU))
			raw.Runs = append(raw.Runs, w)
		}
	}
	return &result{
		Title:  fmt.Sprintf("%d waits of %v at once in one worker, layer async", waitsAtOnce, waitsLast),
		Tables: []table{raw.table()},
		Goals: []goal{
			goal{Text: "wall time of all, warm", Limit: 1.3, AtMost: true, Unit: " s", Values: raw.column(ours, (*waits).wall)}.judge(),
			goal{Text: "memory of the worker for a wait, heap grown", Limit: 20, AtMost: true, Unit: " KB", Values: raw.column(ours, (*waits).beyond)}.judge(),
			goal{Text: "memory of the worker for a wait, from nothing", Limit: 20, AtMost: true, Unit: " KB", Values: raw.column(ours, (*waits).total)}.judge(),
		},
		Notes: []string{
			"preforkd: " + version + ", layers.async.max: 6000; " + ideal + ": bench/peers/balance, one process of fasthttp that sleeps, for what clients and kernel take",
			"wall time, warm: over connections that are open, from when all clients are told to send until the last of them has its answer; the clients are on the same cores",
			"memory: what the worker shares with nobody (Private of smaps_rollup), KB are 1,000 bytes. While all wait, less: heap grown, what it was after a first wave, with that wave's connections closed; from nothing, what it was " +
				"when one request had been answered, so that heap, stacks and buffers of all connections are in it. A connection that is idle: after the last wave, less what it was at first. The kernel's memory for sockets is in none",
		},
		Raw: raw,
	}, nil
}

// waitOn measures s.
func waitOn(ctx context.Context, s *standing) (*waits, error) {
	w := &waits{Name: s.name}
	pid, err := s.onlyWorker()
	if err != nil {
		return nil, err
	}
	if w.Fresh, err = proc.Private(pid); err != nil {
		return nil, err
	}
	first, err := gather(ctx, s.address)
	if err != nil {
		return nil, err
	}
	w.First, err = first.wave(nil)
	first.close()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.quiet(ctx), rest(ctx, time.Second)); err != nil {
		return nil, err
	}
	if w.Grown, err = proc.Private(pid); err != nil {
		return nil, err
	}
	c, err := gather(ctx, s.address)
	if err != nil {
		return nil, err
	}
	defer c.close()
	for i := range 3 {
		runtime.GC()
		before, err := s.server.CPU()
		if err != nil {
			return nil, err
		}
		var look func() error
		if i == 0 { // it holds the worker up: its time does not count
			look = func() (err error) {
				w.Waiting, err = proc.Private(pid)
				return err
			}
		}
		d, err := c.wave(look)
		if err != nil {
			return nil, err
		}
		after, err := s.server.CPU()
		if err != nil {
			return nil, err
		}
		if w.CPU = (after - before) / waitsAtOnce; look == nil {
			w.Walls = append(w.Walls, d)
		}
	}
	w.Open, err = proc.Private(pid)
	return w, err
}

// onlyWorker returns the process that answers, which has answered then.
func (s *standing) onlyWorker() (int, error) {
	r, err := http.Get("http://" + s.address + waitsPath)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, r.Body)
	if err := errors.Join(err, r.Body.Close()); err != nil {
		return 0, err
	}
	http.DefaultClient.CloseIdleConnections()
	name := r.Header.Get("X-Preforkd-Worker") // pool/slot/pid
	if s.ops == "" {
		return s.server.PID(), nil
	}
	pid, err := strconv.Atoi(name[strings.LastIndexByte(name, '/')+1:])
	if err != nil {
		return 0, fmt.Errorf("the worker is called %q: %w", name, err)
	}
	return pid, nil
}

// gathering is as many clients as wait at once, with a connection each.
type gathering struct {
	conns []net.Conn
	reads []*bufio.Reader
}

// gather opens the connections, some at a time: a listening socket has room for so many.
func gather(ctx context.Context, address string) (*gathering, error) {
	g := &gathering{conns: make([]net.Conn, waitsAtOnce), reads: make([]*bufio.Reader, waitsAtOnce)}
	errs := make([]error, waitsAtOnce)
	room := make(chan struct{}, 64)
	var dials sync.WaitGroup
	for i := range g.conns {
		room <- struct{}{}
		dials.Go(func() {
			defer func() { <-room }()
			var d net.Dialer
			if g.conns[i], errs[i] = d.DialContext(ctx, "tcp", address); errs[i] == nil {
				g.reads[i] = bufio.NewReaderSize(g.conns[i], 1024)
			}
		})
	}
	dials.Wait()
	if err := errors.Join(errs...); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func (g *gathering) close() {
	for _, c := range g.conns {
		if c != nil {
			_ = c.Close() // nothing is buffered in it
		}
	}
}

// wave has all send at once and returns how long it took until the last one had its answer. look
// is called when all have sent and none can have been answered.
func (g *gathering) wave(look func() error) (time.Duration, error) {
	request := load.Get(waitsPath)
	errs := make([]error, len(g.conns))
	start := make(chan struct{})
	var sent, answered sync.WaitGroup
	sent.Add(len(g.conns))
	for i, c := range g.conns {
		answered.Go(func() {
			<-start
			_ = c.SetDeadline(time.Now().Add(time.Minute)) // an error is the write's, too
			_, err := c.Write(request)
			sent.Done()
			if err == nil {
				err = answerOK(g.reads[i])
			}
			errs[i] = err
		})
	}
	begun := time.Now()
	close(start)
	sent.Wait()
	var lookErr error
	if look != nil {
		time.Sleep(waitsLast*9/10 - time.Since(begun)) // until the worker has read all of them
		lookErr = look()
		if time.Since(begun) > waitsLast {
			lookErr = errors.Join(lookErr, fmt.Errorf("looking at the worker took until %v after the first request", time.Since(begun)))
		}
	}
	answered.Wait()
	return time.Since(begun), errors.Join(append(errs, lookErr)...)
}

// answerOK reads an answer.
func answerOK(in *bufio.Reader) error {
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r.Body)
	if r.StatusCode != http.StatusOK {
		err = errors.Join(err, fmt.Errorf("status %d", r.StatusCode))
	}
	return errors.Join(err, r.Body.Close())
}

func (m *manyWaits) column(name string, number func(*waits) float64) (values []float64) {
	for _, w := range m.Runs {
		if w.Name == name {
			values = append(values, number(w))
		}
	}
	return values
}

func (m *manyWaits) table() table {
	t := table{head: []string{"service", "first wave s", "warm s", "min–max", "CPU µs a wait", "process MB at first", "while all wait", "KB a wait, from nothing", "KB a wait, heap grown", "KB an idle connection"}}
	for _, name := range []string{ours, ideal} {
		middle := func(number func(*waits) float64) string { return digits(median(m.column(name, number))) }
		t.add(name, middle(func(w *waits) float64 { return w.First.Seconds() }), middle((*waits).wall), spread(m.column(name, (*waits).wall)),
			middle(func(w *waits) float64 { return micros(w.CPU) }),
			middle(func(w *waits) float64 { return float64(w.Fresh) / 1e6 }), middle(func(w *waits) float64 { return float64(w.Waiting) / 1e6 }),
			middle((*waits).total), middle((*waits).beyond), middle((*waits).idle))
	}
	return t
}
