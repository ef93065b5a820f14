package supervisor

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/machine"
	"preforkd/internal/supervisor/slot"
)

// service is what the admin socket offers; its methods ask the loop.
type service struct{ s *Supervisor }

// askEvent is something that the loop shall do for another goroutine.
type askEvent struct{ do func() }

// ask has the loop call do and waits until it has, or until ctx or the loop ends.
func (s *Supervisor) ask(ctx context.Context, do func()) error {
	done := make(chan struct{})
	select {
	case s.events <- askEvent{func() { do(); s.publish(); close(done) }}:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ended:
		return errEnded()
	}
	select {
	case <-done:
		return nil
	case <-s.ended:
		return errEnded()
	}
}

func errEnded() error {
	return &ipc.Failure{Exit: ipc.ExitUnavailable, What: "the service has ended"}
}

// Status returns how the service is. Memory is read here, not in the loop: the kernel
// walks page tables for it.
func (v service) Status(ctx context.Context) (admin.Status, error) {
	var st admin.Status
	if err := v.s.ask(ctx, func() { st = v.s.describe() }); err != nil {
		return st, err
	}
	for _, p := range st.Pools {
		for i := range p.Slots {
			if pid := p.Slots[i].PID; pid > 0 {
				p.Slots[i].PSS, _ = machine.PSS(pid) // it may have ended meanwhile
			}
		}
	}
	return st, nil
}

// Reload reloads and waits for the end.
func (v service) Reload(ctx context.Context, r admin.ReloadRequest, progress func(admin.Progress)) (admin.ReloadResult, error) {
	return v.reload(ctx, purpose{dryRun: r.DryRun}, r.NoWait, progress)
}

// Rollback returns to an earlier generation and waits for the end.
func (v service) Rollback(ctx context.Context, r admin.RollbackRequest, progress func(admin.Progress)) (admin.ReloadResult, error) {
	return v.reload(ctx, purpose{back: true, to: r.Generation}, r.NoWait, progress)
}

func (v service) reload(ctx context.Context, p purpose, noWait bool, progress func(admin.Progress)) (admin.ReloadResult, error) {
	w := &waiter{progress: progress, done: make(chan reloadEnd, 1)}
	if err := v.s.ask(ctx, func() { v.s.reload(p, noWait, w) }); err != nil {
		return admin.ReloadResult{}, err
	}
	select {
	case end := <-w.done:
		return end.result, end.err
	case <-ctx.Done(): // the reload goes on; nobody hears of it
		_ = v.s.ask(context.Background(), func() { w.progress = nil })
		return admin.ReloadResult{}, ctx.Err()
	case <-v.s.ended:
		return admin.ReloadResult{}, errEnded()
	}
}

// Scale changes a pool's size and waits until it has it.
func (v service) Scale(ctx context.Context, r admin.ScaleRequest) (admin.ScaleResult, error) {
	sc := &scaling{request: r, done: make(chan scaleEnd, 1)}
	if err := v.s.ask(ctx, func() { v.s.resize(sc) }); err != nil {
		return admin.ScaleResult{}, err
	}
	select {
	case end := <-sc.done:
		return end.result, end.err
	case <-ctx.Done(): // it goes on; nobody hears of it
		return admin.ScaleResult{}, ctx.Err()
	case <-v.s.ended:
		return admin.ScaleResult{}, errEnded()
	}
}

// Stop begins to stop the service.
func (v service) Stop(ctx context.Context, quick bool) error {
	return v.s.ask(ctx, func() {
		mode := stopDelayed
		if quick {
			mode = stopQuick
		}
		v.s.stop(mode, nil)
	})
}

// Events yields what has happened.
func (v service) Events(ctx context.Context, after uint64, follow bool) iter.Seq[admin.Event] {
	return v.s.history.Events(ctx, after, follow)
}

// emit records an event for operators, who find the service to be as it says.
func (s *Supervisor) emit(e admin.Event) {
	s.publish()
	s.history.Append(e)
}

// emitWorker records an event of one worker.
func (s *Supervisor) emitWorker(w *worker, kind, text string) { s.emit(s.workerEvent(w, kind, text)) }

func (s *Supervisor) workerEvent(w *worker, kind, text string) admin.Event {
	index := w.slot.index
	e := admin.Event{Kind: kind, Text: text, Pool: w.slot.pool.name, Slot: &index, Generation: w.slot.pool.gen.number}
	if w.proc != nil {
		e.PID = w.proc.PID
	}
	return e
}

// recentEvents is how many of them a status shows.
const recentEvents = 10

// describe returns how the service is. It runs in the loop.
func (s *Supervisor) describe() admin.Status {
	st := admin.Status{
		Time: time.Now(), Version: s.opts.Version, PID: s.pid, Generation: s.gen.number,
		Uptime: admin.Duration(s.now()), Operations: s.ops.address, RolledBackTo: s.current().origin, LastReload: s.lastReload, Events: s.history.Recent(recentEvents),
		Models: s.describeModels(), Memory: s.describeMemory(),
	}
	st.State = "serving"
	switch {
	case s.stopping == stopDelayed:
		st.State, st.DrainsIn = "stopping", admin.Duration(max(s.drainAt-s.now(), 0))
	case s.stopping != stopNot:
		st.State = "draining"
	case !s.everReady:
		st.State = "starting"
	}
	for _, sock := range s.gen.sockets {
		address := sock.Address
		if sock.Network == "unix" {
			address = "unix:" + address
		}
		st.Listen = append(st.Listen, address)
	}
	st.Pools = s.describePools()
	st.Tasks = s.describeTasks()
	for i, l := range s.shared.board.LayerStates() {
		if i == scoreboard.LayerCompute { // what is on it waits before all workers
			for _, p := range s.gen.pools {
				n, _ := p.queued()
				l.Waiting += int64(n)
			}
		}
		st.Layers = append(st.Layers, admin.Layer{Name: scoreboard.LayerNames[i], Running: l.Running, Waiting: l.Waiting, Refused: l.Refused})
	}
	return st
}

// describePools returns the pools of the generation in charge, and after them those that
// only the other generation of a reload has. A slot whose worker is being replaced is there
// twice.
func (s *Supervisor) describePools() (pools []admin.Pool) {
	index := map[string]int{}
	for _, p := range s.gen.pools {
		index[p.name] = len(pools)
		d := admin.Pool{Name: p.name, Size: p.size, Configured: p.asked, Notice: p.recycle.notice}
		waiting, oldest := s.waiting(p)
		d.Waiting, d.Oldest = waiting, admin.Duration(oldest)
		for _, sl := range p.slots {
			d.Slots = append(d.Slots, s.describeSlot(sl, sl.worker))
		}
		pools = append(pools, d)
	}
	for _, w := range s.byPID {
		p := w.slot.pool
		if p.gen == s.gen && slices.Contains(p.slots, w.slot) {
			continue
		}
		i, ok := index[p.name]
		if !ok {
			i = len(pools)
			index[p.name] = i
			pools = append(pools, admin.Pool{Name: p.name})
		}
		pools[i].Slots = append(pools[i].Slots, s.describeSlot(w.slot, w))
	}
	return pools
}

func (s *Supervisor) describeSlot(sl *poolSlot, w *worker) admin.Slot {
	d := admin.Slot{Index: sl.index, Generation: sl.pool.gen.number, Restarts: sl.restarts, LastExit: sl.lastExit, Recycled: sl.recycled}
	if sl.lastExit != "" {
		d.LastReason = sl.lastReason.String()
	}
	for _, m := range sl.pool.models {
		d.Models = append(d.Models, m.Name+"/"+m.Version)
	}
	if w == nil {
		d.State = "waiting"
		if sl.failed {
			d.State = "failed"
		}
		if sl.retryAt > 0 {
			d.Reason = fmt.Sprintf("next start in %v", (sl.retryAt - s.now()).Round(time.Millisecond))
		}
		return d
	}
	d.State, d.PID, d.Age = w.state.String(), w.proc.PID, admin.Duration(s.now()-w.started)
	if w.state != slot.Ready {
		d.Reason = w.status
	}
	if w.reason != slot.Asked {
		d.Reason = w.reason.String()
	}
	d.InFlight = int(w.row.InFlight.Load())
	d.Private, d.Shared = w.row.Private.Load(), w.row.Shared.Load()
	rate := s.rates.of(w)
	d.RequestsPerSecond, d.P50, d.P99 = rate.perSecond, admin.Duration(rate.p50), admin.Duration(rate.p99)
	return d
}
