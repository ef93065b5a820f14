package anchor

import (
	"testing"
	"time"
)

func TestPulse(t *testing.T) {
	const fresh, old = time.Second, lateAge + time.Second
	for _, c := range []struct {
		name  string
		looks []time.Duration // since the look before
		ages  []time.Duration
		want  bool // after the last
	}{
		{"alive", []time.Duration{tick, tick, tick, tick}, []time.Duration{fresh, fresh, fresh, fresh}, false},
		{"late twice", []time.Duration{tick, tick, tick}, []time.Duration{fresh, old, old}, false},
		{"late three times", []time.Duration{tick, tick, tick, tick}, []time.Duration{fresh, old, old, old}, true},
		{"late, then alive", []time.Duration{tick, tick, tick, tick}, []time.Duration{old, old, fresh, old}, false},
		{"frozen with the supervisor", []time.Duration{tick, tick, time.Hour, tick}, []time.Duration{old, old, time.Hour, old}, false},
		{"looks that are late themselves", []time.Duration{tick, onTime + 1, onTime + 1, onTime + 1, onTime + 1}, []time.Duration{fresh, old, old, old, old}, false},
		{"just in time", []time.Duration{tick, onTime, onTime, onTime}, []time.Duration{fresh, old, old, old}, true},
	} {
		now := time.Now()
		p := pulse{last: now}
		got := false
		for i, d := range c.looks {
			now = now.Add(d)
			got = p.read(now, c.ages[i])
		}
		if got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestRelayed(t *testing.T) {
	got := relayed("READY=1\nMAINPID=7\nSTATUS=a=b\nWATCHDOG=1\nFDSTORE=1\nFDNAME=x\nnonsense\nSTATUS")
	if len(got) != 2 || got[0] != "READY=1" || got[1] != "STATUS=a=b" {
		t.Errorf("%q", got)
	}
}
