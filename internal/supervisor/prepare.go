package supervisor

import (
	"errors"
	"os"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/notify"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/process"
)

// prepare makes everything that workers inherit. What it made before an error is
// released by release.
func (s *Supervisor) prepare() (err error) {
	if err := s.connect(); err != nil {
		return err
	}
	if err := s.beginOrGoOn(); err != nil {
		return err
	}
	if err := s.listenNotify(); err != nil || s.opts.Main.succeeds() {
		return err // the rest follows when this process is in charge
	}
	if err := s.openOps(); err != nil {
		return err
	}
	if err := s.openAdmin(); err != nil {
		return err
	}
	s.opts.Main.close() // what nobody has taken is of use to nobody
	return nil
}

// beginOrGoOn makes the first generation, or the one in charge from what is kept.
func (s *Supervisor) beginOrGoOn() error {
	if s.opts.Main.succeeds() {
		return s.prepareSuccession()
	}
	taken, err := s.takeOver()
	if err == nil && !taken {
		err = s.begins()
	}
	return err
}

// connect finds whoever started this process.
func (s *Supervisor) connect() (err error) {
	if main := s.opts.Main; main != nil {
		s.keeper = &keeper{client: main.client, log: s.log}
		s.upstream = main.client
		s.oomAbove = process.RaiseOOMScore(main.client.Peer(), oomScoreAdd)
		if s.lifeline[0] = main.take(ipc.FDLifeline); s.lifeline[0] < 0 {
			return errors.New("the main process has no lifeline: are preforkd and preforkd-anchor of one version?")
		}
		s.awaitMain()
		return nil
	}
	if s.upstream, err = notify.FromEnvironment(); err != nil {
		s.log.Warn("nobody will hear that this service is ready", "err", err)
	}
	s.lifeline[0], s.lifeline[1], err = activation.Lifeline()
	return err
}

// begins makes the first generation.
func (s *Supervisor) begins() (err error) {
	before := s.restoreService()
	if s.shared.board == nil {
		if s.shared, err = newShared(); err != nil {
			return err
		}
		s.restoreSums()
	}
	s.keeper.store(ipc.FDBoard, s.shared.boardFD, outliving)
	number := s.shared.board.Generation().Add(1)
	if s.gen, err = s.newGeneration(number, s.cfg, before); err != nil {
		return err
	}
	if before != nil {
		before.retire(s.gen)
	}
	s.dropLeft()
	k := &kept{gen: s.gen, committed: time.Now(), cause: "start"}
	s.kept = []*kept{k}
	s.keepGeneration(k)
	s.shared.board.Committed().Store(number)
	s.shared.board.Taker().Store(number)
	s.shared.board.Owner().Store(uint64(s.pid))
	s.inCharge = true
	return nil
}

// openAdmin serves the admin socket. One that nobody asked for by name may be in use by
// another service on this machine: then this one goes without.
func (s *Supervisor) openAdmin() error {
	path := s.cfg.AdminSocket(os.Getenv, os.Getuid())
	if path == "" {
		return nil
	}
	var server *admin.Server
	socket, err := s.keptSocket(ipc.KeptAdmin, func() (*activation.Socket, error) { return admin.Bind(path) })
	if err == nil {
		server, err = admin.Open(socket, service{s})
	}
	if err != nil {
		if s.cfg.Admin == "" {
			s.log.Warn("no admin socket: operators cannot reach this service", "err", err)
			return nil
		}
		return err
	}
	s.adminServer = server
	s.admin = s.serveBeside("admin socket", server.Serve)
	s.log.Info("admin socket open", "path", path)
	if s.cfg.Admin == "" && os.Getenv("INVOCATION_ID") != "" && os.Getenv("RUNTIME_DIRECTORY") == "" { // systemd.exec(5)
		s.log.Warn("operators outside of the unit may not reach the admin socket: set RuntimeDirectory=preforkd in the unit, or admin to a path", "path", path)
	}
	return nil
}

// startPools starts the first workers.
func (s *Supervisor) startPools() {
	for _, sl := range s.gen.slots() {
		s.start(sl)
	}
}

// leaveService ends what this process serves itself, and leaves everything else as it is.
func (s *Supervisor) leaveService() {
	if s.adminServer != nil {
		s.adminServer.Leave()
	}
	s.admin.end()
	s.ops.socket.end()
	if s.server != nil {
		_ = s.server.Close()
	}
	s.sweeps.Wait()
}

// release gives back what prepare made, and waits for whom it started.
func (s *Supervisor) release() {
	if !s.inCharge || s.succeeded { // what there is belongs to the service, which goes on
		s.leaveService()
		return
	}
	s.admin.end()
	s.ops.socket.end()
	if s.server != nil {
		_ = s.server.Close()
	}
	_ = s.upstream.Close()
	for _, k := range s.kept {
		k.gen.release(nil)
	}
	s.endBroker()
	s.sweeps.Wait()
	s.shared.release()
	if s.probes != "" {
		_ = os.RemoveAll(s.probes)
	}
	s.helpers.remove()
	activation.Close(s.lifeline[0])
	activation.Close(s.lifeline[1])
	for _, pipe := range s.outputs {
		activation.Close(pipe[0])
		activation.Close(pipe[1])
	}
	s.opts.Main.close()
}
