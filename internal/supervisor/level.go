package supervisor

import (
	"context"
	"sync"

	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/slot"
)

// levelOut makes the workers of p have about the same number of connections: clients that
// keep theirs would never meet the workers that were added, nor those that had no luck when
// the connections were accepted.
//
// It asks all how many they have, tells all the mean, and when those with more have given,
// that the round is over. The next operation ends it before (settleRounds).
func (s *Supervisor) levelOut(p *pool) {
	var all []*worker
	for _, sl := range p.slots {
		if sl.worker != nil && sl.worker.channel != nil && sl.worker.state == slot.Ready {
			all = append(all, sl.worker)
		}
	}
	if len(all) < 2 {
		return
	}
	round, limit := s.nextRound(), p.clocks.heartbeat
	ask := func(kind string, body any, reply func(i int) any) {
		ctx, cancel := context.WithTimeout(s.ctx, limit)
		defer cancel()
		var wg sync.WaitGroup
		for i, w := range all {
			wg.Go(func() { s.call(ctx, w, kind, body, reply(i)) }) // ends with the answer, the worker or the service
		}
		wg.Wait()
	}
	nothing := func(int) any { return nil }
	go func() { // ends with the answers
		counts := make([]ipc.Count, len(all))
		ask(ipc.ControlCount, nil, func(i int) any { return &counts[i] })
		total := 0
		for _, c := range counts {
			total += c.Connections
		}
		level := ipc.Level{Connections: (total + len(all) - 1) / len(all), Round: round}
		ask(ipc.ControlLevel, level, nothing)
		ask(ipc.ControlSettle, ipc.Settle{Round: round}, nothing)
	}()
}

// nextRound begins a round in which workers give connections away.
func (s *Supervisor) nextRound() uint64 {
	s.rounds++
	s.unsettled = true
	return s.rounds
}

// settleRounds ends every round, before workers leave: those that hold back or give themselves
// would take nothing of them.
func (s *Supervisor) settleRounds() {
	if !s.unsettled {
		return
	}
	s.unsettled = false
	for _, w := range s.byPID {
		if w.channel == nil || w.state != slot.Ready {
			continue
		}
		round, limit := s.rounds, w.slot.pool.clocks.heartbeat
		go func() { // ends with the answer, the worker or the service
			ctx, cancel := context.WithTimeout(s.ctx, limit)
			defer cancel()
			_ = w.channel.conn.Call(ctx, ipc.ControlSettle, ipc.Settle{Round: round}, nil) // who has ended has settled
		}()
	}
}
