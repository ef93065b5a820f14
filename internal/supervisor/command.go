package supervisor

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"preforkd/internal/ipc"
)

// workerCommand returns the worker's program and arguments: the setting, else our own
// worker, beside this program or on the search path. key is that of the setting.
func workerCommand(key string, setting []string) (path string, command []string, err error) {
	if len(setting) > 0 {
		path, err = exec.LookPath(setting[0])
		if err != nil && !errors.Is(err, exec.ErrDot) {
			return "", nil, &ipc.Failure{Exit: ipc.ExitUnavailable, What: key + ": " + err.Error(), Err: err, Try: "write the program's path"}
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

// inheritable is the environment that this process has, less what is meant for itself.
func inheritable() (env []string) {
	for _, e := range os.Environ() {
		key, _, _ := strings.Cut(e, "=")
		if strings.HasPrefix(key, "LISTEN_") || strings.HasPrefix(key, "WATCHDOG_") || key == "NOTIFY_SOCKET" || key == ipc.EnvProgram {
			continue
		}
		env = append(env, e)
	}
	return env
}

// environment is what any program understands of what is in the environment of w; names are those
// of the listening sockets.
func (s *Supervisor) environment(w *worker, names []string) []string {
	sl := w.slot
	return []string{
		"LISTEN_FDS=" + strconv.Itoa(len(names)),
		"LISTEN_FDNAMES=" + strings.Join(names, ":"),
		"NOTIFY_SOCKET=" + s.server.Name(),
		ipc.EnvPool + "=" + sl.pool.name,
		ipc.EnvSlot + "=" + strconv.Itoa(sl.index),
		ipc.EnvGeneration + "=" + strconv.FormatUint(sl.pool.gen.number, 10),
	}
}

// watchdog is sd_watchdog_enabled(3).
func watchdog(w *worker) string {
	return "WATCHDOG_USEC=" + strconv.FormatInt(w.slot.pool.clocks.heartbeat.Microseconds(), 10)
}

// socketNames are those of p's sockets, in their order.
func (p *pool) socketNames() []string {
	names := make([]string, len(p.sockets))
	for i, sock := range p.sockets {
		names[i] = sock.Name
	}
	return names
}

// socketFDs are the descriptors of p's sockets.
func (p *pool) socketFDs() []int {
	fds := make([]int, len(p.sockets))
	for i, sock := range p.sockets {
		fds[i] = sock.FD
	}
	return fds
}

// workerEnv is the environment of w, a worker of ours.
func (s *Supervisor) workerEnv(w *worker) []string {
	sl := w.slot
	env := inheritable()
	if _, set := os.LookupEnv("GOMAXPROCS"); !set {
		env = append(env, "GOMAXPROCS="+strconv.Itoa(sl.pool.procs))
	}
	if _, set := os.LookupEnv("GOMEMLIMIT"); !set && sl.pool.goMemory > 0 {
		env = append(env, "GOMEMLIMIT="+strconv.FormatUint(sl.pool.goMemory, 10))
	}
	extra := []string{
		ipc.FDManifest, ipc.FDLifeline, ipc.FDBoard, ipc.FDControl,
	}
	extra = append(extra, queueEnds[:]...)
	if sl.pool.programs.engine != nil {
		extra = append(extra, ipc.FDLibrary)
	}
	if sl.pool.asks() {
		extra = append(extra, ipc.FDHelpers)
	}
	if s.proves(sl.pool) {
		env = append(env, ipc.EnvProves+"=1")
	}
	if sl.startHeld {
		env = append(env, ipc.EnvHeld+"=1")
	}
	env = append(env, s.environment(w, sl.pool.socketNames())...)
	return append(env, watchdog(w),
		ipc.EnvRow+"="+w.row.Ticket(),
		ipc.EnvFDNames+"="+strings.Join(extra, ":"),
	)
}

// descriptors are what w inherits, in the order that workerEnv announces.
func (s *Supervisor) descriptors(w *worker) []int {
	p := w.slot.pool
	fds := append(p.socketFDs(), p.manifest, s.lifeline[0], s.shared.boardFD, w.channel.worker)
	fds = append(fds, p.queues[:]...)
	if p.programs.engine != nil {
		fds = append(fds, int(p.programs.engine.Fd()))
	}
	if p.asks() {
		fds = append(fds, s.helpers.fd)
	}
	return fds
}
