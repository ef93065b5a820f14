package lab

import (
	"errors"
	"testing"
	"time"
)

func never() error { return nil }

// TestSpend: each way takes the time that it shall, and says how it went. Only what cannot be
// shorter is asserted.
func TestSpend(t *testing.T) {
	const d = 60 * time.Millisecond
	for k, want := range map[Kind]Trace{Sleep: {}, Block: {Blocked: true}, Burn: {}} {
		got, err := Spend(k, d, never)
		if err != nil || got.Blocked != want.Blocked || got.Took() < d-time.Millisecond {
			t.Errorf("%d: %+v, %v", k, got, err)
		}
		if k == Burn {
			on := time.Duration(0)
			for i, s := range got.Slices {
				on += s.Ended.Sub(s.Began)
				if s.Ended.Before(s.Began) || i > 0 && s.Began.Before(got.Slices[i-1].Ended) {
					t.Errorf("slice %d: %+v", i, s)
				}
			}
			if got.Used < d || got.Waited != 0 || len(got.Slices) == 0 || on > got.Took() {
				t.Errorf("burn: %+v", got)
			}
			continue
		}
		if got.Waited != got.Took() || got.Used != 0 || got.Slices != nil {
			t.Errorf("%d: %+v", k, got)
		}
	}
}

// TestStop: none goes on when it is told to end, before it begins or in the middle.
func TestStop(t *testing.T) {
	enough := errors.New("enough")
	for _, k := range []Kind{Sleep, Block, Burn} {
		for _, after := range []int{0, 2} {
			asked := 0
			got, err := Spend(k, time.Hour, func() error {
				if asked++; asked > after {
					return enough
				}
				return nil
			})
			if err != enough || asked != after+1 {
				t.Errorf("%d: %v after %d questions: %+v", k, err, asked, got)
			}
		}
	}
}
