package config

import (
	"slices"
	"testing"
	"time"
)

func TestDifferences(t *testing.T) {
	started := Default()
	before := Default()
	before.Workers, before.Log.Format = 2, "json" // a reload before this one wanted it in vain
	after := before
	after.Workers, after.Timeouts.Drain, after.Log.Level = 3, time.Minute, "debug"
	after.Admin, after.Ops.Listen, after.Log.File = AdminOff, "127.0.0.1:9000", "/var/log/p.log"
	want := []string{
		"workers: 2 -> 3",
		"timeouts.drain: 30s -> 1m",
		`admin: "" -> "off" (takes effect at the next start)`,
		`ops.listen: "" -> "127.0.0.1:9000" (takes effect at the next start)`,
		"log.level: info -> debug",
		"log.format: text -> json (takes effect at the next start)",
		`log.file: "" -> /var/log/p.log (takes effect at the next start)`,
	}
	if got := Differences(started, before, after); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := Differences(started, started, started); len(got) > 0 {
		t.Errorf("%q", got)
	}
}
