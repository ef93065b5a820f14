package supervisor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/slot"
)

// The supervisor never speaks to the queue of tasks: workers do, and it asks one of them.

// taskLimit bounds what a worker is asked about tasks.
const taskLimit = 20 * time.Second

// mostReturns bounds the tasks that wait until a worker is there to return them: the queue finds
// those that are not returned itself, after tasks.silence.
const mostReturns = 1000

// lostTask notes which task w, which has ended, was running, and has it returned at once. It is
// called before the row of w is settled.
func (s *Supervisor) lostTask(w *worker) {
	if w.row == nil || w.slot.pool.other {
		return
	}
	id, ack, ok := w.row.Running.Task()
	if !ok || len(s.returns) >= mostReturns {
		return
	}
	why := w.exit.String()
	if w.reason.Charged() && w.reason != slot.Crash {
		why = w.reason.String() + ": " + why
	}
	lines := w.tail.lines
	if n := len(lines); n > 5 {
		lines = lines[n-5:]
	}
	t := ipc.TaskReturn{ID: id, Ack: ack, Why: why, Lines: slices.Clone(lines), Blame: w.endedByTask()}
	s.log.Warn("worker ended in the middle of a task", "pool", w.slot.pool.name, "slot", w.slot.index, "task", id, "exit", w.exit.String())
	s.returns = append(s.returns, t)
	s.returnTasks()
}

// endedByTask tells whether w was ended by what it did: not by somebody's KILL, and not because it
// was to leave and did not.
func (w *worker) endedByTask() bool {
	switch w.reason {
	case slot.Crash:
		return !w.exit.Killed()
	case slot.Memory, slot.Hung, slot.Stuck:
		return true
	}
	return false
}

// foundTask notes the task of a worker whose end nobody has watched.
func (s *Supervisor) foundTask(row *scoreboard.Row) {
	if id, ack, ok := row.Running.Task(); ok && len(s.returns) < mostReturns {
		s.returns = append(s.returns, ipc.TaskReturn{ID: id, Ack: ack, Why: "it ended while no supervisor watched"})
	}
}

// returnTasks hands what is to be returned to the lowest worker that is ready.
func (s *Supervisor) returnTasks() {
	if len(s.returns) == 0 {
		return
	}
	w := s.spokesman()
	if w == nil {
		return
	}
	list := s.returns
	s.returns = nil
	go func() { // ends with the answers, or taskLimit after
		ctx, cancel := context.WithTimeout(s.ctx, taskLimit)
		defer cancel()
		for _, t := range list {
			s.call(ctx, w, ipc.ControlTaskReturn, t, nil)
		}
	}()
}

// spokesman is the lowest worker that is ready and has the queue of tasks; nil: there is none.
func (s *Supervisor) spokesman() *worker {
	var ready []*worker
	for _, w := range s.byPID {
		if w.state == slot.Ready && w.channel != nil && w.slot.pool.gen.cfg.Tasks.Enabled {
			ready = append(ready, w)
		}
	}
	if len(ready) == 0 {
		return nil
	}
	return slices.MinFunc(ready, func(a, b *worker) int {
		return cmp.Or(cmp.Compare(a.slot.pool.number, b.slot.pool.number), cmp.Compare(a.slot.index, b.slot.index), cmp.Compare(a.proc.PID, b.proc.PID))
	})
}

// Tasks has a worker do what an operator wants of tasks.
func (v service) Tasks(ctx context.Context, o ipc.TaskOrder) (answer ipc.TaskAnswer, err error) {
	var w *worker
	off := false
	if err := v.s.ask(ctx, func() { w, off = v.s.spokesman(), !v.s.gen.cfg.Tasks.Enabled }); err != nil {
		return answer, err
	}
	switch {
	case off:
		return answer, &ipc.Failure{Exit: ipc.ExitUnavailable, What: "background tasks are off", Try: "set tasks.enabled: true and preforkd reload"}
	case w == nil:
		return answer, &ipc.Failure{Exit: ipc.ExitUnavailable, What: "no worker is ready that could ask the queue of tasks", Try: "preforkd status says why"}
	}
	if err := w.channel.conn.Call(ctx, ipc.ControlTasks, o, &answer); err != nil {
		return answer, &ipc.Failure{Exit: ipc.ExitUnavailable, What: fmt.Sprintf("ask worker %d about tasks: %v", w.proc.PID, err), Err: err, Try: "try again"}
	}
	if answer.Failure != nil {
		return answer, answer.Failure
	}
	return answer, nil
}

// describeTasks says how background tasks are; nil: they are off.
func (s *Supervisor) describeTasks() *admin.Tasks {
	t := &s.gen.cfg.Tasks
	if !t.Enabled {
		return nil
	}
	q := s.shared.board.Queue()
	d := &admin.Tasks{
		Depth: q.Depth.Load(), Running: q.Running.Load(), Oldest: admin.Duration(time.Duration(q.Oldest.Load()) * time.Millisecond), Dead: q.Dead.Load(),
		Used: q.Used.Load(), Limit: q.Limit.Load(), Full: q.Full.Load() != 0,
		Accepted: q.Accepted.Load(), Refused: q.Refused.Load(), Finished: q.Finished.Load(), Failed: q.Failed.Load(),
		Retried: q.Retried.Load(), Redelivered: q.Redelivered.Load(), Crashed: q.Crashed.Load(),
	}
	if age, ok := q.Said.Age(); ok {
		d.Said = admin.Duration(age)
	}
	if t.Embedded() {
		d.Up, d.Sync, d.Queue = s.broker.ready, "always", "no broker"
		if t.Sync > 0 {
			d.Sync = t.Sync.String()
		}
		if s.broker.proc != nil {
			d.PID = s.broker.proc.PID
		}
		if s.broker.status != "" {
			d.Queue = s.broker.status
		}
		return d
	}
	age, ok := q.Said.Age()
	d.Up, d.Queue = ok && age < time.Minute, t.URL
	return d
}
