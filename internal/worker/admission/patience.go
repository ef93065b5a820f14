package admission

import "time"

// patience is how long those who wait do so, as far as can be told from those who left.
// Many clients do not say how long they wait; a line that may be longer than that serves
// nobody, however fast: whoever is at its head has just left, or will before the answer is
// there. So when many leave, the line is kept to half of what they waited for.
//
// That nobody leaves a line that is kept short says nothing about a long one: what was
// learned holds for a while and is then tried again.
type patience struct {
	score int           // leavers count much, those who stay take a little away
	wait  time.Duration // what leavers have waited, smoothed
	seen  time.Time     // when the latest left
}

const (
	// One in leaverWeight+1 is as many as leave without anything being wrong.
	leaverWeight = 16
	// manyLeave is from which score on the line is kept short: some ten who left.
	manyLeave = 10 * leaverWeight
	mostScore = 2 * manyLeave
	// patienceHolds is how long what was learned is believed.
	patienceHolds = time.Minute
)

// left notes that somebody has left after so long.
func (p *patience) left(after time.Duration) {
	if p.score == 0 {
		p.wait = after
	}
	p.wait += (after - p.wait) / 8
	p.score = min(p.score+leaverWeight, mostScore)
	p.seen = time.Now()
}

// stayed notes that somebody has waited until its turn.
func (p *patience) stayed() {
	if p.score > 0 && p.score < manyLeave {
		p.score--
	}
}

// exceeded tells whether so long is longer than people wait.
func (p *patience) exceeded(expected time.Duration) bool {
	if p.score < manyLeave {
		return false
	}
	if time.Since(p.seen) > patienceHolds {
		p.score = 0
		return false
	}
	return expected > p.wait/2
}
