package supervisor

import (
	"context"
	"errors"
	"strings"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/supervisor/metrics"
	"preforkd/internal/supervisor/rollout"
	"preforkd/internal/supervisor/slot"
)

// ops is what the operations listener tells, beside the scoreboard.
type ops struct {
	socket  *background // nil: there is no listener
	address string
	reload  metrics.Reload
	failed  string // how the last reload failed; empty: it did not
}

// What supervisors count, one after the other, by name on the scoreboard.
const (
	tallyRestarts  = "worker_restarts/" // and why that had ended in whose place the worker was started
	tallyRecycles  = "worker_recycles/" // and why it was replaced while it served
	tallyStrangers = "notify_strangers" // notify messages of processes that are no workers
)

// background is a server that runs beside the loop.
type background struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

// serveBeside runs a server until end is called.
func (s *Supervisor) serveBeside(what string, serve func(context.Context) error) *background {
	ctx, cancel := context.WithCancel(context.Background())
	b := &background{cancel, make(chan struct{})}
	go func() { // ends in end
		defer close(b.ended)
		if err := serve(ctx); err != nil {
			s.log.Error(what+" ended", "err", err)
		}
	}()
	return b
}

func (b *background) end() {
	if b != nil {
		b.cancel()
		<-b.ended
	}
}

// openOps serves the operations listener. At the address that nobody asked for another
// service of this machine may listen: then this one goes without.
func (s *Supervisor) openOps() error {
	s.ops.reload = metrics.Reload{OK: true, At: time.Now()}
	address, asked := s.cfg.OpsAddress()
	if address == "" {
		return nil
	}
	var server *metrics.Server
	socket, err := s.keptSocket(ipc.KeptOps, func() (*activation.Socket, error) { return metrics.Bind(address) })
	if err == nil {
		server, err = metrics.Open(socket, metrics.Options{Version: s.opts.Version, Board: s.shared.board, Ask: s.snapshot, Health: s.opsHealth})
	}
	if err != nil && !asked {
		s.log.Warn("no metrics: set ops.listen to an address of this service's own, or to off", "err", headline(err.Error()))
		return nil
	}
	if err != nil {
		return opsFailure(err)
	}
	s.ops.address = server.Address()
	s.ops.socket = s.serveBeside("operations listener", server.Serve)
	s.log.Info("operations listener open", "address", s.ops.address, "metrics", "http://"+reachable(s.ops.address)+"/metrics")
	return nil
}

// opsFailure words err for the setting.
func opsFailure(err error) error {
	f := (*ipc.Failure)(nil)
	if !errors.As(err, &f) {
		f = &ipc.Failure{Exit: ipc.ExitUnavailable, What: err.Error()}
	}
	return &ipc.Failure{
		Exit: f.Exit, What: "ops.listen: " + f.What, Err: err,
		Try: "set ops.listen to another address, or to off; ss -ltnp shows who listens where",
	}
}

// snapshot returns what the loop knows.
func (s *Supervisor) snapshot(ctx context.Context) (got metrics.Snapshot, err error) {
	err = s.ask(ctx, func() {
		got = metrics.Snapshot{
			Generation: s.gen.number, Reload: s.ops.reload, RolledBack: s.current().origin > 0,
			Strangers: s.shared.board.Tally(tallyStrangers).Load(), Pools: s.poolMetrics(), Restarts: map[string]uint64{},
			Models: s.modelMetrics(),
		}
		if m := s.describeMemory(); m != nil {
			got.Memory = &metrics.Memory{
				Limit: m.Limit, Used: m.Used, Mapped: m.Mapped, Level: int(s.pressure.watch.State().Level),
				Stalled: s.pressure.found.Stalled, StallKnown: s.pressure.found.StallKnown, MajorFaults: s.pressure.found.MajorFaults, Kills: s.pressure.found.Kills,
			}
		}
		got.Recycles = map[string]uint64{}
		for _, r := range recycleReasons {
			got.Recycles[r] = s.shared.board.Tally(tallyRecycles + r).Load()
		}
		for _, r := range slot.Reasons() {
			got.Restarts[r.Cause()] = s.shared.board.Tally(tallyRestarts + r.Cause()).Load()
		}
	})
	return got, err
}

// poolMetrics counts the workers of each pool that the generation in charge has, or that
// still has any.
func (s *Supervisor) poolMetrics() (pools []metrics.Pool) {
	index := map[string]int{}
	add := func(name string, size int) int {
		p := metrics.Pool{Name: name, Size: size, States: map[string]int{}}
		for _, st := range slot.Alive() {
			p.States[st.String()] = 0
		}
		index[name] = len(pools)
		pools = append(pools, p)
		return index[name]
	}
	for _, p := range s.gen.pools {
		i := add(p.name, p.size)
		pools[i].Queued, pools[i].Oldest = p.queued()
	}
	for _, w := range s.byPID {
		i, ok := index[w.slot.pool.name]
		if !ok {
			i = add(w.slot.pool.name, 0)
		}
		pools[i].States[w.state.String()]++
	}
	return pools
}

// reloaded records how a reload ended, for those who did not ask for it. A rehearsal
// changes nothing, and neither does one that the end of the service cut off.
func (s *Supervisor) reloaded(op *operation, outcome rollout.Outcome, reason string) {
	if op.dryRun || outcome == rollout.Stopped {
		return
	}
	s.ops.reload = metrics.Reload{OK: outcome == rollout.Committed, At: time.Now()}
	s.ops.failed = ""
	if outcome != rollout.Committed {
		s.ops.failed = "; the last " + op.purpose.String() + " failed: " + headline(reason)
	}
}

// headline returns the first line of text, for places that have no more.
func headline(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
