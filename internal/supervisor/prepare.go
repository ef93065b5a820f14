package supervisor

import (
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/notify"
)

// prepare makes everything that workers inherit. What it made before an error is
// released by release.
func (s *Supervisor) prepare() (err error) {
	if s.upstream, err = notify.FromEnvironment(); err != nil {
		s.log.Warn("nobody will hear that this service is ready", "err", err)
	}
	if s.sockets, err = listen(s.cfg.Listen, s.log.Warn); err != nil {
		return err
	}
	if s.gen, err = s.newGeneration(1, s.cfg); err != nil {
		return err
	}
	if s.lifeline[0], s.lifeline[1], err = activation.Lifeline(); err != nil {
		return err
	}
	s.server, err = notify.Listen(func(m notify.Message) { s.send(m) })
	return err
}

func (s *Supervisor) startPool() {
	for _, sl := range s.gen.pool.slots {
		s.start(sl)
	}
}

// release gives back what prepare made, and waits for whom it started.
func (s *Supervisor) release() {
	if s.server != nil {
		_ = s.server.Close()
	}
	_ = s.upstream.Close()
	s.closeSockets()
	if s.gen != nil {
		s.gen.release()
	}
	activation.Close(s.lifeline[0])
	activation.Close(s.lifeline[1])
}

func (s *Supervisor) closeSockets() {
	for _, sock := range s.sockets {
		_ = sock.Close()
	}
	s.sockets = nil
}
