package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"preforkd/internal/load"
	"preforkd/internal/supervisor/admin"
)

// upgraded is what happened in one case, over all its rounds.
type upgraded struct {
	Case    string       `json:"case"`
	Rounds  int          `json:"rounds"`
	Keep    *load.Report `json:"keep_alive"`
	Fresh   *load.Report `json:"new_connections"`
	Command string       `json:"command"` // how it ended
}

// The load of each case: clients that keep their connections, and clients that do not.
const (
	upgradeConns = 16
	upgradeRate  = 1000.0 // requests a second of the former
	freshConns   = 4
	freshRate    = 250.0
)

// upgradeCase is something that is done to a service once or several times.
type upgradeCase struct {
	name   string
	rounds int
	act    func(ctx context.Context, s *stage, round int) (command string, err error)
}

// upgradeCases are the rows of the table, each on a service of its own.
var upgradeCases = []upgradeCase{
	{"upgrade to a good program", 1, upgradeTo(good, 0)},
	{"10 in a row", 10, upgradeTo(good, 0)},
	{"a program that exits 1", 1, upgradeTo(saying("#!/bin/sh\nexit 1\n"), 4)},
	{"a program that hangs", 1, upgradeTo(saying("#!/bin/sh\nexec sleep 1000\n"), 4)},
	{"a program that is cut off", 1, upgradeTo(half, 4)},
	{"a program that is missing", 1, upgradeTo(nothing, 69)},
	{"workers that cannot load a model", 1, upgradeWithBadModel},
	{"kill -9 of the supervisor", 1, killSupervisor},
	{"kill -9 of the supervisor, 5 times", 5, killSupervisor},
	{"kill -9 of the old one in an upgrade", 5, killInUpgrade},
	{"SIGSTOP of the supervisor", 1, stopSupervisor},
}

// upgradeAll carries the cases out, one after the other.
func upgradeAll(ctx context.Context, l *lab) (*result, error) {
	version, err := ourselves.prepare(ctx, l)
	if err != nil {
		return nil, err
	}
	r := &result{Title: "Upgrade, and death of the supervisor, under load"}
	t := table{head: []string{"case", "requests", "failed", "connections closed", "longest gap ms", "the command"}}
	var raw []*upgraded
	for _, c := range upgradeCases {
		u, err := l.upgradeCase(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		raw = append(raw, u)
		failed := u.Keep.Failures.Total() + u.Fresh.Failures.Total()
		closed := closes(u.Keep)
		t.add(c.name, fmt.Sprint(u.Keep.Requests+u.Fresh.Requests), fmt.Sprint(failed), fmt.Sprint(closed),
			digits(float64(u.Keep.Gap.Microseconds())/1000), u.Command)
		l.say("%-38s %d requests, %d failed, %d closed, %s", c.name, u.Keep.Requests+u.Fresh.Requests, failed, closed, u.Command)
		r.Goals = append(r.Goals,
			goal{Text: c.name + ": failed requests", Exact: true, Values: []float64{float64(failed)}}.judge(),
			goal{Text: c.name + ": connections closed", Exact: true, Values: []float64{float64(closed)}}.judge())
	}
	r.Tables, r.Raw = []table{t}, raw
	r.Notes = []string{
		"preforkd: " + version,
		fmt.Sprintf("%.0f requests a second over %d keep-alive connections, and %.0f a second with a connection each, at fixed times", upgradeRate, upgradeConns, freshRate),
		"a case lasts until a supervisor is in charge whose workers are all ready, and a second beyond",
		"longest gap: between two answers on the keep-alive connections",
	}
	return r, nil
}

func (l *lab) upgradeCase(ctx context.Context, c upgradeCase) (*upgraded, error) {
	s := &stage{c: &ourselves, settings: quickReload}
	if err := l.begin(ctx, s); err != nil {
		return nil, err
	}
	defer s.end()
	u := &upgraded{Case: c.name, Rounds: c.rounds}
	var err error
	u.Keep, err = s.under(ctx, load.Options{Conns: upgradeConns, Rate: upgradeRate}, func(*load.Generator) error {
		beside, err := load.New(load.Options{Addr: s.address(), Request: s.c.request, Conns: freshConns, Rate: freshRate})
		if err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() { // ends with Stop
			var err error
			u.Fresh, err = beside.Run(ctx)
			ended <- err
		}()
		for round := range c.rounds {
			if err = rest(ctx, 500*time.Millisecond); err != nil {
				break
			}
			if u.Command, err = c.act(ctx, s, round); err != nil {
				break
			}
		}
		if err == nil {
			err = rest(ctx, time.Second)
		}
		beside.Stop()
		return errors.Join(err, <-ended)
	})
	return u, err
}

// upgradeTo upgrades to the program that make writes, and expects an exit status.
func upgradeTo(make func(s *stage, path string) error, exit int) func(context.Context, *stage, int) (string, error) {
	return func(ctx context.Context, s *stage, round int) (string, error) {
		path := s.path(filepath.Join("next"+strconv.Itoa(round), "preforkd"))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := make(s, path); err != nil {
			return "", err
		}
		return s.upgrade(ctx, path, exit)
	}
}

// upgrade runs the command and waits until the service is whole.
func (s *stage) upgrade(ctx context.Context, path string, exit int) (string, error) {
	limited, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	begun := time.Now()
	said, got, err := commandOurs(limited, s, "upgrade", path)
	if err == nil && got != exit {
		err = fmt.Errorf("upgrade ended with %d, not %d: %s", got, exit, said)
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("exit %d in %.2f s", got, time.Since(begun).Seconds()), s.settled(ctx, 0, 0)
}

// good is a copy of the programs.
func good(s *stage, path string) error {
	for _, name := range []string{"preforkd", "preforkd-worker"} {
		data, err := os.ReadFile(s.l.bin(name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), data, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func half(s *stage, path string) error {
	data, err := os.ReadFile(s.l.bin("preforkd"))
	if err != nil {
		return err
	}
	return os.WriteFile(path, data[:len(data)/2], 0o755)
}

func nothing(*stage, string) error { return nil }

func saying(script string) func(*stage, string) error {
	return func(_ *stage, path string) error { return os.WriteFile(path, []byte(script), 0o755) }
}

func upgradeWithBadModel(ctx context.Context, s *stage, round int) (string, error) {
	if err := os.WriteFile(s.path("models/digits/1/model.onnx"), []byte("no model"), 0o644); err != nil {
		return "", err
	}
	return upgradeTo(good, 4)(ctx, s, round)
}

// status asks the service how it is.
func (s *stage) status(ctx context.Context) (st admin.Status, err error) {
	client, err := admin.Dial(s.path("admin.sock"))
	if err != nil {
		return st, err
	}
	defer client.Close()
	return client.Status(ctx)
}

// settled waits until a supervisor other than before is in charge, and all workers are ready
// and of that generation or a later one.
func (s *stage) settled(ctx context.Context, before int, generation uint64) error {
	limited, cancel := context.WithTimeout(ctx, boot)
	defer cancel()
	for {
		if st, err := s.status(limited); err == nil && st.PID != before && st.Generation >= generation && whole(st) {
			return nil
		}
		if err := rest(limited, 20*time.Millisecond); err != nil {
			return fmt.Errorf("the service is not whole: %w", err)
		}
	}
}

func whole(st admin.Status) bool {
	for _, slot := range st.Pools[0].Slots {
		if slot.State != "ready" || slot.Generation != st.Generation {
			return false
		}
	}
	return len(st.Pools[0].Slots) == st.Pools[0].Size
}

func killSupervisor(ctx context.Context, s *stage, _ int) (string, error) {
	return s.strikeSupervisor(ctx, syscall.SIGKILL)
}

func stopSupervisor(ctx context.Context, s *stage, _ int) (string, error) {
	return s.strikeSupervisor(ctx, syscall.SIGSTOP)
}

// strikeSupervisor sends it sig, and waits for the successor's own workers.
func (s *stage) strikeSupervisor(ctx context.Context, sig syscall.Signal) (string, error) {
	st, err := s.status(ctx)
	if err != nil {
		return "", err
	}
	begun := time.Now()
	if err := syscall.Kill(st.PID, sig); err != nil {
		return "", err
	}
	if err := s.settled(ctx, st.PID, st.Generation+1); err != nil {
		return "", err
	}
	return fmt.Sprintf("another supervisor's workers after %.2f s", time.Since(begun).Seconds()), nil
}

// killInUpgrade kills the supervisor while its successor prepares, later in each round.
func killInUpgrade(ctx context.Context, s *stage, round int) (string, error) {
	st, err := s.status(ctx)
	if err != nil {
		return "", err
	}
	path := s.path(filepath.Join("next"+strconv.Itoa(round), "preforkd"))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	if err := good(s, path); err != nil {
		return "", err
	}
	said := make(chan string, 1)
	go func() { // ends with the command
		limited, cancel := context.WithTimeout(ctx, commandLimit)
		defer cancel()
		_, exit, err := commandOurs(limited, s, "upgrade", path)
		if err != nil {
			said <- err.Error()
			return
		}
		said <- fmt.Sprintf("exit %d", exit)
	}()
	if err := rest(ctx, time.Duration(round)*150*time.Millisecond); err != nil {
		return "", err
	}
	_ = syscall.Kill(st.PID, syscall.SIGKILL) // it may have left by then
	command := <-said
	return command, s.settled(ctx, st.PID, st.Generation+1)
}
