package digits

import (
	"math"
	"testing"
)

func TestLoad(t *testing.T) {
	set := Load(t)
	for i, pixels := range set.Pixels {
		for _, v := range pixels {
			if v < 0 || v > 16 || v != float32(int(v)) {
				t.Fatalf("sample %d has a pixel of %v", i, v)
			}
		}
	}
	for _, name := range Names {
		right, a := 0, set.Answers[name]
		for i, p := range a.Probabilities {
			sum, best := 0.0, 0
			for c, v := range p {
				sum += float64(v)
				if v > p[best] {
					best = c
				}
			}
			if math.Abs(sum-1) > 1e-5 || int64(best) != a.Labels[i] {
				t.Fatalf("%s, sample %d: label %d, probabilities %v", name, i, a.Labels[i], p)
			}
			if a.Labels[i] == set.Truth[i] {
				right++
			}
		}
		if accuracy := float64(right) / Samples; accuracy < 0.95 {
			t.Errorf("%s: accuracy %.3f", name, accuracy)
		}
	}
}
