package guard

import "time"

// Between two recycled workers passes this at least, twice as long each time that it was not
// enough, up to mostWait; after calmFor without need the first wait holds again.
const (
	firstWait = time.Minute
	mostWait  = 32 * time.Minute
	calmFor   = 10 * time.Minute
)

// Pace bounds how often workers are recycled for want of memory: a need that recycling does not
// end must not become a loop. The zero value lets one be recycled at once.
type Pace struct {
	wait    time.Duration
	next    time.Duration
	needed  time.Duration // when Critical was seen last
	started bool
}

// May tells whether one may be recycled now, when memory is critical.
func (p *Pace) May(now time.Duration) bool {
	if p.started && now-p.needed >= calmFor {
		*p = Pace{}
	}
	p.needed, p.started = now, true
	return now >= p.next
}

// Acted notes that one is being recycled.
func (p *Pace) Acted(now time.Duration) {
	p.wait = min(max(2*p.wait, firstWait), mostWait)
	p.next = now + p.wait
}

// Next is when May may say yes again.
func (p *Pace) Next() time.Duration { return p.next }

// Candidate is a worker that serves.
type Candidate struct {
	Private int64 // bytes of its own; 0: unknown
	Fresh   int64 // that it had when it became ready; 0: unknown
	Others  int   // workers of its pool that serve beside it
}

// A worker has grown if it has a quarter more of its own than when it was ready, and so much at
// least: what the first requests take comes back at once in whoever replaces it.
const (
	grownPart  = 4
	grownBytes = 32 << 20
)

// grown is how much recycling c would give back.
func (c Candidate) grown() int64 { return c.Private - c.Fresh }

// Victim returns the largest of those that can be spared and have grown; -1: there is none, and
// why says what hinders.
func Victim(all []Candidate) (victim int, why string) {
	victim, why = -1, "no worker is ready"
	spare, known := false, false
	for i, c := range all {
		if c.Others < 1 {
			continue
		}
		spare = true
		if c.Private <= 0 || c.Fresh <= 0 {
			continue
		}
		known = true
		if c.grown() >= max(c.Fresh/grownPart, grownBytes) && (victim < 0 || c.Private > all[victim].Private) {
			victim = i
		}
	}
	switch {
	case victim >= 0:
		return victim, ""
	case known:
		why = "no worker has grown since it was started, so that another in its place would take as much"
	case spare:
		why = "what workers have of their own is not known"
	case len(all) > 0:
		why = "no worker can be spared: none serves beside it in its pool"
	}
	return -1, why
}
