package main

import (
	"cmp"
	"fmt"
	"slices"
)

// goal is a number that was promised, with what was measured.
type goal struct {
	Text    string    `json:"text"`
	Limit   float64   `json:"limit"`
	AtMost  bool      `json:"at_most"` // else at least
	Exact   bool      `json:"exact"`   // else more or less than the limit is good, too
	Unit    string    `json:"unit"`
	Values  []float64 `json:"values"` // one a round; none: it was not measured
	Median  float64   `json:"median"`
	Verdict string    `json:"verdict"` // PASS, MISS, or why neither
}

// judge fills in what follows from the values.
func (g goal) judge() goal {
	if len(g.Values) == 0 {
		g.Verdict = "not measured"
		return g
	}
	g.Median = median(g.Values)
	g.Verdict = "MISS"
	if good := cmp.Compare(g.Median, g.Limit); good == 0 || !g.Exact && (good < 0) == g.AtMost {
		g.Verdict = "PASS"
	}
	return g
}

func (g goal) row() []string {
	sign := "≥"
	switch {
	case g.Exact:
		sign = "="
	case g.AtMost:
		sign = "≤"
	}
	want := fmt.Sprintf("%s %s%s", sign, digits(g.Limit), g.Unit)
	if len(g.Values) == 0 {
		return []string{g.Text, want, "", "", g.Verdict}
	}
	spread := spread(g.Values)
	return []string{g.Text, want, digits(g.Median) + g.Unit, spread, g.Verdict}
}

// goalTable returns the goals as a table.
func goalTable(goals []goal) table {
	t := table{head: []string{"goal", "wanted", "median", "min–max", "verdict"}}
	for _, g := range goals {
		t.add(g.row()...)
	}
	return t
}

// digits writes v with the precision that such a number is worth.
func digits(v float64) string {
	switch {
	case v == float64(int64(v)) || v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// median returns the middle of values, of an even number the mean of the middle two; 0
// of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// ratios divides a by b, one by one.
func ratios(a, b []float64) (r []float64) {
	for i := range min(len(a), len(b)) {
		r = append(r, a[i]/b[i])
	}
	return r
}

// differences subtracts b from a, one by one.
func differences(a, b []float64) (d []float64) {
	for i := range min(len(a), len(b)) {
		d = append(d, a[i]-b[i])
	}
	return d
}
