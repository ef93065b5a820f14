package machine

import (
	"fmt"
	"testing"
)

// TestStrains reads whole trees of files, as TestTrees does; testdata/strain has them.
func TestStrains(t *testing.T) {
	eachTree(t, "testdata/strain/*.txtar", 9, func(root string) ([]string, error) {
		s, err := readStrain(root)
		return []string{fmt.Sprintf("limit %d MiB by %s: used %d, mapped %d MiB; stalled %v %v, %d major faults, %d kills",
			s.Limit>>20, s.By, s.Used>>20, s.Mapped>>20, s.Stalled, s.StallKnown, s.MajorFaults, s.Kills)}, err
	})
}

// TestStrainHere: of the machine that runs this there is something to be known.
func TestStrainHere(t *testing.T) {
	s, err := ReadStrain()
	if err != nil || s.Limit == 0 || s.By == "" || s.Used == 0 || s.MajorFaults == 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

func FuzzPressure(f *testing.F) {
	f.Add("some avg10=1.00 avg60=0.50 avg300=0.10 total=887976\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=258067\n")
	f.Add("some total=-1")
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parsePressure(text); err == nil && d < 0 {
			t.Error(d)
		}
	})
}

func BenchmarkStrain(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = ReadStrain()
	}
}
