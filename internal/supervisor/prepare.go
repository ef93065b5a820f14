package supervisor

import (
	"os"
	"time"

	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/notify"
	"preforkd/internal/supervisor/admin"
)

// prepare makes everything that workers inherit. What it made before an error is
// released by release.
func (s *Supervisor) prepare() (err error) {
	if s.upstream, err = notify.FromEnvironment(); err != nil {
		s.log.Warn("nobody will hear that this service is ready", "err", err)
	}
	if s.shared, err = newShared(); err != nil {
		return err
	}
	number := s.shared.board.Generation().Add(1)
	if s.gen, err = s.newGeneration(number, s.cfg, nil); err != nil {
		return err
	}
	s.kept = []*kept{{gen: s.gen, committed: time.Now(), cause: "start"}}
	s.shared.board.Committed().Store(number)
	s.shared.board.Taker().Store(number)
	s.shared.board.Owner().Store(uint64(s.pid))
	if s.lifeline[0], s.lifeline[1], err = activation.Lifeline(); err != nil {
		return err
	}
	if s.server, err = notify.Listen(func(m notify.Message) { s.send(m) }); err != nil {
		return err
	}
	if err := s.openOps(); err != nil {
		return err
	}
	return s.openAdmin()
}

// openAdmin serves the admin socket. One that nobody asked for by name may be in use by
// another service on this machine: then this one goes without.
func (s *Supervisor) openAdmin() error {
	path := s.cfg.AdminSocket(os.Getenv, os.Getuid())
	if path == "" {
		return nil
	}
	server, err := admin.Open(path, service{s})
	if err != nil {
		if s.cfg.Admin == "" {
			s.log.Warn("no admin socket: set admin to a path of this service's own", "err", err)
			return nil
		}
		return err
	}
	s.admin = s.serveBeside("admin socket", server.Serve)
	s.log.Info("admin socket open", "path", path)
	return nil
}

// startPools starts the first workers.
func (s *Supervisor) startPools() {
	for _, sl := range s.gen.slots() {
		s.start(sl)
	}
}

// release gives back what prepare made, and waits for whom it started.
func (s *Supervisor) release() {
	s.admin.end()
	s.ops.socket.end()
	if s.server != nil {
		_ = s.server.Close()
	}
	_ = s.upstream.Close()
	for _, k := range s.kept {
		k.gen.release(nil)
	}
	s.sweeps.Wait()
	s.shared.release()
	if s.probes != "" {
		_ = os.RemoveAll(s.probes)
	}
	activation.Close(s.lifeline[0])
	activation.Close(s.lifeline[1])
}
