package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/rollout"
	"preforkd/internal/supervisor/upgrade"
)

// An upgrade replaces this program, too. The supervisor in charge starts the new one, which
// fetches what the main process keeps, makes a generation of what the configuration says now,
// and proves it as a reload does, with workers of its own. It puts itself in charge by one
// compare-and-swap of the scoreboard's word owner, and the former one leaves at once: its
// workers see that, and drain by themselves. Whatever fails before takes the new one away.

// helloLimit is how long a new program may take to say the first word.
const helloLimit = 10 * time.Second

// upgradedEvent: the successor is in charge, or has ended.
type upgradedEvent struct {
	op   *operation
	err  error
	said []string // its last lines
}

// Upgrade replaces this program and waits for the end.
func (v service) Upgrade(ctx context.Context, r admin.UpgradeRequest, progress func(admin.Progress)) (admin.ReloadResult, error) {
	return v.reload(ctx, purpose{upgrade: true, program: r.Program, environ: packed(r.Environ)}, r.NoWait, progress)
}

// packed returns an environment as one text.
func packed(environ []string) (text string) {
	for _, e := range environ {
		text += e + "\x00"
	}
	return text
}

// beginUpgrade starts the successor.
func (s *Supervisor) beginUpgrade(op *operation) {
	s.op = op
	order, err := s.order(op)
	if err != nil {
		s.conclude(rollout.RolledBack, "", err)
		return
	}
	path := order.Env[ipc.EnvProgram]
	s.log.Info(op.purpose.String()+" begins", "program", path)
	s.emit(admin.Event{Kind: op.purpose.String(), Text: "begins: " + path, Generation: s.gen.number})
	go func() { // ends with its event
		said := tail{}
		order.Line = func(line string) {
			said.add(line)
			s.send(askEvent{func() { s.upgradeSays(op, line) }})
		}
		err := s.opts.Main.upgrader.Upgrade(order)
		if said.fault != "" && !slices.Contains(said.lines, said.fault) {
			said.lines = append([]string{said.fault}, said.lines...)
		}
		s.send(upgradedEvent{op, err, said.lines})
	}()
}

// another tells whether g had another program than this one: a rollback to it is an upgrade
// to that.
func (s *Supervisor) another(g *generation) bool {
	main := s.opts.Main
	if main == nil || main.succeeds() && !s.inCharge || g.program == nil {
		return false
	}
	return differentFiles(g.program, main.self)
}

// order returns what op starts.
func (s *Supervisor) order(op *operation) (o upgrade.Order, err error) {
	o = upgrade.Order{Env: map[string]string{}, Hello: helloLimit, Limit: s.upgradeLimit()}
	if op.environ != "" {
		o.Environ = strings.Split(strings.TrimSuffix(op.environ, "\x00"), "\x00")
	}
	if op.target == nil {
		o.Program, err = s.findProgram(op.program)
		o.Env[ipc.EnvProgram] = o.Program
		return o, err
	}
	g := op.target.gen
	o.Env[ipc.EnvProgram], o.Env[ipc.EnvReturn] = g.path, fmt.Sprint(g.number)
	o.Program = g.path
	now, err := os.Stat(g.path)
	held, err2 := g.program.Stat()
	if err != nil || err2 != nil || !os.SameFile(now, held) { // its name leads elsewhere by now
		o.Program = fmt.Sprintf("/proc/%d/fd/%d", s.pid, g.program.Fd())
	}
	return o, nil
}

// upgradeLimit bounds a successor that keeps none of its own clocks.
func (s *Supervisor) upgradeLimit() time.Duration {
	limit := s.gen.cfg.Reload.Bake + s.gen.cfg.Reload.Trial + time.Minute
	for _, p := range s.gen.pools {
		limit += time.Duration(p.size+1) * p.clocks.boot
	}
	return limit
}

// findProgram returns the path of the next program: what the operator asks for, or what the
// path by which this one was called leads to by now.
func (s *Supervisor) findProgram(asked string) (string, error) {
	if s.opts.Main == nil {
		return "", &ipc.Failure{Exit: ipc.ExitUnavailable, What: "upgrade: this service has no main process that would keep its sockets", Try: "start it by preforkd serve"}
	}
	name := asked
	if name == "" {
		name = s.opts.Main.program
	}
	path, err := upgrade.Find(name)
	if err != nil {
		return "", &ipc.Failure{
			Exit: ipc.ExitUnavailable, What: "upgrade: " + err.Error(), Err: err,
			Try: "install the new preforkd there, or name it: preforkd upgrade PATH; the old one serves",
		}
	}
	return path, nil
}

// upgradeSays passes on a line of the successor.
func (s *Supervisor) upgradeSays(op *operation, line string) {
	text, ours := strings.CutPrefix(line, progressPrefix)
	if !ours {
		s.log.Info("new program says", "line", line)
		return
	}
	s.log.Info("upgrade", "phase", text)
	op.report(admin.Progress{Time: time.Now(), Phase: "upgrade", Text: text})
}

// progressPrefix is before what a successor says of its progress.
const progressPrefix = "preforkd upgrade: "

// onUpgraded leaves to the successor, or goes on.
func (s *Supervisor) onUpgraded(e upgradedEvent) {
	if s.op != e.op {
		return
	}
	board := s.shared.board
	if e.err == nil {
		s.succeeded = true
		s.leaveSums()
		result := admin.ReloadResult{
			Outcome: rollout.Committed.String(), Generation: board.Committed().Load(), Took: admin.Duration(s.now() - e.op.began),
			Message: fmt.Sprintf("generation %d serves", board.Committed().Load()),
		}
		s.log.Info("upgrade ended, leaving", "generation", result.Generation, "took", (s.now() - e.op.began).Round(time.Millisecond))
		for _, w := range e.op.waiters {
			w.end(reloadEnd{result: result})
		}
		s.op = nil
		return
	}
	if board.Owner().Load() != uint64(s.pid) { // it had put itself in charge, and died
		board.Owner().Store(uint64(s.pid))
		board.Committed().Store(s.gen.number)
		_ = s.upstream.SendWait("MAINPID="+fmt.Sprint(s.pid), "READY=1", ipc.KeyProgram+"="+s.opts.Main.program)
	}
	board.Taker().Store(s.gen.number)
	s.settleRounds()
	s.adoptWorkers() // what it started leaves by itself
	s.tidy()
	for row := range s.outputs { // one with another scoreboard has had other pipes kept
		s.keepOutput(row)
	}
	said := cutProgress(e.said)
	if said == "" {
		said = e.err.Error()
	}
	s.conclude(rollout.RolledBack, said, nil)
}

// cutProgress returns what a successor said that was no progress: why it ended.
func cutProgress(lines []string) string {
	var said []string
	for _, line := range lines {
		if !strings.HasPrefix(line, progressPrefix) {
			said = append(said, strings.TrimPrefix(line, "preforkd: "))
		}
	}
	return strings.Join(said, "\n")
}

// tidy has the main process let go of what a successor, which has failed, had it keep.
func (s *Supervisor) tidy() {
	held, _, err := s.opts.Main.client.Fetch()
	if err != nil {
		s.log.Warn("kept descriptors not looked through", "err", err)
		return
	}
	mine := map[string]bool{}
	for _, sock := range s.gen.sockets {
		mine[sock.key] = true
	}
	for _, p := range s.gen.pools {
		for _, end := range queueEnds {
			mine[p.queueKey+"/"+end] = true
		}
	}
	for name, fd := range held {
		activation.Close(fd)
		if mine[name] || s.keepsGeneration(name) {
			continue
		}
		for _, prefix := range []string{ipc.KeptSocket, ipc.KeptQueue, ipc.KeptGeneration} {
			if strings.HasPrefix(name, prefix) {
				s.keeper.remove(name)
			}
		}
	}
}

// keepsGeneration tells whether name is of a generation that can be returned to.
func (s *Supervisor) keepsGeneration(name string) bool {
	for _, k := range s.kept {
		own := keptName(k.gen.number)
		if name == own || strings.HasPrefix(name, own+"/") {
			return true
		}
	}
	return false
}

// readyToUpgrade lets tableflip start successors of this process, which has none before it.
func (s *Supervisor) readyToUpgrade() {
	if s.opts.Main != nil {
		_ = s.opts.Main.upgrader.Ready()
	}
}

// Below is the successor's part.

// succeeds tells whether this process shall take over from a supervisor that runs.
func (m *Main) succeeds() bool { return m != nil && m.upgrader != nil && m.upgrader.Parent() > 0 }

// prepareSuccession makes what the successor needs of the generation in charge, whose
// workers stay its supervisor's.
func (s *Supervisor) prepareSuccession() error {
	if err := s.openFormerBoard(); err != nil {
		return err
	}
	if err := s.restoreKept(); err != nil {
		return err
	}
	if s.former == nil { // else what is kept belongs to rows of another board
		s.restoreOutputs()
	}
	s.everReady, s.announced = true, true
	for _, p := range s.gen.pools {
		s.proven[p.name] = true
	}
	go func() { // ends with the predecessor, or with this process
		s.opts.Main.upgrader.Left(s.ctx)
		s.send(askEvent{func() {
			if !s.inCharge && s.fatal == nil {
				s.fatal = &ipc.Failure{Exit: ipc.ExitBug, What: "the supervisor that began this upgrade has died"}
			}
		}})
	}()
	return nil
}

// openFormerBoard maps the predecessor's scoreboard. Where this program does not understand
// its rows it makes another, and has of the former one the words, which say who is in charge.
func (s *Supervisor) openFormerBoard() error {
	fd := s.opts.Main.take(ipc.FDBoard)
	board, err := scoreboard.Open(fd)
	if err == nil {
		s.shared = shared{board: board, boardFD: fd}
		return nil
	}
	defer activation.Close(fd)
	if s.former, err = scoreboard.OpenWords(fd); err != nil {
		return &ipc.Failure{
			Exit: ipc.ExitUnavailable, What: "succeed the supervisor that runs: " + err.Error(), Err: err,
			Try: "upgrade by way of the releases between, or restart the service",
		}
	}
	if s.shared, err = newShared(); err != nil {
		return err
	}
	number := s.former.Generation().Add(1) // which is the next one's, on both
	s.shared.board.Generation().Store(number - 1)
	s.shared.board.Committed().Store(s.former.Committed().Load())
	s.shared.board.Taker().Store(s.former.Taker().Load())
	return nil
}

// leaveSums has the main process keep what the scoreboard has counted, for a successor with
// another layout.
func (s *Supervisor) leaveSums(more ...string) {
	if err := s.keeper.storeJSON(ipc.KeptSums, s.shared.board.Sums(), more...); err != nil {
		s.log.Warn("sums of the scoreboard not left", "err", err)
	}
}

// sumsLimit is how long a predecessor may take to leave its sums.
const sumsLimit = 5 * time.Second

// carrySums begins the counters of the new scoreboard with what the predecessor's has, so
// that none falls. What its workers count while they drain is lost.
func (s *Supervisor) carrySums() {
	s.keeper.store(ipc.FDBoard, s.shared.boardFD, outliving)
	ctx, cancel := context.WithTimeout(s.ctx, sumsLimit)
	defer cancel()
	s.opts.Main.upgrader.Left(ctx)
	err := s.refetch()
	if err == nil {
		var sums scoreboard.Sums
		if sums, err = s.takeSums(); err == nil {
			err = s.shared.board.Carry(sums)
		}
	}
	if err != nil {
		s.log.Error("counters begin anew", "err", err)
	}
}

func (s *Supervisor) takeSums() (sums scoreboard.Sums, err error) {
	fd := s.opts.Main.take(ipc.KeptSums)
	if fd < 0 {
		return sums, errors.New("the predecessor left no sums")
	}
	return sums, readJSON(fd, &sums)
}

// refetch looks anew at what the main process keeps.
func (s *Supervisor) refetch() error {
	s.opts.Main.close()
	return s.opts.Main.fetch()
}

// say tells the predecessor, and whoever asked it, how the upgrade goes.
func (s *Supervisor) say(text string) {
	if s.opts.Main.succeeds() && !s.inCharge {
		fmt.Fprintln(os.Stderr, progressPrefix+text)
	}
}

// succeed puts this process in charge. False: another is by now.
func (s *Supervisor) succeed() bool {
	board := s.shared.board
	if s.former != nil {
		board = s.former
	}
	if !board.Owner().CompareAndSwap(uint64(s.opts.Main.upgrader.Parent()), uint64(s.pid)) {
		s.fatal = &ipc.Failure{Exit: ipc.ExitBug, What: "the supervisor that began this upgrade is no longer in charge"}
		return false
	}
	s.shared.board.Owner().Store(uint64(s.pid))
	s.inCharge = true
	return true
}

// succession completes the change once the next generation is in charge.
func (s *Supervisor) succession() {
	main := s.opts.Main
	if fd := main.take(ipc.KeptStderr); fd >= 0 {
		if err := upgrade.Restore(fd); err != nil {
			s.log.Warn("standard error goes to the predecessor", "err", err)
		}
	}
	if err := main.upgrader.Ready(); err != nil {
		s.log.Warn("the predecessor has died", "err", err)
	}
	if s.former != nil {
		s.former.Committed().Store(s.gen.number) // the predecessor's workers see that
		s.carrySums()
	}
	s.keepNotify()
	_ = s.upstream.SendWait(fmt.Sprintf("MAINPID=%d", s.pid), "READY=1", ipc.KeyProgram+"="+main.program)
	s.publish()
	if err := s.openOps(); err != nil {
		s.log.Error("no operations listener", "err", err)
	}
	if err := s.openAdmin(); err != nil {
		s.log.Error("no admin socket", "err", err)
	}
	if s.former == nil {
		if err := s.refetch(); err != nil { // the predecessor has started workers meanwhile
			s.log.Warn("output of the predecessor's workers may be lost", "err", err)
		}
		s.restoreOutputs()
	}
	s.adoptWorkers()
	main.close()
	s.log.Info("upgraded", "version", s.opts.Version, "generation", s.gen.number, "program", main.program)
}
