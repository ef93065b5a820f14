package supervisor

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"preforkd/internal/supervisor/process"
)

// fakeCounters stand for cgroups whose count of kills is theirs to say; a file that is
// not there cannot be read.
type fakeCounters struct {
	file  string // of every process
	kills map[string]uint64
}

func (f *fakeCounters) Counter(int) (string, error) {
	if f.file == "" {
		return "", errors.New("no memory cgroup")
	}
	return f.file, nil
}

func (f *fakeCounters) Kills(file string) (uint64, error) {
	n, ok := f.kills[file]
	if !ok {
		return 0, fmt.Errorf("%s is not there", file)
	}
	return n, nil
}

// TestOOMKillsAreExplainedOnce: histories of kills, samples and ends of workers a, b, c.
func TestOOMKillsAreExplainedOnce(t *testing.T) {
	const killed, aborted = syscall.WaitStatus(syscall.SIGKILL), syscall.WaitStatus(syscall.SIGABRT)
	type step struct {
		do     string // kernel: counts a kill; sample; start and end of a worker; lose: the file is gone
		name   string
		status syscall.WaitStatus
		ours   bool // we sent KILL
		want   bool
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"killed for want of memory", []step{{do: "kernel"}, {do: "end", name: "a", status: killed, want: true}}},
		{"killed by somebody", []step{{do: "end", name: "a", status: killed}}},
		{"the sample comes before the end is seen", []step{
			{do: "kernel"}, {do: "sample"}, {do: "end", name: "a", status: killed, want: true},
		}},
		{"a kill of something else grows old", []step{
			{do: "kernel"}, {do: "sample"}, {do: "sample"}, {do: "end", name: "a", status: killed},
		}},
		{"one kill, two deaths", []step{
			{do: "kernel"}, {do: "end", name: "a", status: killed, want: true}, {do: "end", name: "b", status: killed},
		}},
		{"two kills, two deaths, samples between", []step{
			{do: "kernel"},
			{do: "kernel"},
			{do: "end", name: "a", status: killed, want: true},
			{do: "sample"},
			{do: "end", name: "b", status: killed, want: true},
			{do: "sample"},
			{do: "sample"},
			{do: "end", name: "c", status: killed},
		}},
		{"other ends explain nothing", []step{
			{do: "kernel"},
			{do: "end", name: "a", status: aborted},
			{do: "end", name: "b", status: killed, ours: true},
			{do: "end", name: "c", status: killed, want: true},
		}},
		{"what was counted before the first start", []step{
			{do: "end", name: "a", status: killed},
			{do: "end", name: "b", status: killed},
			{do: "end", name: "c", status: killed},
			{do: "kernel"},
			{do: "start", name: "d"},
			{do: "end", name: "d", status: killed},
		}},
		{"a start among kills forgets none", []step{
			{do: "kernel"}, {do: "start", name: "d"}, {do: "end", name: "a", status: killed, want: true},
		}},
		{"the count cannot be read any more", []step{
			{do: "kernel"}, {do: "lose"}, {do: "sample"}, {do: "end", name: "a", status: killed},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake := &fakeCounters{file: "g", kills: map[string]uint64{"g": 5}}
			o := &oomKills{counters: fake, of: map[*worker]string{}, files: map[string]*killCount{}}
			workers := map[string]*worker{}
			start := func(name string) {
				workers[name] = &worker{proc: &process.Process{PID: 1}}
				o.started(workers[name])
			}
			for _, name := range []string{"a", "b", "c"} {
				start(name)
			}
			for i, s := range c.steps {
				switch s.do {
				case "kernel":
					fake.kills["g"]++
				case "lose":
					delete(fake.kills, "g")
				case "sample":
					o.sample()
				case "start":
					start(s.name)
				case "end":
					w := workers[s.name]
					w.exit.Status, w.killed = s.status, s.ours
					if got := o.ended(w); got != s.want {
						t.Errorf("step %d, end of %s: %v, want %v", i, s.name, got, s.want)
					}
				}
			}
		})
	}
}

// TestOOMWithoutCgroup: everything goes on, and nothing is put down to memory.
func TestOOMWithoutCgroup(t *testing.T) {
	for _, fake := range []*fakeCounters{{}, {file: "not there"}} {
		o := &oomKills{counters: fake, of: map[*worker]string{}, files: map[string]*killCount{}}
		w := &worker{proc: &process.Process{PID: 1}, exit: process.Exit{Status: syscall.WaitStatus(syscall.SIGKILL)}}
		o.started(w)
		o.sample()
		if o.ended(w) || len(o.of) > 0 || len(o.files) > 0 {
			t.Errorf("%+v", o)
		}
	}
}
