package scoreboard

import "time"

// Snapshot is what a row said at about one moment. Identity (pool, slot, generation,
// start) belongs together; the rest was read field by field while others wrote.
type Snapshot struct {
	Held       bool // false: the identity is that of the last holder
	PID        int  // as PID returns it
	Pool, Slot int
	Generation uint64
	Started    time.Time
	State      uint64
	Exit       Exit
	Gauges     Gauges
	Counts     Counts
}

// Counts are the counters of a row, or sums of them.
type Counts struct {
	Requests       uint64
	Responses      [5]uint64 // 1xx to 5xx
	Accepted       uint64
	Adopted        uint64
	HandedOver     uint64
	HandoffRefused uint64
	Queued         uint64
	Taken          uint64
	Unqueued       uint64
	Helped         uint64
	EngineCalls    uint64
	EngineNs       uint64
	Refused        [3]uint64 // as in Fields
	Expired        [2]uint64
	Forsaken       [2]uint64
	Lost           uint64
	Exits          uint64
	LayerRefused   [knownLayers]uint64 // by layer; of a row's Layers
}

// Snapshot reads the row. It is false for a row that nobody ever held, and for one
// that a supervisor is claiming at this moment.
func (r *Row) Snapshot() (Snapshot, bool) {
	for range 4 { // a row is claimed and settled within milliseconds at the very least
		c := r.claim.Load()
		if c&complete == 0 {
			return Snapshot{}, false
		}
		s := Snapshot{
			Held:       c&claimed != 0,
			PID:        r.PID(),
			Pool:       int(r.pool.Load()),
			Slot:       int(r.slot.Load()),
			Generation: r.generation.Load(),
			Started:    time.Unix(0, int64(r.started.Load())),
			State:      r.State(),
			Exit:       Exit(r.exit.Load()),
			Gauges:     r.gauges(),
			Counts:     r.Counts(),
		}
		if r.claim.Load() == c {
			return s, true
		}
	}
	return Snapshot{}, false
}

// Counts reads the counters but those of the layers, also those of a free row.
func (f *Fields) Counts() Counts {
	c := Counts{
		Requests:       f.Requests.Load(),
		Accepted:       f.Accepted.Load(),
		Adopted:        f.Adopted.Load(),
		HandedOver:     f.HandedOver.Load(),
		HandoffRefused: f.HandoffRefused.Load(),
		Queued:         f.Queued.Load(),
		Taken:          f.Taken.Load(),
		Unqueued:       f.Unqueued.Load(),
		Helped:         f.Helped.Load(),
		EngineCalls:    f.EngineCalls.Load(),
		EngineNs:       f.EngineNs.Load(),
		Lost:           f.Lost.Load(),
		Exits:          f.Exits.Load(),
	}
	load(c.Responses[:], f.Responses[:])
	load(c.Refused[:], f.Refused[:])
	load(c.Expired[:], f.Expired[:])
	load(c.Forsaken[:], f.Forsaken[:])
	return c
}

func load(to []uint64, from []Counter) {
	for i := range from {
		to[i] = from[i].Load()
	}
}

// Counts reads the counters, also those of a free row.
func (r *Row) Counts() Counts {
	c := r.Fields.Counts()
	c.LayerRefused = r.Layers.refused()
	return c
}

// Add adds other to c.
func (c *Counts) Add(other Counts) {
	c.Requests += other.Requests
	add(c.Responses[:], other.Responses[:])
	add(c.Refused[:], other.Refused[:])
	add(c.Expired[:], other.Expired[:])
	add(c.Forsaken[:], other.Forsaken[:])
	c.Accepted += other.Accepted
	c.Adopted += other.Adopted
	c.HandedOver += other.HandedOver
	c.HandoffRefused += other.HandoffRefused
	c.Queued += other.Queued
	c.Taken += other.Taken
	c.Unqueued += other.Unqueued
	c.Helped += other.Helped
	c.EngineCalls += other.EngineCalls
	c.EngineNs += other.EngineNs
	c.Lost += other.Lost
	c.Exits += other.Exits
	add(c.LayerRefused[:], other.LayerRefused[:])
}

func add(to, more []uint64) {
	for i, n := range more {
		to[i] += n
	}
}

// Totals is the sum over all rows, free ones included: it never falls.
func (b *Board) Totals() Counts {
	var sum Counts
	for _, r := range b.rows {
		if r.ever() {
			sum.Add(r.Counts())
		}
	}
	return sum
}

// Gauges is the sum of the gauges of all rows; those of free ones are zero.
func (b *Board) Gauges() Gauges {
	var sum Gauges
	for _, r := range b.rows {
		if r.ever() {
			g := r.gauges()
			sum.InFlight += g.InFlight
			sum.Connections += g.Connections
			sum.Idle += g.Idle
			sum.Limit += g.Limit
			sum.InUse += g.InUse
			sum.Waiting += g.Waiting
		}
	}
	return sum
}

// Memory is what the processes of a board have together, in bytes.
type Memory struct {
	PSS     int64 // of those that say it; the sum has every page once
	Private int64 // of it, what each has of its own
}

// Memory is the sum over all rows.
func (b *Board) Memory() (m Memory) {
	for _, r := range b.rows {
		if r.ever() {
			m.PSS += r.PSS.Load()
			m.Private += r.Private.Load()
		}
	}
	return m
}

// ever tells whether anybody has held the row: most rows of a board are never touched,
// and sums need not read them.
func (r *Row) ever() bool { return r.claim.Load() != 0 }

// Sums are what the rows of a board have counted: what a supervisor leaves to one that has
// another layout.
type Sums struct {
	Counts    Counts
	Latencies *Distribution
	Tallies   map[string]uint64
}

// Sums returns them.
func (b *Board) Sums() Sums { return Sums{b.Totals(), b.Latencies(), b.Tallies()} }

// Carry adds the sums of another board to one of this board's rows, whose next holder goes on
// from there, and to its tallies.
func (b *Board) Carry(s Sums) error {
	for name, n := range s.Tallies {
		b.Tally(name).Add(n)
	}
	r, err := b.Claim(Holder{})
	if err != nil {
		return err
	}
	r.add(s.Counts)
	for i, n := range s.Counts.LayerRefused {
		r.Layers[i].Refused.Add(n)
	}
	if s.Latencies != nil {
		r.Latency.add(s.Latencies)
	}
	r.Settle(0, 0, ExitNone)
	return nil
}

func (f *Fields) add(c Counts) {
	f.Requests.Add(c.Requests)
	store(f.Responses[:], c.Responses[:])
	store(f.Refused[:], c.Refused[:])
	store(f.Expired[:], c.Expired[:])
	store(f.Forsaken[:], c.Forsaken[:])
	f.Accepted.Add(c.Accepted)
	f.Adopted.Add(c.Adopted)
	f.HandedOver.Add(c.HandedOver)
	f.HandoffRefused.Add(c.HandoffRefused)
	f.Queued.Add(c.Queued)
	f.Taken.Add(c.Taken)
	f.Unqueued.Add(c.Unqueued)
	f.Helped.Add(c.Helped)
	f.EngineCalls.Add(c.EngineCalls)
	f.EngineNs.Add(c.EngineNs)
	f.Lost.Add(c.Lost)
	f.Exits.Add(c.Exits)
}

func store(to []Counter, more []uint64) {
	for i, n := range more {
		to[i].Add(n)
	}
}
