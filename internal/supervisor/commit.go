package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/control"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/cache"
	"preforkd/internal/supervisor/slot"
)

// answeredEvent: w has answered what it was asked in a phase of a change, or has not in time.
type answeredEvent struct {
	ch   *changing
	kind string
	w    *worker
	err  error
}

// askChange asks w for its part in a phase of ch.
func (s *Supervisor) askChange(ch *changing, w *worker, kind string) {
	if w.channel == nil {
		s.dropChange(ch, &ipc.Failure{
			Exit: ipc.ExitTryAgain, What: fmt.Sprintf("worker %d of pool %s has survived a supervisor and hears nothing of this one", w.slot.index, w.slot.pool.name),
			Try: "preforkd restart --all, and try again",
		})
		return
	}
	var body any
	limit := w.slot.pool.clocks.boot // of loading
	switch kind {
	case ipc.ControlCommit:
		limit = w.slot.pool.clocks.heartbeat
		body = ipc.ModelChange{Number: ch.number}
	case ipc.ControlDrop:
		body = ipc.ModelChange{Number: ch.number}
	case ipc.ControlPrepare:
		dir, file, err := cache.StageJSON(w.slot.pool.cacheOptions(), ch.next[w.slot.pool])
		if err != nil {
			s.dropChange(ch, err)
			return
		}
		ch.staged = append(ch.staged, dir)
		body = ipc.ModelChange{Number: ch.number, File: file}
	}
	if ch.asked == nil {
		ch.asked = map[*worker]bool{}
	}
	ch.asked[w] = true
	go func() { // ends with its event
		ctx, cancel := context.WithTimeout(s.ctx, limit)
		defer cancel()
		err := w.channel.conn.Call(ctx, kind, body, nil)
		switch {
		case errors.Is(err, control.ErrEnded) && w.gone(killClock):
			return // how it ended says more, and is an event of its own
		case err != nil && ctx.Err() != nil:
			err = fmt.Errorf("worker %d of pool %s: no answer within %v", w.slot.index, w.slot.pool.name, limit)
		}
		s.send(answeredEvent{ch, kind, w, err})
	}()
}

func (s *Supervisor) onAnswered(e answeredEvent) {
	ch := e.ch
	if s.change != ch || !ch.asked[e.w] {
		return
	}
	switch {
	case e.kind == ipc.ControlSelfTest:
		delete(ch.asked, e.w)
		if e.err != nil {
			ch.refusal = e.err
		} else {
			ch.trials[e.w.slot] = true
		}
		s.apply(e.w, slot.OnLeave) // it has nobody to serve
		return
	case e.kind == ipc.ControlPrepare && ch.phase == changePrepares:
		if delete(ch.asked, e.w); e.err != nil {
			s.dropChange(ch, e.err)
			return
		}
		s.askQueued(ch)
	case e.kind == ipc.ControlCommit && ch.phase == changeCommits:
		if e.err != nil { // others serve the new models by now
			s.log.Error("worker does not serve what was decided", "pool", e.w.slot.pool.name, "slot", e.w.slot.index, "pid", e.w.proc.PID, "err", e.err)
			s.lose(e.w, slot.Hung)
			return
		}
		delete(ch.asked, e.w)
	case e.kind == ipc.ControlDrop && ch.phase == changeDrops:
		if delete(ch.asked, e.w); e.err != nil { // what it has loaded is in nobody's way but memory's
			s.log.Warn("worker does not drop what it has loaded; replacing it", "pool", e.w.slot.pool.name, "slot", e.w.slot.index, "pid", e.w.proc.PID, "err", e.err)
			s.queued = append(s.queued, queued{restart: &restarting{
				request: admin.RestartRequest{Pool: e.w.slot.pool.name, Slot: e.w.slot.index}, reason: recycleAsked,
			}})
		}
	default:
		return // it belongs to a phase that is over
	}
	s.changeGoesOn(ch)
}

// changeGoesOn begins the next phase when everybody has answered in this one.
func (s *Supervisor) changeGoesOn(ch *changing) {
	if len(ch.asked) > 0 {
		return
	}
	switch ch.phase {
	case changePrepares:
		s.decide(ch)
	case changeCommits:
		s.endChange(nil)
	case changeDrops:
		s.endChange(ch.rolledBack(ch.refusal))
	}
}

// dropChange has every worker forget what it has prepared.
func (s *Supervisor) dropChange(ch *changing, why error) {
	if ch.phase != changePrepares {
		return
	}
	ch.phase, ch.refusal, ch.asked = changeDrops, why, map[*worker]bool{}
	s.log.Warn("change of models refused, dropping it", "what", ch.String(), "change", ch.number, "err", why)
	for _, p := range ch.pools {
		for _, w := range s.servingOf(p) {
			s.askChange(ch, w, ipc.ControlDrop)
		}
	}
	s.changeGoesOn(ch)
}

// decide makes the manifests anew. From here on there is no way back: who dies is replaced
// from them, a successor of this process goes on with them, and a worker that hears no more
// finds the number on the scoreboard.
func (s *Supervisor) decide(ch *changing) {
	made := map[*pool]int{}
	for _, p := range ch.pools {
		fd, err := p.manifestOf(ch.next[p].Models, ch.next[p].Unloaded)
		if err != nil {
			for _, fd := range made {
				activation.Close(fd)
			}
			s.dropChange(ch, err)
			return
		}
		made[p] = fd
	}
	ch.phase = changeCommits
	for p, fd := range made {
		activation.Close(p.manifest)
		p.manifest, p.models, p.unloaded = fd, ch.next[p].Models, ch.next[p].Unloaded
	}
	s.keepChanged(ch)
	s.shared.board.Decided().Store(ch.number)
	s.log.Info("change of models decided", "what", ch.String(), "change", ch.number)
	for _, w := range s.byPID {
		switch {
		case !slices.Contains(ch.pools, w.slot.pool):
		case w.state == slot.Ready:
			s.askChange(ch, w, ipc.ControlCommit)
		case w.state == slot.Starting || w.state == slot.Loading: // from the former manifest; it serves nobody yet
			s.apply(w, slot.OnQuit)
		}
	}
	s.changeGoesOn(ch)
}

// keepChanged has the main process keep the generation as it is by now.
func (s *Supervisor) keepChanged(ch *changing) {
	if ch.lease != nil {
		s.gen.leases, ch.lease = append(s.gen.leases, ch.lease), nil
	}
	s.keepModels()
}

// endChange ends the change and begins what waits.
func (s *Supervisor) endChange(err error) {
	ch := s.change
	s.change = nil
	took := s.now() - ch.began
	ch.lease.Close()
	ch.unstage()
	for sl := range ch.trials { // of other pools
		if sl.worker != nil {
			s.apply(sl.worker, slot.OnQuit)
		}
	}
	result := admin.ModelResult{Model: ch.name, Versions: []string{}, Took: admin.Duration(took)}
	for _, p := range ch.pools {
		result.Workers += len(s.servingOf(p))
	}
	for _, m := range s.gen.models {
		if m.Name == ch.name && !slices.Contains(result.Versions, m.Version) {
			result.Versions = append(result.Versions, m.Version)
		}
	}
	switch {
	case err != nil:
		level := slog.LevelError
		if ch.phase == changeCollects { // nothing was begun
			level = slog.LevelWarn
		}
		s.log.Log(s.ctx, level, "change of models failed", "what", ch.String(), "by", ch.by, "phase", changePhases[ch.phase], "err", err, "took", took.Round(time.Millisecond))
	case ch.phase == changeCollects:
		result.Message = fmt.Sprintf("model %s: nothing changed", ch.name)
	case ch.unload:
		result.Message = fmt.Sprintf("model %s is unloaded in %s", ch.name, workers(result.Workers))
	default:
		result.Message = fmt.Sprintf("model %s: version %s is served by %s", ch.name, strings.Join(result.Versions, ", "), workers(result.Workers))
	}
	text := result.Message
	if err == nil {
		s.log.Info("change of models ended", "what", ch.String(), "by", ch.by, "took", took.Round(time.Millisecond), "text", text)
	} else {
		text = err.Error()
	}
	s.emit(admin.Event{Kind: "models", Text: text, Generation: s.gen.number, Model: ch.name})
	ch.end(changeEnd{result, err})
	if s.stopping == stopNot {
		s.changedAt = s.now()
		s.sweep(s.gen)
	}
	s.next()
}

// stopChange ends the change as the service stops. What was decided stays so.
func (s *Supervisor) stopChange() {
	if s.change != nil {
		s.endChange(stoppingFailure(s.change.String()))
	}
}

// freeChanged frees the scoreboard's rows of models that earlier changes have unloaded, once no
// request can be in one of them: a worker is replaced whose run lasts that long.
func (s *Supervisor) freeChanged() {
	longest := time.Duration(0)
	for _, p := range s.gen.pools {
		longest = max(longest, p.cfg.Timeouts.Request)
	}
	if s.changedAt > 0 && s.now()-s.changedAt > (stuckFactor+1)*longest {
		s.changedAt = 0
		s.freeModels()
	}
}

// orderOf handles a client's wish, which reached a worker of a pool.
func (s *Supervisor) orderOf(pool string) control.Handler {
	return func(ctx context.Context, body json.RawMessage) (any, error) {
		var o ipc.ModelOrder
		if err := json.Unmarshal(body, &o); err != nil || o.Name == "" {
			return nil, fmt.Errorf("model %.200s: which?", body)
		}
		_, err := s.orderModel(ctx, modelOrder{name: o.Name, unload: o.Unload, pool: pool, by: "client"})
		return nil, err
	}
}

// orderModel carries out o, if it may be, and waits for the end.
func (s *Supervisor) orderModel(ctx context.Context, o modelOrder) (admin.ModelResult, error) {
	ch := &changing{modelOrder: o, done: make(chan changeEnd, 1)}
	err := s.ask(ctx, func() {
		if err := s.mayControl(o); err != nil {
			ch.end(changeEnd{err: err})
			return
		}
		s.changeModels(ch)
	})
	if err != nil {
		return admin.ModelResult{}, err
	}
	select {
	case end := <-ch.done:
		return end.result, end.err
	case <-ctx.Done(): // it goes on; nobody hears of it
		return admin.ModelResult{}, ctx.Err()
	case <-s.ended:
		return admin.ModelResult{}, errEnded()
	}
}

// mayControl says why o is nobody's to ask for, as models.control has it.
func (s *Supervisor) mayControl(o modelOrder) error {
	setting := s.gen.cfg.Models.Control
	if setting == config.ControlExplicit || setting == config.ControlAdmin && o.by != "client" {
		return checkModelName(o)
	}
	return &ipc.Failure{
		Exit: ipc.ExitPermission, What: fmt.Sprintf("%s: models.control is %s", o, setting),
		Try: "change the model directory and preforkd reload, or set models.control to admin",
	}
}

// checkModelName refuses a name that would lead out of the directory.
func checkModelName(o modelOrder) error {
	if o.name == "" || strings.HasPrefix(o.name, ".") || strings.ContainsAny(o.name, "/\x00") {
		return &ipc.Failure{Exit: ipc.ExitUsage, What: fmt.Sprintf("%q is no name of a model", o.name), Try: "name one of preforkd models ls"}
	}
	return nil
}
