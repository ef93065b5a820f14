package worker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		begin := time.Now()
		var starts []time.Duration
		takes := func(d time.Duration) func(context.Context) error {
			return func(context.Context) error {
				starts = append(starts, time.Since(begin))
				time.Sleep(d)
				return nil
			}
		}
		for _, d := range []time.Duration{20 * time.Millisecond, time.Second, 10 * time.Millisecond} {
			if err := p.run(t.Context(), takes(d)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute) // whoever comes late waits no more
		if err := p.run(t.Context(), takes(0)); err != nil {
			t.Fatal(err)
		}
		want := []time.Duration{0, 80 * time.Millisecond, 1330 * time.Millisecond, 1340*time.Millisecond + time.Minute}
		for i := range want {
			if starts[i] != want[i] {
				t.Errorf("self-test %d began at %v, want %v", i, starts[i], want[i])
			}
		}
		failed := errors.New("failed")
		fails := func(context.Context) error { time.Sleep(time.Second); return failed }
		if err := p.run(t.Context(), fails); err != failed {
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.run(ctx, fails); err != context.Canceled {
			t.Errorf("%v", err)
		}
	})
}
