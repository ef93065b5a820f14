package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// TasksPool is the name of the pool whose workers run background tasks and nothing else.
const TasksPool = "tasks"

// Tasks is the section of background tasks.
type Tasks struct {
	// Enabled has clients submit tasks, and a broker of this machine keep them unless URL is set.
	Enabled bool `yaml:"enabled" default:"false"`
	// Workers is how many processes run tasks and nothing else; 0: none.
	Workers int `yaml:"workers" default:"1" check:"0..1024"`
	// InWorkers has the workers that answer requests run tasks as well, when no request waits.
	InWorkers bool `yaml:"in_workers" default:"false"`
	// Only has the main pool run tasks, and answer nobody.
	Only bool `yaml:"only" default:"false"`
	// MaxInput is the largest body of a task, in bytes.
	MaxInput Bytes `yaml:"max_input" default:"8MiB" check:"1KiB..64MiB"`
	// MaxTasks and MaxBytes bound what waits for each model.
	MaxTasks int   `yaml:"max_tasks" default:"10000" check:"1..10000000"`
	MaxBytes Bytes `yaml:"max_bytes" default:"1GiB" check:"1MiB..1TiB"`
	// Timeout is how long a task may run, MaxWait how long it may wait, ResultTTL how long its
	// outcome is kept.
	Timeout   time.Duration `yaml:"timeout" default:"10m" check:"1ms..24h"`
	MaxWait   time.Duration `yaml:"max_wait" default:"24h" check:"1s..720h"`
	ResultTTL time.Duration `yaml:"result_ttl" default:"1h" check:"1s..720h"`
	// Attempts is how often a task is run that fails, MaxCrashes how many workers it may end.
	Attempts   int `yaml:"attempts" default:"3" check:"1..100"`
	MaxCrashes int `yaml:"max_crashes" default:"3" check:"1..100"`
	// Silence is how long a run may be unheard of before the task is given to another worker.
	Silence time.Duration `yaml:"silence" default:"15s" check:"1s..1h"`

	// Store is the directory of this machine's broker; empty: see TaskStore.
	Store string `yaml:"store"`
	// AllowMemory allows a store in memory.
	AllowMemory bool `yaml:"allow_memory" default:"false"`
	// MaxStore is how much the broker stores, Reserve what it leaves free on the disk; Memory is
	// what its garbage collector keeps to.
	MaxStore Bytes `yaml:"max_store" default:"10GiB" check:"16MiB..1024TiB"`
	Reserve  Bytes `yaml:"reserve" default:"64MiB" check:"0..1TiB"`
	Memory   Bytes `yaml:"memory" default:"256MiB" check:"32MiB..1TiB"`
	// Sync is how often what was accepted is brought to the disk; 0: before each answer.
	Sync time.Duration `yaml:"sync" default:"0s" check:"0s..1h"`

	// URL are the servers of an external queue, joined by commas; empty: this machine's broker.
	URL         string `yaml:"url"`
	Credentials string `yaml:"credentials"` // file with a JWT and its key
	NKey        string `yaml:"nkey"`        // file with a key
	CA          string `yaml:"ca"`          // file with certificates of authorities; empty: the system's
	Cert        string `yaml:"cert"`        // file with a certificate of our own
	Key         string `yaml:"key"`         // and with its key
	// Prefix begins the names of all streams and subjects, Replicas is how often each is kept.
	Prefix   string `yaml:"prefix" default:"preforkd" check:"nonempty"`
	Replicas int    `yaml:"replicas" default:"3" check:"1..5"`
}

// Embedded tells whether this machine's broker keeps the tasks.
func (t *Tasks) Embedded() bool { return t.Enabled && t.URL == "" }

// hasPool tells whether there is a pool that runs tasks and nothing else, beside main.
func (t *Tasks) hasPool() bool { return t.Enabled && !t.Only && t.Workers > 0 }

// forTasks makes own, which is as for main, what the workers of TasksPool get: they have no
// listener, and whatever a task does to them does not count against a model.
func (c *Config) forTasks(own *Config) {
	own.Listen, own.Routes, own.Lab = nil, nil, false
	if !c.Tasks.Only {
		own.Workers = Workers(c.Tasks.Workers)
	}
	if own.Worker.Other() {
		own.Worker.Command, own.Worker.Kind = nil, KindAuto
	}
	own.Timeouts.Request = c.Tasks.Timeout // of the call that a task stands for
	own.Worker.MaxCrashes, own.Worker.QuarantineAfter = 1000, 0
	own.Worker.MaxBackoff = min(own.Worker.MaxBackoff, time.Second) // how often a task ends them is bounded otherwise
	own.Recycle = Recycle{}
}

// RunsTasks tells whether the workers of a pool run tasks, and whether they do nothing else.
func (c *Config) RunsTasks(pool string) (runs, only bool) {
	switch {
	case !c.Tasks.Enabled:
		return false, false
	case pool == TasksPool && c.Tasks.hasPool(), pool == MainPool && c.Tasks.Only:
		return true, true
	}
	return c.Tasks.InWorkers, false
}

// TaskStore returns the directory of the broker: tasks.store, else tasks in $STATE_DIRECTORY
// (systemd.exec(5)), for root in /var/lib/preforkd, else preforkd/tasks in $XDG_STATE_HOME or in
// ~/.local/state; empty: there is none, and it has to be set.
func (c *Config) TaskStore(getenv func(string) string, uid int) string {
	if c.Tasks.Store != "" {
		return c.Tasks.Store
	}
	if dir := firstDir(getenv("STATE_DIRECTORY")); dir != "" {
		return filepath.Join(dir, "tasks")
	}
	if uid == 0 {
		return "/var/lib/preforkd/tasks"
	}
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "preforkd", "tasks")
	}
	if home := getenv("HOME"); filepath.IsAbs(home) && home != "/" && home != "/nonexistent" {
		return filepath.Join(home, ".local", "state", "preforkd", "tasks")
	}
	return ""
}

// checkTasks reports what does not fit together in the section tasks.
func (g *loader) checkTasks(c *Config) (warnings []string) {
	t := &c.Tasks
	if strings.Trim(t.Prefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" || len(t.Prefix) > 32 {
		g.problemAt("tasks.prefix", fmt.Sprintf("%q is no name; write at most 32 letters, digits, - and _", t.Prefix))
	}
	if (t.Cert == "") != (t.Key == "") {
		g.problemAt("tasks.cert", "needs tasks.key, and that needs it; write both, or neither")
	}
	for part := range strings.SplitSeq(t.URL, ",") {
		if part == "" && t.URL == "" {
			break
		}
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil || u.Scheme != "nats" && u.Scheme != "tls" || u.Host == "" {
			g.problemAt("tasks.url", fmt.Sprintf("%q is no address of a server; write nats://HOST:PORT or tls://HOST:PORT, several joined by commas", part))
		} else if u.User != nil {
			g.problemAt("tasks.url", "has a password in it, which everybody could read; write tasks.credentials or tasks.nkey")
		}
	}
	if _, own := c.Pools[TasksPool]; own && t.hasPool() {
		g.problemAt("pools."+TasksPool, "is the pool of background tasks (tasks.workers); give yours another name")
	}
	if t.Only && !t.Enabled {
		g.problemAt("tasks.only", "needs tasks.enabled: true: the service would do nothing")
	}
	if t.Enabled && !t.Only && !t.InWorkers && t.Workers == 0 && t.URL == "" {
		warnings = append(warnings, "tasks.workers is 0 and tasks.in_workers false: tasks are accepted, and nobody runs them")
	}
	if t.Enabled && t.MaxInput > c.HTTP.MaxBody {
		warnings = append(warnings, fmt.Sprintf("tasks.max_input (%s) is more than http.max_body (%s), which holds first", t.MaxInput, c.HTTP.MaxBody))
	}
	return warnings
}
