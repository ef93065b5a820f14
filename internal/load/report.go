package load

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Report is the account of a run. Everything but Warmup, Queue, Dials and Closes is of
// the measured time alone. Requests is the sum of Answers, Failures and Abandoned.
type Report struct {
	Start     time.Time      `json:"start"`      // of the measured time
	Elapsed   time.Duration  `json:"elapsed_ns"` // of it, to the end of the last request
	Requests  uint64         `json:"requests"`
	Answers   uint64         `json:"answers"` // whole, of the expected status, and right
	Failures  Counts         `json:"failures"`
	Abandoned uint64         `json:"abandoned"` // in flight when the context ended
	Statuses  map[int]uint64 `json:"statuses"`  // whole answers by status

	Latency   Summary    `json:"latency"` // of answers
	Histogram *Histogram `json:"-"`       // what Latency sums up
	// Others are as Latency, of whole answers of other statuses, by status.
	Others map[int]Summary `json:"others"`
	// Gap is the longest time without an answer, the measured time's ends included;
	// GapEnd is when it ended, from Start.
	Gap    time.Duration `json:"gap_ns"`
	GapEnd time.Duration `json:"gap_end_ns"`

	Dials  uint64 `json:"dials"` // successful ones
	Closes Closes `json:"closes"`
	Queue  Queue  `json:"queue"` // of an open loop
	Warmup Warmup `json:"warmup"`

	Workers []WorkerReport `json:"workers"` // by name
	Conns   []ConnReport   `json:"conns"`   // by id
	First   []Failure      `json:"first"`   // the first failures, warm-up included
	Closed  []IdleClose    `json:"closed"`  // the first connections that Closes.Idle counts
	Trace   []Point        `json:"-"`       // of Options.Trace: answers in the order in which they came
}

// Closes counts how the service ended connections, apart from failed requests.
type Closes struct {
	// Announced: its last answer said Connection: close, or was framed by the end.
	Announced uint64 `json:"announced"`
	// Idle: closed or reset between two requests without having said so. The next
	// request went over a new connection; no request failed by it.
	Idle uint64 `json:"idle"`
	// IdleThenFailed: of Idle, where that next request then failed, in any class.
	IdleThenFailed uint64 `json:"idle_then_failed"`
	// Late: failures of the classes Unwritten and Unanswered on a connection that had
	// answered before: the close met the request, or was no idle close at all.
	Late uint64 `json:"late"`
	// Unasked: the service sent bytes on an idle connection, which was given up.
	Unasked uint64 `json:"unasked"`
}

// Warmup counts the requests that began before the measured time.
type Warmup struct {
	Answers  uint64 `json:"answers"`
	Failures Counts `json:"failures"`
}

// Point is one measured answer.
type Point struct {
	At   time.Duration // when it was whole, from Report.Start
	Took time.Duration // its latency
}

// WorkerReport is what one worker did. The empty name stands for failed dials, and for
// connections on which nobody had said who answers.
type WorkerReport struct {
	Name    string `json:"name"`
	Answers uint64 `json:"answers"`
	// Failures of connections on which this worker had answered last.
	Failures Counts `json:"failures"`
	// IdleCloses of such connections, warm-up included.
	IdleCloses uint64 `json:"idle_closes"`
}

// ConnReport is what one client, with its connections one after the other, met.
type ConnReport struct {
	ID         int           `json:"id"`
	Answers    uint64        `json:"answers"`
	Failures   uint64        `json:"failures"`
	Abandoned  uint64        `json:"abandoned"`
	Dials      uint64        `json:"dials"`
	IdleCloses uint64        `json:"idle_closes"`
	MaxLatency time.Duration `json:"max_latency_ns"`
}

// Failure is one failed request.
type Failure struct {
	At        time.Duration `json:"at_ns"`  // when it failed, from the run's start
	Conn      int           `json:"conn"`   // the client
	Serial    uint64        `json:"serial"` // which of its connections, from 1; of a failed dial, the one before
	Class     Class         `json:"class"`
	Worker    string        `json:"worker"`           // that answered last on the connection
	Answers   uint64        `json:"answers"`          // whole ones on the connection, this one included
	Announced bool          `json:"announced"`        // the connection's last answer said that it ends
	Reset     bool          `json:"reset"`            // by a reset, not by an orderly end
	Status    int           `json:"status,omitempty"` // of a whole answer
	Warmup    bool          `json:"warmup,omitempty"`
	Local     string        `json:"local"` // the client's address; of a failed dial empty
	Text      string        `json:"text"`
}

// IdleClose is a connection that was closed or reset between two requests.
type IdleClose struct {
	At     time.Duration `json:"at_ns"`  // when that was found, from the run's start
	Conn   int           `json:"conn"`   // the client
	Serial uint64        `json:"serial"` // which of its connections, from 1
	Worker string        `json:"worker"` // that answered last
	Local  string        `json:"local"`  // the client's address
}

// Throughput returns answers per second; 0 when no time was measured.
func (r *Report) Throughput() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Answers) / r.Elapsed.Seconds()
}

// String is the report in a few lines for people.
func (r *Report) String() string {
	var b strings.Builder
	l := r.Latency
	fmt.Fprintf(&b, "%d requests in %v: %d answers (%.0f/s), failures: %v", r.Requests, round(r.Elapsed), r.Answers, r.Throughput(), r.Failures)
	if r.Abandoned > 0 {
		fmt.Fprintf(&b, ", %d abandoned", r.Abandoned)
	}
	fmt.Fprintf(&b, "\nlatency: p50 %v, p90 %v, p95 %v, p99 %v, p99.9 %v, max %v; longest gap %v\n",
		round(l.P50), round(l.P90), round(l.P95), round(l.P99), round(l.P999), round(l.Max), round(r.Gap))
	fmt.Fprintf(&b, "%d dials; closed by the service: %d announced, %d idle (%d of the next requests failed), %d late, %d unasked\n",
		r.Dials, r.Closes.Announced, r.Closes.Idle, r.Closes.IdleThenFailed, r.Closes.Late, r.Closes.Unasked)
	if q := r.Queue; q.Arrivals > 0 {
		fmt.Fprintf(&b, "%d arrivals, %d queued, at most %d at once for %v, %d unsent\n", q.Arrivals, q.Queued, q.Longest, round(q.MaxWait), q.Unsent)
	}
	for _, w := range r.Workers {
		fmt.Fprintf(&b, "worker %q: %d answers, failures: %v\n", w.Name, w.Answers, w.Failures)
	}
	for _, f := range r.First[:min(len(r.First), 5)] {
		fmt.Fprintf(&b, "at %v, connection %d.%d, after %d answers, last by %q: %v: %s\n",
			round(f.At), f.Conn, f.Serial, f.Answers, f.Worker, f.Class, f.Text)
	}
	return b.String()
}

// round leaves three or four digits.
func round(d time.Duration) time.Duration {
	unit := time.Nanosecond
	for d/unit >= 10000 {
		unit *= 10
	}
	return d.Round(unit)
}

// report sums up what the clients counted; they have ended.
func (g *Generator) report() *Report {
	l := &g.live
	end := max(time.Duration(g.quitAt.Load()), g.o.Warmup)
	r := &Report{
		Start: g.start.Add(g.o.Warmup), Statuses: map[int]uint64{}, Histogram: &Histogram{},
		Dials: l.dials.Load(), First: []Failure{}, Closed: []IdleClose{},
	}
	l.mindGap(end)
	r.Gap, r.GapEnd = time.Duration(l.gap.Load()), time.Duration(l.gapEnd.Load())-g.o.Warmup
	others := map[int]*Histogram{}
	for _, c := range g.clients {
		c.rec.addTo(r)
		for status, h := range c.rec.others {
			if others[status] == nil {
				others[status] = &Histogram{}
			}
			others[status].Merge(h)
		}
		end = max(end, c.rec.last)
	}
	r.Elapsed = end - g.o.Warmup
	r.Requests = r.Answers + r.Failures.Total() + r.Abandoned
	r.Latency, r.Others = r.Histogram.Summary(), map[int]Summary{}
	for status, h := range others {
		r.Others[status] = h.Summary()
	}
	if g.arrivals != nil {
		r.Queue = g.arrivals.finish(g.ends())
	}
	slices.SortFunc(r.Trace, func(a, b Point) int { return int(a.At - b.At) })
	l.mu.Lock()
	defer l.mu.Unlock()
	r.First = append(r.First, l.first...)
	slices.SortFunc(r.First, func(a, b Failure) int { return int(a.At - b.At) })
	r.Closed = append(r.Closed, l.closed...)
	for _, w := range l.workers {
		row := WorkerReport{Name: w.name, Answers: w.measured.Load(), IdleCloses: w.idleCloses.Load()}
		for i := range w.failures {
			row.Failures[i] = w.failures[i].Load()
		}
		r.Workers = append(r.Workers, row)
	}
	r.Workers = slices.DeleteFunc(r.Workers, func(w WorkerReport) bool { return w == WorkerReport{} })
	slices.SortFunc(r.Workers, func(a, b WorkerReport) int { return strings.Compare(a.Name, b.Name) })
	return r
}

// addTo adds one client's counts to r.
func (rec *record) addTo(r *Report) {
	r.Answers += rec.conn.Answers
	r.Abandoned += rec.conn.Abandoned
	for i, n := range rec.failures {
		r.Failures[i] += n
	}
	for i, n := range rec.warm.Failures {
		r.Warmup.Failures[i] += n
	}
	r.Warmup.Answers += rec.warm.Answers
	for status, n := range rec.statuses {
		r.Statuses[status] += n
	}
	r.Closes.Announced += rec.closes.Announced
	r.Closes.Idle += rec.closes.Idle
	r.Closes.IdleThenFailed += rec.closes.IdleThenFailed
	r.Closes.Late += rec.closes.Late
	r.Closes.Unasked += rec.closes.Unasked
	r.Histogram.Merge(&rec.latency)
	r.Conns = append(r.Conns, rec.conn)
	r.Trace = append(r.Trace, rec.trace...)
}
