package bench

import (
	"cmp"
	"context"
	"slices"
	"time"

	"preforkd/internal/load"
)

// healthEvery is how long after one answer /healthz is asked again.
const healthEvery = 5 * time.Millisecond

// try makes one experiment once: a request alone, then all at one moment, and /healthz beside them.
func try(ctx context.Context, v *service, tasks int, t *trial) (*Outcome, error) {
	clients, err := connect(ctx, v.socket, tasks, min(t.on.workers, tasks))
	if err != nil {
		return nil, err
	}
	defer hangUp(clients)
	cut := context.AfterFunc(ctx, func() { hangUp(clients) })
	defer cut()
	alone, err := clients[0].ask(t.request())
	if err != nil {
		return nil, cause(ctx, err)
	}
	beside, err := load.New(load.Options{Addr: v.address(), Request: load.Get("/healthz"), Keepalive: true, Think: healthEvery, Timeout: answerLimit})
	if err != nil {
		return nil, err
	}
	var health *load.Report
	asked := make(chan error, 1)
	go func() { // ends after Stop
		r, err := beside.Run(ctx)
		health = r
		asked <- err
	}()
	answers, err := burst(clients, t.request())
	beside.Stop()
	if failed := <-asked; err == nil {
		err = failed
	}
	if err != nil {
		return nil, cause(ctx, err)
	}
	out := outcome(answers, alone.Done.Sub(alone.Sent), t.want)
	out.Health = health.Latency.Max.Seconds()
	return out, nil
}

// cause is why ctx has ended, where that is why something failed.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// outcome is what answers show, in the order in which they came; a request alone took that long.
func outcome(answers []answer, alone time.Duration, want expectation) *Outcome {
	start := answers[0].Sent
	processes := map[string]bool{}
	sum := time.Duration(0)
	for i := range answers {
		if answers[i].Sent.Before(start) {
			start = answers[i].Sent
		}
		processes[answers[i].Worker] = true
		sum += answers[i].Done.Sub(answers[i].Sent)
	}
	first, last := answers[0].Done.Sub(start), answers[len(answers)-1].Done.Sub(start)
	out := &Outcome{
		Seconds: last.Seconds(), First: first.Seconds(), Mean: (sum / time.Duration(len(answers))).Seconds(), Alone: alone.Seconds(),
		Wanted: want.String(), Processes: len(processes),
	}
	for i := range answers {
		out.Bars = append(out.Bars, answers[i].bar(start))
	}
	slices.SortStableFunc(out.Bars, func(a, b Bar) int { return cmp.Compare(a.Began, b.Began) })
	got := want.judged(out.Alone, out.Seconds, out.Bars)
	out.Relation, out.OK = got.String(), got == want
	if onCore(out.Bars) {
		out.Cores = atOnce(out.Bars, Bar.cores)
	}
	return out
}

// bar is a as a bar. What the server did not say is taken from what its client saw.
func (a *answer) bar(start time.Time) Bar {
	since := func(t time.Time) float64 { return max(t.Sub(start).Seconds(), 0) }
	b := Bar{Sent: since(a.Sent), Began: since(a.Began), Ended: since(a.Ended)}
	if a.Began.IsZero() {
		b.Began, b.Ended = since(a.Sent), since(a.Done)
	}
	for _, s := range a.Slices {
		b.Core = append(b.Core, [2]float64{since(s[0]), since(s[1])})
	}
	return b
}
