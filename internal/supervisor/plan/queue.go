package plan

import (
	"math"
	"time"
)

// queue is c servers that take requests from one line, each for the same time: M/D/c. Arrivals
// are random (Poisson).
type queue struct {
	servers int
	service time.Duration
}

// busy is the probability that a request finds all servers busy, at a load of a servers:
// Erlang's C formula, by way of the recursion for his B formula (Tijms, A First Course in
// Stochastic Models, 2003, sections 5.1 and 9.6).
func (q queue) busy(a float64) float64 {
	c := float64(q.servers)
	if a >= c {
		return 1
	}
	b := 1.0
	for k := 1; k <= q.servers; k++ {
		b = a * b / (float64(k) + a*b)
	}
	return b / (1 - a/c*(1-b))
}

// quantile returns the time that all but the share tail of the requests take, waiting and
// service, at so many requests a second; infinity where the line grows without end.
//
// With service times of an exponential distribution, M/M/c, the time that those wait who wait
// is exponential with the rate (c-a)/service. With constant ones the mean wait is half as long
// (Lee and Longton, Operational Research Quarterly 10, 1959: (1+cv²)/2 of M/M/c's), and its tail
// is taken as exponential with that mean. The test compares it with a simulation.
func (q queue) quantile(rate, tail float64) float64 {
	d := q.service.Seconds()
	a := rate * d
	c := float64(q.servers)
	if a >= c {
		return math.Inf(1)
	}
	busy := q.busy(a)
	if busy <= tail {
		return d
	}
	return d + d/(2*(c-a))*math.Log(busy/tail)
}

// rate returns how many requests a second have a p99 of target at most.
func (q queue) rate(target time.Duration) float64 {
	if q.servers < 1 || q.service <= 0 || q.service > target {
		return 0
	}
	low, high := 0.0, float64(q.servers)/q.service.Seconds()
	for range 60 { // halvings: a float has 53 bits
		mid := (low + high) / 2
		if q.quantile(mid, 0.01) <= target.Seconds() {
			low = mid
		} else {
			high = mid
		}
	}
	return low
}
