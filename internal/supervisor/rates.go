package supervisor

import (
	"time"

	"preforkd/internal/ipc/scoreboard"
)

// sampleEvery is how often the workers' counters are looked at, for rates.
const sampleEvery = 2 * time.Second

// rates keeps, per worker, what its counters said some seconds ago.
type rates struct{ samples map[*worker]*[2]sample }

// sample is a worker's counters at one moment. The older of two is the base of rates.
type sample struct {
	at       time.Duration
	requests uint64
	latency  scoreboard.Distribution
}

// rate is what a worker did lately.
type rate struct {
	perSecond float64
	p50, p99  time.Duration
}

// take looks at all workers.
func (r *rates) take(now time.Duration, workers map[int]*worker) {
	if r.samples == nil {
		r.samples = map[*worker]*[2]sample{}
	}
	living := map[*worker]bool{}
	for _, w := range workers {
		living[w] = true
		pair := r.samples[w]
		if pair == nil {
			pair = &[2]sample{}
			pair[0] = look(now, w)
			r.samples[w] = pair
		} else {
			pair[0] = pair[1]
		}
		pair[1] = look(now, w)
	}
	for w := range r.samples {
		if !living[w] {
			delete(r.samples, w)
		}
	}
}

func look(now time.Duration, w *worker) sample {
	s := sample{at: now, requests: w.row.Requests.Load() + w.row.Helped.Load()}
	w.row.Latency.AddTo(&s.latency)
	return s
}

// of returns what w did between the last two looks.
func (r *rates) of(w *worker) (got rate) {
	pair := r.samples[w]
	if pair == nil || pair[1].at <= pair[0].at {
		return got
	}
	got.perSecond = float64(pair[1].requests-pair[0].requests) / (pair[1].at - pair[0].at).Seconds()
	d := pair[1].latency.Since(&pair[0].latency)
	got.p50, _ = d.Quantile(0.5)
	got.p99, _ = d.Quantile(0.99)
	return got
}
