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
		env = append(env, "GOMAXPROCS="+strconv.Itoa(sl.pool.procs))
	}
	names := make([]string, len(s.sockets))
	for i, sock := range s.sockets {
		names[i] = sock.Name
	}
	return append(env,
		"LISTEN_FDS="+strconv.Itoa(len(s.sockets)),
		"LISTEN_FDNAMES="+strings.Join(names, ":"),
		"NOTIFY_SOCKET="+s.server.Name(),
		"WATCHDOG_USEC="+strconv.FormatInt(sl.pool.clocks.heartbeat.Microseconds(), 10), // sd_watchdog_enabled(3)
		ipc.EnvPool+"="+sl.pool.name,
		ipc.EnvSlot+"="+strconv.Itoa(sl.index),
		ipc.EnvGeneration+"="+strconv.FormatUint(sl.pool.gen.number, 10),
		ipc.EnvFDNames+"="+ipc.FDManifest+":"+ipc.FDLifeline,
	)
}

// descriptors are what a worker of g inherits, in the order that workerEnv announces.
func (s *Supervisor) descriptors(g *generation) []int {
	var fds []int
	for _, sock := range s.sockets {
		fds = append(fds, sock.FD)
	}
	return append(fds, g.manifest, s.lifeline[0])
}
