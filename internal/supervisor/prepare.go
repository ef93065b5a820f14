package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/notify"
	"preforkd/internal/supervisor/cache"
	"preforkd/internal/supervisor/machine"
	"preforkd/internal/supervisor/sizing"
	"preforkd/internal/supervisor/slot"
)

// generation is the first and, without reloads, the only one.
const generation = 1

// prepare makes everything that workers inherit. What it made before an error is
// released by release.
func (s *Supervisor) prepare() error {
	path, command, err := workerCommand(s.cfg.Worker.Command)
	if err != nil {
		return err
	}
	if s.upstream, err = notify.FromEnvironment(); err != nil {
		s.log.Warn("nobody will hear that this service is ready", "err", err)
	}
	if s.sockets, err = listen(s.cfg.Listen, s.log.Warn); err != nil {
		return err
	}
	if err := s.absolute(); err != nil {
		return err
	}
	models, err := cache.Collect(cache.Options{
		Models: s.cfg.Models, Cache: s.cfg.Cache.Dir, Decode: config.Decode,
		Shared: filepath.Dir(s.cfg.Cache.Dir) == "/var/tmp",
	})
	if err != nil {
		return err
	}
	for _, w := range models.Warnings {
		s.log.Warn("model directory", "warning", w)
	}
	if err := s.checkDefaultModel(models.Models); err != nil {
		return err
	}
	s.models = models.Models
	if err := s.seal(models.Models); err != nil {
		return err
	}
	if s.lifeline[0], s.lifeline[1], err = activation.Lifeline(); err != nil {
		return err
	}
	if s.server, err = notify.Listen(func(m notify.Message) { s.send(m) }); err != nil {
		return err
	}
	s.pool = s.newPool(path, command, models)
	return nil
}

func (s *Supervisor) newPool(path string, command []string, models *cache.Collection) *pool {
	found, err := machine.Read()
	if err != nil {
		s.log.Warn("machine not fully known", "err", err)
	}
	plan := sizing.Decide(sizing.Input{
		Cores: found.Cores, Available: found.Available, ModelBytes: models.Bytes(), Asked: int(s.cfg.Workers),
	})
	s.log.Info("pool sized", "workers", plan.Workers, "why", plan.Why)
	if plan.Warning != "" {
		s.log.Warn("pool may not fit", "warning", plan.Warning)
	}
	p := &pool{
		name: "main", path: path, command: command, procs: plan.Procs,
		clocks: clocks{boot: s.cfg.Timeouts.Boot, heartbeat: s.cfg.Timeouts.Heartbeat, drain: s.cfg.Timeouts.Drain},
		policy: slot.Policy{MaxCrashes: s.cfg.Worker.MaxCrashes, CrashWindow: s.cfg.Worker.CrashWindow},
	}
	for i := range plan.Workers {
		p.slots = append(p.slots, &poolSlot{index: i})
	}
	return p
}

func (s *Supervisor) startPool() {
	for _, sl := range s.pool.slots {
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
	for _, fd := range []int{s.manifest, s.lifeline[0], s.lifeline[1]} {
		activation.Close(fd)
	}
}

func (s *Supervisor) closeSockets() {
	for _, sock := range s.sockets {
		_ = sock.Close()
	}
	s.sockets = nil
}

// absolute makes the paths that workers use independent of this process's directory:
// they run in /.
func (s *Supervisor) absolute() (err error) {
	s.cfg.Cache.Dir = s.cfg.CacheDir(os.Getenv, os.Getuid())
	for _, path := range []*string{&s.cfg.Cache.Dir, &s.cfg.Inference.Library} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return fmt.Errorf("make %s absolute: %w", *path, err)
		}
	}
	return nil
}

// seal makes the manifest that every worker of the generation starts from.
func (s *Supervisor) seal(models []ipc.ModelFile) error {
	settings, err := json.Marshal(s.cfg)
	if err != nil {
		return fmt.Errorf("encode the configuration for workers: %w", err)
	}
	data, err := json.Marshal(ipc.Manifest{Generation: generation, Settings: settings, Models: models})
	if err != nil {
		return fmt.Errorf("encode the manifest: %w", err)
	}
	s.manifest, err = activation.Sealed("preforkd-manifest", data)
	return err
}

func (s *Supervisor) checkDefaultModel(models []ipc.ModelFile) error {
	want := s.cfg.Predict.Model
	if want == "" {
		return nil
	}
	var names []string
	for _, m := range models {
		if m.Name == want {
			return nil
		}
		names = append(names, m.Name)
	}
	return &ipc.Failure{
		Exit: ipc.ExitConfig, What: fmt.Sprintf("predict.model: %s is not in %s, which holds %s", want, s.cfg.Models, strings.Join(names, ", ")),
		Try: "name a model that is there, or remove the setting",
	}
}

// listen binds, or finds among the inherited sockets, every address.
func listen(addresses []config.Address, warn func(string, ...any)) ([]*activation.Socket, error) {
	inherited, err := activation.Inherited()
	if err != nil {
		return nil, &ipc.Failure{Exit: ipc.ExitUnavailable, What: err.Error(), Err: err, Try: "check the socket unit, or whoever sets LISTEN_FDS"}
	}
	var sockets []*activation.Socket
	fail := func(err error) ([]*activation.Socket, error) {
		for _, sock := range append(sockets, inherited.Sockets...) {
			_ = sock.Close()
		}
		return nil, err
	}
	for _, a := range addresses {
		if a.Network == "fd" { // a socket unit may give several sockets one name
			before := len(sockets)
			inherited.Sockets = slices.DeleteFunc(inherited.Sockets, func(sock *activation.Socket) bool {
				if sock.Name != a.Addr {
					return false
				}
				sockets = append(sockets, sock)
				return true
			})
			if len(sockets) == before {
				return fail(&ipc.Failure{
					Exit: ipc.ExitUnavailable, What: fmt.Sprintf("listen on fd:%s: no socket of that name was inherited", a.Addr),
					Try: "set FileDescriptorName=" + a.Addr + " in the socket unit, or set listen to an address",
				})
			}
			continue
		}
		sock, err := activation.Bind(activation.Spec{Network: a.Network, Address: a.Addr, Mode: a.Mode, Owner: a.Owner, Group: a.Group})
		if err != nil {
			return fail(err)
		}
		sock.Name = "http"
		sockets = append(sockets, sock)
	}
	for _, sock := range inherited.Sockets {
		warn("inherited socket not used: no listen entry names it", "name", sock.Name, "address", sock.Address)
		_ = sock.Close()
	}
	return sockets, nil
}

// workerCommand returns the worker's program and arguments: the setting, else our own
// worker, beside this program or on the search path.
func workerCommand(setting []string) (path string, command []string, err error) {
	if len(setting) > 0 {
		path, err = exec.LookPath(setting[0])
		if err != nil && !errors.Is(err, exec.ErrDot) {
			return "", nil, &ipc.Failure{Exit: ipc.ExitUnavailable, What: "worker.command: " + err.Error(), Err: err, Try: "write the program's path"}
		}
		path, err = filepath.Abs(path)
		return path, setting, err
	}
	const name = "preforkd-worker"
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(beside); err == nil {
			return beside, []string{name}, nil
		}
	}
	path, err = exec.LookPath(name)
	if err != nil {
		return "", nil, &ipc.Failure{
			Exit: ipc.ExitUnavailable, What: "find the worker: " + name + " is neither beside this program nor on $PATH", Err: err,
			Try: "make build, or set worker.command",
		}
	}
	return path, []string{name}, nil
}

// workerEnv is the environment of the next worker of sl.
func (s *Supervisor) workerEnv(sl *poolSlot) []string {
	var env []string
	hasProcs := false
	for _, e := range os.Environ() {
		key, _, _ := strings.Cut(e, "=")
		switch {
		case strings.HasPrefix(key, "LISTEN_"), strings.HasPrefix(key, "WATCHDOG_"), key == "NOTIFY_SOCKET":
			continue // they speak to us, not to our workers
		case key == "GOMAXPROCS":
			hasProcs = true
		}
		env = append(env, e)
	}
	if !hasProcs {
		env = append(env, "GOMAXPROCS="+strconv.Itoa(s.pool.procs))
	}
	names := make([]string, len(s.sockets))
	for i, sock := range s.sockets {
		names[i] = sock.Name
	}
	return append(env,
		"LISTEN_FDS="+strconv.Itoa(len(s.sockets)),
		"LISTEN_FDNAMES="+strings.Join(names, ":"),
		"NOTIFY_SOCKET="+s.server.Name(),
		"WATCHDOG_USEC="+strconv.FormatInt(s.pool.clocks.heartbeat.Microseconds(), 10), // sd_watchdog_enabled(3)
		ipc.EnvPool+"="+s.pool.name,
		ipc.EnvSlot+"="+strconv.Itoa(sl.index),
		ipc.EnvGeneration+"="+strconv.Itoa(generation),
		ipc.EnvFDNames+"="+ipc.FDManifest+":"+ipc.FDLifeline,
	)
}

// descriptors are what a worker inherits, in the order that workerEnv announces.
func (s *Supervisor) descriptors() []int {
	var fds []int
	for _, sock := range s.sockets {
		fds = append(fds, sock.FD)
	}
	return append(fds, s.manifest, s.lifeline[0])
}
