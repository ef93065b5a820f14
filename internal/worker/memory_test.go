package worker

import (
	"os"
	"testing"
)

func TestPSS(t *testing.T) {
	data, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := pss(data); err != nil || n < 1<<20 || n > 1<<40 {
		t.Errorf("%d, %v", n, err)
	}
	for text, want := range map[string]int64{
		"5-6 ---p 0 [rollup]\nRss:    20 kB\nPss:     12 kB\nPss_Dirty: 3 kB\n": 12 << 10,
		"":                               0,
		"Pss: 12\n":                      0,
		"Pss: -1 kB\n":                   0,
		"Pss: x kB":                      0,
		"Pss_Anon: 12 kB\n":              0,
		"Pss: 99999999999999999999 kB\n": 0,
	} {
		if n, err := pss([]byte(text)); n != want || (err != nil) != (want == 0) {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
}
