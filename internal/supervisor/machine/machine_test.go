package machine

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestReadAgreesWithTheSystem compares with nproc(1), which knows no limits of cgroups.
func TestReadAgreesWithTheSystem(t *testing.T) {
	got, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("nproc").Output()
	if err != nil {
		t.Skipf("skipped: nproc: %v", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	want := float64(n)
	if l, _ := readLimits(""); l.cores > 0 {
		want = min(want, l.cores)
	}
	if err != nil || got.Cores != want {
		t.Errorf("%v cores, nproc says %v (%v)", got.Cores, want, err)
	}
	if got.Available < 1<<20 {
		t.Errorf("%d bytes available", got.Available)
	}
}
