package supervisor

import (
	"preforkd/internal/supervisor/machine"
)

// oomKills tells which workers the kernel killed for want of memory. It says so nowhere but
// in a count of each memory cgroup, which workers share: it rises before the process gets
// its KILL. A worker's death by a KILL that we did not send explains one kill of those
// that have been counted lately.
//
// Who counts late is mistaken: a kill of another process in the cgroup, and within two
// samples a worker's death by somebody else's KILL, look like a worker's OOM kill.
type oomKills struct {
	counters counters
	of       map[*worker]string // the cgroup's file, as Counter names it
	files    map[string]*killCount
}

// counters is machine.OOM; a test has its own.
type counters interface {
	Counter(pid int) (string, error)
	Kills(file string) (uint64, error)
}

// killCount is what is known of one cgroup.
type killCount struct {
	explained uint64 // so many kills are some process's, or too old
	sampled   uint64 // the count at the last sample
	workers   int    // that are in the cgroup
}

// started finds the cgroup of w. Without one, or without its count, no death of w will
// be put down to memory.
func (o *oomKills) started(w *worker) {
	if o.counters == nil {
		o.counters, o.of, o.files = machine.OOM{}, map[*worker]string{}, map[string]*killCount{}
	}
	file, err := o.counters.Counter(w.proc.PID)
	if err != nil {
		return
	}
	c := o.files[file]
	if c == nil {
		now, err := o.counters.Kills(file)
		if err != nil {
			return
		}
		c = &killCount{explained: now, sampled: now}
		o.files[file] = c
	}
	c.workers++
	o.of[w] = file
}

// sample lets kills grow old that no worker's death has explained. It believes the sample
// before: a worker that was killed since then may not have been reaped yet.
func (o *oomKills) sample() {
	for file, c := range o.files {
		c.explained = max(c.explained, c.sampled)
		if now, err := o.counters.Kills(file); err == nil {
			c.sampled = now
		}
	}
}

// ended tells whether the end of w, which w.exit holds, was an OOM kill, and forgets w.
func (o *oomKills) ended(w *worker) bool {
	file, ok := o.of[w]
	if !ok {
		return false
	}
	delete(o.of, w)
	c := o.files[file]
	if c.workers--; c.workers == 0 {
		delete(o.files, file)
	}
	if !w.exit.Killed() || w.killed {
		return false
	}
	now, err := o.counters.Kills(file)
	if err != nil || now <= c.explained {
		return false
	}
	c.explained++
	return true
}
