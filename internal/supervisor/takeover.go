package supervisor

import (
	"fmt"
	"syscall"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/notify"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/supervisor/process"
	"preforkd/internal/supervisor/slot"
)

// A supervisor that was started because the one before has died takes over what serves: it
// makes the generation in charge from what the main process keeps, finds its workers on the
// scoreboard, and then replaces them, as a reload does: they cannot be asked for anything,
// their control channels having ended.

// takeOver returns false, and has done nothing, where there is nothing to take over.
func (s *Supervisor) takeOver() (bool, error) {
	if _, kept := s.opts.Main.heldFD(ipc.FDBoard); !kept || s.opts.Main.restored { // nobody of who made it lives
		return false, nil
	}
	if err := s.openKeptBoard(); err != nil {
		return false, err
	}
	board := s.shared.board
	if !board.Owner().CompareAndSwap(0, uint64(s.pid)) {
		return false, &ipc.Failure{
			Exit: ipc.ExitBug, What: fmt.Sprintf("take over the service: process %d is in charge of it", board.Owner().Load()),
		}
	}
	s.inCharge, s.tookOver = true, true
	if err := s.restoreKept(); err != nil {
		return false, err
	}
	s.restoreOutputs()
	s.everReady, s.announced = true, true
	for _, p := range s.gen.pools {
		s.proven[p.name] = true
	}
	return true, nil
}

// openKeptBoard maps the scoreboard that is kept.
func (s *Supervisor) openKeptBoard() error {
	fd := s.opts.Main.take(ipc.FDBoard)
	board, err := scoreboard.Open(fd)
	if err != nil {
		activation.Close(fd)
		return &ipc.Failure{
			Exit: ipc.ExitUnavailable, What: "take over the service: " + err.Error(), Err: err,
			Try: "stop the service and start it again",
		}
	}
	s.shared = shared{board: board, boardFD: fd}
	return nil
}

// restoreKept makes the generations that were committed. What was being tried is given back.
func (s *Supervisor) restoreKept() error {
	committed := s.shared.board.Committed().Load()
	for i := range s.records {
		r := &s.records[i]
		if r.Number > committed {
			continue // it was never in charge; tidy
		}
		g, err := s.restore(r, r.Number == committed)
		if err != nil {
			if r.Number == committed {
				return err
			}
			s.log.Warn("generation can no longer be returned to", "generation", r.Number, "err", err)
			g.release(nil)
			s.unkeep(g)
			continue
		}
		s.kept = append(s.kept, &kept{gen: g, committed: r.Committed, cause: r.Cause, origin: r.Origin, differences: r.Differences})
	}
	if len(s.kept) == 0 || s.current().gen.number != committed {
		return fmt.Errorf("generation %d, which is in charge, was not kept", committed)
	}
	s.gen = s.current().gen
	return nil
}

// settings returns those of the generation in charge, nil where there is none: whoever
// replaces a supervisor that died needs no configuration file.
func (s *Supervisor) settings() (_ *keptGeneration, err error) {
	if s.records, err = s.opts.Main.records(); err != nil || len(s.records) == 0 {
		return nil, err
	}
	fd, ok := s.opts.Main.heldFD(ipc.FDBoard)
	if !ok || s.opts.Main.succeeds() {
		return nil, nil
	}
	board, err := scoreboard.OpenSparse(fd)
	if err != nil {
		return nil, err
	}
	defer board.Close()
	for i := range s.records {
		if s.records[i].Number == board.Committed().Load() {
			return &s.records[i], nil
		}
	}
	return nil, nil
}

// adoptWorkers watches the workers that the scoreboard names, and settles the rows of those
// that have ended.
func (s *Supervisor) adoptWorkers() (serving int) {
	for _, row := range s.shared.board.Rows() {
		if row.Claimer() == 0 || row.Claimer() == s.pid {
			continue
		}
		pid := row.PID()
		if s.byPID[pid] != nil { // adopted before, and still on its way out
			continue
		}
		if pid <= 0 || row.Exit() != scoreboard.ExitNone {
			s.settleRow(row, pid)
			continue
		}
		w := s.adopt(row, pid)
		if w == nil {
			s.settleRow(row, pid)
			continue
		}
		if w.state == slot.Ready {
			serving++
		}
		s.log.Info("worker taken over", "pool", w.slot.pool.name, "slot", w.slot.index, "pid", pid, "state", w.state, "generation", row.Generation())
	}
	return serving
}

// settleRow frees the row of a process that has ended, or never was.
func (s *Supervisor) settleRow(row *scoreboard.Row, pid int) {
	s.foundTask(row)
	exit := row.Exit()
	if exit == scoreboard.ExitNone && pid != 0 {
		exit = scoreboard.ExitUnknown
	}
	if left, ok := row.Settle(pid, uint64(slot.Failed), exit); ok && left.InFlight > 0 {
		row.Lost.Add(uint64(left.InFlight))
	}
}

// adopt returns the worker in row, nil if it has ended.
func (s *Supervisor) adopt(row *scoreboard.Row, pid int) *worker {
	w := &worker{
		slot: s.slotFor(row), row: row, state: slot.State(row.State()), started: s.now(), requestsBefore: row.Requests.Load(),
	}
	output := -1
	if pipe, ok := s.outputs[row.Index()]; ok {
		output = pipe[0]
	}
	var err error
	w.proc, err = process.Adopt(process.Adopted{
		PID: pid, Output: output, Line: func(pid int, line string) { s.line(w, pid, line) },
		Status: func() (syscall.WaitStatus, bool) { return row.Exit().Status() },
	})
	if err != nil {
		return nil
	}
	switch {
	case w.slot.worker != nil, !w.slot.pool.has(w.slot), w.state == slot.Killing: // on its way out
		if w.state != slot.Killing {
			w.state = slot.Draining
		}
	default:
		w.slot.worker, w.slot.begun = w, true
	}
	s.wind(w)
	switch w.state {
	case slot.Ready:
		w.ready = s.now()
		w.deadline = s.now() + w.slot.pool.clocks.heartbeat
		s.freshLimits(w)
	case slot.Starting, slot.Loading:
		w.deadline = s.now() + w.slot.pool.clocks.boot
	}
	s.byPID[pid] = w
	s.oom.started(w)
	s.awaitEnd(w)
	return w
}

// slotFor returns the slot of the worker in row: that of the generation in charge, or one of
// no pool's for a worker that belongs to another, which leaves by itself.
func (s *Supervisor) slotFor(row *scoreboard.Row) *poolSlot {
	p := s.gen.pools[0]
	for _, q := range s.gen.pools {
		if q.number == row.Pool() {
			p = q
		}
	}
	if row.Generation() == s.gen.number && p.number == row.Pool() && row.Slot() < len(p.slots) && !p.other && p.slots[row.Slot()].worker == nil {
		return p.slots[row.Slot()]
	}
	return &poolSlot{pool: p, index: row.Slot()}
}

// has tells whether sl is one of p's slots.
func (p *pool) has(sl *poolSlot) bool { return sl.index < len(p.slots) && p.slots[sl.index] == sl }

// resumeService starts the slots that have no worker, and has those replaced that were
// taken over.
func (s *Supervisor) resumeService() {
	serving := s.adoptWorkers()
	s.log.Warn("service taken over from a supervisor that died", "generation", s.gen.number, "workers", serving)
	s.readyToUpgrade()
	_ = s.upstream.SendWait("READY=1", fmt.Sprintf("STATUS=%d workers taken over", serving))
	s.tidy()
	for _, sl := range s.gen.slots() {
		if sl.worker == nil && (serving == 0 || sl.pool.other) {
			s.start(sl)
		}
	}
	switch {
	case s.opts.Main.fallen && len(s.kept) > 1:
		s.reload(purpose{back: true, to: s.kept[len(s.kept)-2].gen.number}, false, nil)
	case serving > 0:
		s.reload(purpose{takeover: true}, false, nil)
	}
}

// restoreOutputs takes the pipes of rows that this process has not.
func (s *Supervisor) restoreOutputs() {
	for i := range s.shared.board.Rows() {
		if _, ok := s.outputs[i]; ok {
			continue
		}
		name := outputName(i)
		r, w := s.opts.Main.take(name+"/r"), s.opts.Main.take(name+"/w")
		if r >= 0 && w >= 0 {
			s.outputs[i] = [2]int{r, w}
			continue
		}
		activation.Close(r)
		activation.Close(w)
	}
}

func outputName(row int) string { return ipc.KeptOutput + fmt.Sprint(row) }

// output returns the pipe for what processes of row write, one after the other: it outlives
// this process, so that its end breaks none of theirs.
func (s *Supervisor) output(row *scoreboard.Row) (pipe [2]int, err error) {
	pipe, ok := s.outputs[row.Index()]
	if ok || s.keeper == nil {
		return pipe, nil
	}
	if pipe, err = process.Pipe(); err != nil {
		return [2]int{}, err
	}
	s.outputs[row.Index()] = pipe
	s.keepOutput(row.Index())
	return pipe, nil
}

// keepOutput has the main process keep the pipe of a row.
func (s *Supervisor) keepOutput(row int) {
	s.keeper.store(outputName(row)+"/r", s.outputs[row][0])
	s.keeper.store(outputName(row)+"/w", s.outputs[row][1])
}

// awaitMain stops the service when the main process has died.
func (s *Supervisor) awaitMain() {
	fd, err := activation.Duplicate(s.lifeline[0])
	if err != nil {
		s.log.Warn("main process not watched", "err", err)
		return
	}
	go func() { // ends with the main process, or with this one
		activation.AwaitEnd(fd)
		s.send(askEvent{func() {
			s.log.Error("main process died, stopping")
			s.keeper.dead.Store(true)
			s.stop(stopGraceful, nil)
		}})
	}()
}

// listenNotify makes the socket that workers speak to, or goes on with that of before.
func (s *Supervisor) listenNotify() (err error) {
	handle := func(m notify.Message) {
		if m.PID != s.pid { // awaitEnd's own
			s.send(m)
		}
	}
	if s.opts.Main.succeeds() { // workers of the predecessor speak to that
		s.server, err = notify.Listen(handle)
		return err
	}
	if fd := s.opts.Main.take(ipc.KeptNotify); fd >= 0 {
		s.server, err = notify.ListenFD(fd, handle)
		return err
	}
	if s.server, err = notify.Listen(handle); err == nil {
		s.keepNotify()
	}
	return err
}

// keepNotify has the main process keep the socket that workers speak to.
func (s *Supervisor) keepNotify() {
	if s.keeper == nil {
		return
	}
	fd, err := s.server.Duplicate()
	if err != nil {
		s.log.Error("notify socket not kept", "err", err)
		return
	}
	s.keeper.store(ipc.KeptNotify, fd)
	activation.Close(fd)
}

// keptSocket returns the socket that was kept under name, or makes it and has it kept.
func (s *Supervisor) keptSocket(name string, bind func() (*activation.Socket, error)) (*activation.Socket, error) {
	if fd := s.opts.Main.take(name); fd >= 0 {
		sock, err := activation.Adopt(fd, name)
		if err == nil {
			sock.Own()
			return sock, nil
		}
		s.log.Warn("kept socket not usable", "name", name, "err", err)
	}
	sock, err := bind()
	if err == nil {
		s.keeper.store(name, sock.FD)
	}
	return sock, err
}
