package rollout

import (
	"fmt"
	"math"
)

// Tally counts the answers of some workers during the trial.
type Tally struct {
	Answers uint64 // all of them
	Errors  uint64 // those with a status of 500 or more
}

// minAnswers is how many answers of the canary allow a judgement; with fewer, another
// self-test decides.
const minAnswers = 100

// tolerance is how much larger the canary's share of errors may be than that of the
// others, beyond what chance explains: one answer in a hundred.
const tolerance = 0.01

// judge compares the canary's answers with those that the others gave in the same time,
// and says why they are bad.
//
// The canary may be worse by the tolerance and two standard errors of the difference of
// two proportions: where the others fail often, too, chance explains more. Against
// others without an error two of a hundred answers are bad, one is good.
func judge(c, others Tally) (verdict input, why string) {
	if c.Answers < minAnswers {
		return few, ""
	}
	ours, theirs := share(c), share(others)
	chance := 1 / float64(c.Answers)
	if others.Answers > 0 {
		chance += 1 / float64(others.Answers)
	}
	both := min(1, (float64(c.Errors)+float64(others.Errors))/(float64(c.Answers)+float64(others.Answers)))
	if ours-theirs <= tolerance+2*math.Sqrt(both*(1-both)*chance) {
		return good, ""
	}
	return bad, fmt.Sprintf("%d of its %d answers had a 5xx status, against %d of %d of the old workers",
		c.Errors, c.Answers, others.Errors, others.Answers)
}

func share(t Tally) float64 {
	if t.Answers == 0 {
		return 0
	}
	return float64(t.Errors) / float64(t.Answers)
}
