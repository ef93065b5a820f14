package box

import (
	"strconv"
	"testing"
	"time"
)

// Options of Systemd. The zero value boots with a network of its own, loopback only.
type Options struct {
	Bind     map[string]string // files and directories of the host, read-only, by their place in the box
	Share    map[string]string // the same, writable
	CgroupV2 bool              // the unified tree; limits may then not be enforced
	Network  bool              // the host's network
	Journal  bool              // append what systemd itself wrote
	Limit    time.Duration     // then all is killed, and Exit is 124; 0: two minutes, and ten for Boot
}

// Systemd boots a throw-away box, runs a shell script in it as root, and returns the script's
// output and exit status. Nothing that it changes outlives it, except in o.Share.
func Systemd(t testing.TB, o Options, text string) Result {
	t.Helper()
	need(t, haveSystemd())
	if o.Limit == 0 {
		o.Limit = 2 * time.Minute
	}
	return mustRun(t, script(t, "systemd-box.sh"), o.arguments(text)...)
}

// arguments are those of systemd-box.sh.
func (o Options) arguments(text string) []string {
	args := []string{"--timeout", strconv.Itoa(int(o.Limit.Seconds()))}
	for place, path := range o.Bind {
		args = append(args, "--bind-ro", path+":"+place)
	}
	for place, path := range o.Share {
		args = append(args, "--bind", path+":"+place)
	}
	if o.CgroupV2 {
		args = append(args, "--cgroup", "v2")
	}
	if o.Network {
		args = append(args, "--net", "host")
	}
	if o.Journal {
		args = append(args, "--journal")
	}
	return append(args, "--", text)
}
