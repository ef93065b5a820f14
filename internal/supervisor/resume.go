package supervisor

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/scoreboard"
)

// A service manager with a store for descriptors keeps sockets, queues and scoreboard between
// two starts of the service. The next start reads configuration and models as any does, but
// listens on the same sockets, in whose queues clients wait meanwhile, finds the connections
// that the workers left in the pools' queues, and counts on.

// keptService is what of a generation in charge the next start goes on with.
type keptService struct {
	Generation uint64       `json:"generation"`
	Sockets    []keptSocket `json:"sockets,omitempty"`
	Pools      []keptQueue  `json:"pools,omitempty"`
}

type keptQueue struct {
	Name   string `json:"name"`
	Number int    `json:"number"`
	Queue  string `json:"queue,omitempty"`
}

// keepService has the service manager keep what the next start goes on with.
func (s *Supervisor) keepService(g *generation) {
	if !s.opts.Main.outlives() {
		return
	}
	r := keptService{Generation: g.number}
	for _, sock := range g.sockets {
		if sock.from.Network != "fd" {
			r.Sockets = append(r.Sockets, keptSocket{Key: sock.key, Name: sock.Name, From: sock.from, Own: sock.Owned()})
		}
	}
	for _, p := range g.pools {
		r.Pools = append(r.Pools, keptQueue{Name: p.name, Number: p.number, Queue: p.queueKey})
	}
	if err := s.keeper.storeJSON(ipc.KeptService, r, outliving); err != nil {
		s.log.Error("service not kept: its next start opens sockets of its own", "err", err)
	}
}

// freeze leaves sockets, queues and scoreboard as they are: the service stops, and they are
// its next start's.
func (s *Supervisor) freeze() {
	if s.opts.Main.outlives() {
		s.keeper.frozen.Store(true)
	}
}

// isFrozen tells whether freeze had something to leave.
func (k *keeper) isFrozen() bool { return k != nil && k.frozen.Load() }

// restoreService maps the scoreboard that the service's last run left, and returns a
// generation that has that run's sockets and queues, and no workers; nil: this is no next
// start, or nothing of use was left, and a new service begins.
func (s *Supervisor) restoreService() *generation {
	main := s.opts.Main
	if main == nil || !main.restored {
		return nil
	}
	board, err := s.openLeftBoard()
	if err != nil {
		s.log.Warn("counters of the service's last run not taken over", "err", err)
	}
	var r keptService
	err = fmt.Errorf("%s was not kept", ipc.KeptService)
	if fd := main.take(ipc.KeptService); fd >= 0 {
		err = readJSON(fd, &r)
	}
	if err != nil {
		s.log.Warn("sockets of the service's last run not taken over", "err", err)
		return nil
	}
	g := &generation{number: r.Generation, cfg: s.cfg, keeper: s.keeper}
	s.restoreLeftSockets(g, r.Sockets)
	for _, kq := range r.Pools {
		p := &pool{gen: g, name: kq.Name, cfg: s.cfg, queues: noQueues, queueKey: kq.Queue}
		s.numbers[kq.Name] = kq.Number
		s.takeQueues(p)
		g.pools = append(g.pools, p)
	}
	s.restored = true
	s.log.Info("service goes on with what its last run left", "generation", r.Generation, "sockets", len(g.sockets), "counters", board)
	return g
}

// openLeftBoard maps the scoreboard of the last run, whose processes have all ended: their
// numbers may be those of others by now.
func (s *Supervisor) openLeftBoard() (bool, error) {
	fd := s.opts.Main.take(ipc.FDBoard)
	if fd < 0 {
		return false, nil
	}
	board, err := scoreboard.Open(fd)
	if err != nil {
		activation.Close(fd)
		return false, err
	}
	for _, row := range board.Rows() {
		if row.Claimer() != 0 {
			s.settleRow(row, row.PID())
		}
	}
	board.Stopping().Store(0)
	board.Unready().Store(0)
	s.shared = shared{board: board, boardFD: fd}
	return true, nil
}

// restoreSums begins the counters with what the last run counted on a scoreboard that this
// program does not understand.
func (s *Supervisor) restoreSums() {
	main := s.opts.Main
	if main == nil || !main.restored {
		return
	}
	sums, err := s.takeSums()
	if err == nil {
		err = s.shared.board.Carry(sums)
	}
	if err != nil {
		s.log.Warn("counters begin anew", "err", err)
	}
}

// restoreLeftSockets takes the sockets that the last run left. One whose file somebody has
// removed meanwhile leads nobody here any more.
func (s *Supervisor) restoreLeftSockets(g *generation, sockets []keptSocket) {
	for _, ks := range sockets {
		fd := s.opts.Main.take(ks.Key)
		if fd < 0 {
			continue
		}
		sock, err := activation.Adopt(fd, ks.Name)
		if err == nil && sock.Network == "unix" {
			if _, err = os.Lstat(sock.Address); err != nil {
				_ = sock.Close()
			}
		}
		if err != nil {
			s.log.Warn("socket of the service's last run not taken over", "address", ks.From.String(), "err", err)
			s.keeper.remove(ks.Key)
			continue
		}
		if ks.Own {
			sock.Own()
		}
		g.sockets = append(g.sockets, boundSocket{Socket: sock, from: ks.From, key: ks.Key})
	}
}

// takeQueues takes the queues of p that are kept: both ends of each, or none.
func (s *Supervisor) takeQueues(p *pool) {
	if p.queueKey == "" {
		return
	}
	for i, end := range queueEnds {
		p.queues[i] = s.opts.Main.take(p.queueKey + "/" + end)
	}
	if slices.Contains(p.queues[:], -1) {
		for _, fd := range p.queues {
			activation.Close(fd)
		}
		p.queues = noQueues
	}
}

// dropLeft has what the last run left, and this one has no use for, removed.
func (s *Supervisor) dropLeft() {
	if s.opts.Main == nil || !s.opts.Main.restored {
		return
	}
	s.keeper.remove(ipc.KeptSums)
	for _, name := range s.opts.Main.names("") {
		if strings.HasPrefix(name, ipc.KeptSocket) || strings.HasPrefix(name, ipc.KeptQueue) {
			s.keeper.remove(name)
		}
	}
}
