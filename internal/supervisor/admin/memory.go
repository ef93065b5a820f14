package admin

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Memory is how short memory is: of the cgroup with the least room, or of the machine. Sizes are
// in bytes.
type Memory struct {
	Level  string `json:"level"` // calm, tight or critical
	Limit  uint64 `json:"limit_bytes"`
	By     string `json:"limited_by"`   // the file that says so, or "the machine"
	Used   uint64 `json:"used_bytes"`   // by whomever, but for files that could be read again
	Mapped uint64 `json:"mapped_bytes"` // of such files
	// Stalled is the part of the last second in which some process waited for memory; nil: the
	// kernel does not tell.
	Stalled     *float64 `json:"stalled,omitempty"`
	MajorFaults float64  `json:"major_faults_per_second"`
	Kills       uint64   `json:"oom_kills"` // of the cgroup's processes, ever
	// PSS is what all our workers have together, Private what of it each has of its own.
	PSS     int64  `json:"workers_pss_bytes"`
	Private int64  `json:"workers_private_bytes"`
	Guard   string `json:"guard"`            // the setting memory.guard
	Notice  string `json:"notice,omitempty"` // why nothing gives memory back where it is critical
}

// Weights are what workers have of one model, in bytes.
type Weights struct {
	Kind string `json:"kind"`
	// Shared is what is present in memory of the prepared weights, once for all workers; Prepared
	// is the size of their file.
	Shared   int64 `json:"shared_bytes"`
	Prepared int64 `json:"prepared_bytes"`
	// Private is what loading the model takes of a worker's own memory, the most of any; negative:
	// not known.
	Private int64  `json:"private_bytes"`
	Workers int    `json:"workers"` // that have said so
	Notice  string `json:"notice,omitempty"`
}

// Values of Weights.Kind.
const (
	WeightsShared = "shared" // all workers map one file
	WeightsGraph  = "graph"  // they lie in the model's graph, as those of trees do: each worker has its own
	WeightsCopies = "copies" // the model is not prepared: each worker has its own
	WeightsLost   = "lost"   // they should be shared, and a worker has its own all the same
)

var weightsText = map[string]string{
	WeightsShared: "shared",
	WeightsGraph:  "private: in the graph",
	WeightsCopies: "private: not prepared",
	WeightsLost:   "NOT SHARED",
}

// memory prints m.
func memory(w io.Writer, m *Memory) {
	if m == nil {
		return
	}
	fmt.Fprintf(w, "memory is %s: %s of %s used, %s mapped of files, by %s; workers hold %s, %s of it each its own", clean(m.Level),
		size(int64(m.Used)), size(int64(m.Limit)), size(int64(m.Mapped)), clean(m.By), size(m.PSS), size(m.Private))
	if m.Stalled != nil && *m.Stalled >= 0.005 {
		fmt.Fprintf(w, "; processes waited for memory %.0f %% of the time", 100**m.Stalled)
	}
	if m.MajorFaults >= 1 {
		fmt.Fprintf(w, "; %.0f major faults/s", m.MajorFaults)
	}
	if m.Kills > 0 {
		fmt.Fprintf(w, "; %s", plural(int(m.Kills), "OOM kill"))
	}
	fmt.Fprintln(w)
	if m.Notice != "" {
		fmt.Fprintf(w, "nothing gives memory back: %s\n", clean(m.Notice))
	}
}

// weights prints what workers have of each model.
func weights(w io.Writer, models []Model) error {
	known := false
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, m := range models {
		d := m.Weights
		if d == nil {
			continue
		}
		if !known {
			fmt.Fprintln(t, "\nMODEL\tVERSION\tWEIGHTS\tSHARED, ONCE\tPRIVATE, EACH")
			known = true
		}
		text, ok := weightsText[d.Kind]
		if !ok {
			text = clean(d.Kind)
		}
		shared := "-"
		if d.Prepared > 0 {
			shared = fmt.Sprintf("%s of %s", size(d.Shared), size(d.Prepared))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", clean(m.Name), clean(m.Version), text, shared, orDash(d.Private >= 0, size(d.Private)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, m := range models {
		if m.Weights != nil && m.Weights.Notice != "" {
			fmt.Fprintf(w, "model %s version %s: %s\n", clean(m.Name), clean(m.Version), clean(m.Weights.Notice))
		}
	}
	return nil
}
