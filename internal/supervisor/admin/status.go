package admin

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Duration is a time.Duration that JSON holds as a number of seconds.
type Duration time.Duration

// MarshalJSON writes seconds, to the nanosecond.
func (d Duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(d).Seconds())
}

// UnmarshalJSON reads seconds. A number that no duration holds is an error.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var seconds float64
	if err := json.Unmarshal(b, &seconds); err != nil {
		return err
	}
	ns := math.Round(seconds * float64(time.Second))
	if ns >= math.MaxInt64 || ns <= math.MinInt64 {
		return fmt.Errorf("%v seconds are no duration", seconds)
	}
	*d = Duration(ns)
	return nil
}

// Status is how a service is.
type Status struct {
	Time       time.Time `json:"time"` // when this was true
	Version    string    `json:"version"`
	State      string    `json:"state"`                       // starting, serving, stopping (it serves on until it drains) or draining
	DrainsIn   Duration  `json:"drains_in_seconds,omitempty"` // while it is stopping
	PID        int       `json:"pid"`                         // of the supervisor
	Generation uint64    `json:"generation"`
	Uptime     Duration  `json:"uptime_seconds"`
	Listen     []string  `json:"listen"`               // as "127.0.0.1:8000" and "unix:/run/preforkd/http.sock"
	Operations string    `json:"operations,omitempty"` // address of /metrics; empty: none
	Pools      []Pool    `json:"pools"`
	Layers     []Layer   `json:"layers"`           // of all workers together
	Models     []Model   `json:"models"`           // of the generation in charge
	Memory     *Memory   `json:"memory,omitempty"` // nil: not known
	Tasks      *Tasks    `json:"tasks,omitempty"`  // nil: they are off
	// RolledBackTo is the generation whose manifest runs again since a rollback; 0: what runs
	// was read from the configuration.
	RolledBackTo uint64  `json:"rolled_back_to,omitempty"`
	LastReload   *Reload `json:"last_reload,omitempty"` // of a rollback too; nil: none yet
	Events       []Event `json:"events"`                // the latest, oldest first
}

// Pool is a number of workers of one kind.
type Pool struct {
	Name       string `json:"name"`
	Size       int    `json:"size"`       // how many workers it shall have
	Configured int    `json:"configured"` // how many the configuration gives it; Size differs once it was scaled
	// Notice is what an operator should know of the pool; empty: nothing.
	Notice string `json:"notice,omitempty"`
	// Waiting is how many requests wait for a worker, Oldest for how long the first of them has, in
	// the queue that all workers have in common.
	Waiting int      `json:"waiting"`
	Oldest  Duration `json:"oldest_seconds,omitempty"`
	Slots   []Slot   `json:"slots"`
}

// Layer is what workers have on one layer of routes; inference is on compute.
type Layer struct {
	Name    string `json:"name"`
	Running int64  `json:"running"` // requests
	Waiting int64  `json:"waiting"` // for a place
	Refused uint64 `json:"refused"` // ever
}

// Slot is a worker's place in its pool. During a reload a place may be listed twice,
// once a generation.
type Slot struct {
	Index             int      `json:"index"`
	State             string   `json:"state"`            // as package slot calls it; "waiting" and "failed" without a process
	Reason            string   `json:"reason,omitempty"` // of the state: why it leaves, what it waits for
	PID               int      `json:"pid,omitempty"`    // 0: no process
	Generation        uint64   `json:"generation"`
	Age               Duration `json:"age_seconds"`           // of the process
	Restarts          int      `json:"restarts"`              // since the service started
	LastReason        string   `json:"last_reason,omitempty"` // why the last process ended, as package slot calls it
	LastExit          string   `json:"last_exit,omitempty"`   // and how, in words
	Recycled          string   `json:"recycled,omitempty"`    // why the last process was replaced while it served: requests, age, memory, asked
	InFlight          int      `json:"in_flight"`             // requests
	RequestsPerSecond float64  `json:"requests_per_second"`
	P50               Duration `json:"p50_seconds"` // of recent requests; 0: none
	P99               Duration `json:"p99_seconds"`
	PSS               int64    `json:"pss_bytes"`               // its share of resident memory; 0: unknown
	Private           int64    `json:"private_bytes,omitempty"` // what it has of its own; 0: unknown
	Shared            int64    `json:"shared_bytes,omitempty"`  // what it has of files and shared memory, whoever has it as well
	Models            []string `json:"models"`                  // as name/version
}

// Reload is how a reload or a rollback went.
type Reload struct {
	Time       time.Time `json:"time"`                  // of its end
	RollbackTo uint64    `json:"rollback_to,omitempty"` // of a rollback: which generation was wanted
	Outcome    string    `json:"outcome"`               // as package rollout calls it
	Reason     string    `json:"reason,omitempty"`      // why it was rolled back
	Took       Duration  `json:"took_seconds"`
}

// ReloadRequest says how to reload.
type ReloadRequest struct {
	DryRun bool // show the differences, prove the canary, change nothing
	NoWait bool // fail with status 75 where another reload is under way
}

// Progress is one line of a reload under way.
type Progress struct {
	Time  time.Time `json:"time"`
	Phase string    `json:"phase,omitempty"` // as package rollout calls it
	Text  string    `json:"text"`            // for people
	Ready int       `json:"ready"`           // workers of the new generation
	Of    int       `json:"of"`
}

// ReloadResult is how a reload or a rollback that was asked for ended. Exit, Message and Try are those
// of the command: Exit is 0, or the Failure's.
type ReloadResult struct {
	Exit        int      `json:"exit"`
	Message     string   `json:"message"`
	Try         string   `json:"try,omitempty"`
	Outcome     string   `json:"outcome"`
	Generation  uint64   `json:"generation"` // that serves now
	Took        Duration `json:"took_seconds"`
	Differences []string `json:"differences,omitempty"` // between what ran and what was read
}
