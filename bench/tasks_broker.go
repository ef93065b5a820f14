package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"preforkd/bench/proc"
	"preforkd/internal/load"
)

// tasksBroker weighs an idle broker, and times its way back with many tasks.
func tasksBroker(ctx context.Context, l *lab) (*result, error) {
	s, err := taskStage(ctx, l, 0)
	if err != nil {
		return nil, err
	}
	defer s.end()
	st, err := s.status(ctx)
	if err != nil {
		return nil, err
	}
	if err := rest(ctx, of(&l.options, 5*time.Second, time.Second)); err != nil {
		return nil, err
	}
	rss, err := residentBytes(st.Tasks.PID)
	if err != nil {
		return nil, err
	}
	n := of(&l.options, 100_000, 500)
	if err := s.fillFast(ctx, n); err != nil {
		return nil, err
	}
	var back []float64
	for range l.times(5) {
		took, err := s.restartBroker(ctx)
		if err != nil {
			return nil, err
		}
		back = append(back, took.Seconds())
	}
	t := table{head: []string{"broker", "", "min–max"}}
	t.add("resident, idle", digits(float64(rss)/(1<<20))+" MB", "")
	t.add(fmt.Sprintf("back after KILL, %d tasks", n), digits(median(back))+" s", spread(back))
	return &result{
		Title: "The broker", Tables: []table{t},
		Goals: []goal{
			goal{Text: "resident memory, idle", Limit: 40, AtMost: true, Unit: " MB", Values: []float64{float64(rss) / (1 << 20)}}.judge(),
			goal{Text: fmt.Sprintf("from KILL to ready with %d tasks", n), Limit: 1, AtMost: true, Unit: " s", Values: back}.judge(),
		},
		Notes: []string{"the wait before the start of the next broker, 0.1 s, is part of it"}, Raw: back,
	}, nil
}

// residentBytes is what a process has in memory (VmRSS in proc_pid_status(5)).
func residentBytes(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	kb, err := strconv.ParseInt(strings.Fields(rest + " 0")[0], 10, 64)
	return kb << 10, err
}

// fillFast submits n tasks from many connections at once: the broker brings several to the disk
// together.
func (s *stage) fillFast(ctx context.Context, n int) error {
	body := rowsOf(1)
	var mu sync.Mutex
	var failed error
	var wg sync.WaitGroup
	const submitters = 64
	for c := range submitters {
		wg.Go(func() {
			for i := c; i < n; i += submitters {
				if _, err := s.submitTask(ctx, "digits", body); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	return failed
}

// restartBroker kills the broker and returns how long its successor takes to serve.
func (s *stage) restartBroker(ctx context.Context) (time.Duration, error) {
	st, err := s.status(ctx)
	if err != nil {
		return 0, err
	}
	old := st.Tasks.PID
	begun := time.Now()
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		return 0, err
	}
	for {
		if st, err = s.status(ctx); err != nil {
			return 0, err
		}
		if st.Tasks.PID != 0 && st.Tasks.PID != old && st.Tasks.Up {
			return time.Since(begun), nil
		}
		if err := rest(ctx, 5*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// tasksAccept compares how many tasks a second are accepted, each brought to the disk, with plain
// queues on the same disk.
func tasksAccept(ctx context.Context, l *lab) (*result, error) {
	s, err := taskStage(ctx, l, 0)
	if err != nil {
		return nil, err
	}
	defer s.end()
	lasts := of(&l.options, 5*time.Second, time.Second)
	var ours, sqlite, redis []float64
	for range l.times(3) {
		g, err := load.New(load.Options{
			Addr: s.address(), Conns: 16, Keepalive: true, Request: load.Post("/models/digits/tasks", "application/json", rowsOf(4)),
		})
		if err != nil {
			return nil, err
		}
		limited, cancel := context.WithTimeout(ctx, lasts)
		r, err := g.Run(limited)
		cancel()
		if err != nil {
			return nil, err
		}
		ours = append(ours, float64(r.Requests-r.Failures.Total())/lasts.Seconds())
		a, err := s.peerQueue(ctx, "sqlite", lasts)
		if err != nil {
			return nil, err
		}
		sqlite = append(sqlite, a)
		if b, err := s.peerQueue(ctx, "redis", lasts); err == nil {
			redis = append(redis, b)
		} else {
			l.say("redis is left out: %v", err)
		}
	}
	t := table{head: []string{"accepted, on the disk", "per s", "min–max"}}
	t.add("preforkd, over HTTP", digits(median(ours)), spread(ours))
	t.add("SQLite, synchronous=FULL, one writer, no HTTP", digits(median(sqlite)), spread(sqlite))
	if len(redis) > 0 {
		t.add("Redis, appendfsync always, the writes of RQ, 16 connections, no HTTP", digits(median(redis)), spread(redis))
	}
	return &result{
		Title: "Tasks that are accepted", Tables: []table{t},
		Notes: []string{fmt.Sprintf("%v each, tasks of %d bytes, in turns; 16 connections to preforkd; nobody runs them", lasts, len(rowsOf(4)))},
		Raw:   [][]float64{ours, sqlite, redis},
	}, nil
}

// peerQueue runs bench/peers/queue.py, which prints how many a second it has taken.
func (s *stage) peerQueue(ctx context.Context, kind string, lasts time.Duration) (perSecond float64, err error) {
	dir, err := os.MkdirTemp(s.l.dir, kind+"-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	port, err := proc.FreePort()
	if err != nil {
		return 0, err
	}
	out, err := s.l.output(ctx, "python3", filepath.Join(s.l.root, "bench", "peers", "queue.py"), kind, dir, strconv.Itoa(port), fmt.Sprint(lasts.Seconds()), strconv.Itoa(len(rowsOf(4))))
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(out), 64)
}
