package fifo

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestLine compares with a slice, whoever joins and leaves.
func TestLine(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var line Line[int]
	var want []int
	places := make([]Place[int], 8)
	for i := range places {
		places[i].Of = i
	}
	for step := range 10_000 {
		p := &places[r.IntN(len(places))]
		if at := slices.Index(want, p.Of); at >= 0 {
			line.Remove(p)
			want = slices.Delete(want, at, at+1)
		} else {
			line.Push(p)
			want = append(want, p.Of)
		}
		var got []int
		for p := line.First(); p != nil; p = p.Next() {
			got = append(got, p.Of)
		}
		if !slices.Equal(got, want) || line.Len() != len(want) || p.Stands() != slices.Contains(want, p.Of) {
			t.Fatalf("step %d: %v, want %v", step, got, want)
		}
	}
}
