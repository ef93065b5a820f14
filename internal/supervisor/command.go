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

// workerEnv is the environment of w.
func (s *Supervisor) workerEnv(w *worker) []string {
	sl := w.slot
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
		env = append(env, "GOMAXPROCS="+strconv.Itoa(sl.pool.procs))
	}
	extra := []string{
		ipc.FDManifest, ipc.FDLifeline, ipc.FDBoard, ipc.FDControl, ipc.FDAdoptIn, ipc.FDAdoptOut,
	}
	if sl.pool.gen.programs.engine != nil {
		extra = append(extra, ipc.FDLibrary)
	}
	sockets := sl.pool.gen.sockets
	names := make([]string, len(sockets))
	for i, sock := range sockets {
		names[i] = sock.Name
	}
	if sl.startHeld {
		env = append(env, ipc.EnvHeld+"=1")
	}
	return append(env,
		ipc.EnvRow+"="+w.row.Ticket(),
		"LISTEN_FDS="+strconv.Itoa(len(sockets)),
		"LISTEN_FDNAMES="+strings.Join(names, ":"),
		"NOTIFY_SOCKET="+s.server.Name(),
		"WATCHDOG_USEC="+strconv.FormatInt(sl.pool.clocks.heartbeat.Microseconds(), 10), // sd_watchdog_enabled(3)
		ipc.EnvPool+"="+sl.pool.name,
		ipc.EnvSlot+"="+strconv.Itoa(sl.index),
		ipc.EnvGeneration+"="+strconv.FormatUint(sl.pool.gen.number, 10),
		ipc.EnvFDNames+"="+strings.Join(extra, ":"),
	)
}

// descriptors are what w inherits, in the order that workerEnv announces.
func (s *Supervisor) descriptors(w *worker) []int {
	g := w.slot.pool.gen
	var fds []int
	for _, sock := range g.sockets {
		fds = append(fds, sock.FD)
	}
	fds = append(fds, g.manifest, s.lifeline[0], s.shared.boardFD, w.channel.worker, s.shared.adopt[0], s.shared.adopt[1])
	if g.programs.engine != nil {
		fds = append(fds, int(g.programs.engine.Fd()))
	}
	return fds
}
