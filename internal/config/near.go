package config

import "strings"

// nearest returns the candidate that someone who wrote word most likely meant, or
// nothing when none is near: at most one slip in three letters.
func nearest(word string, candidates []string) string {
	if len(word) > 64 { // no key is; the cost is quadratic
		return ""
	}
	best, least := "", len(word)/3+1
	for _, c := range candidates {
		d := distance(fold(word), fold(c))
		if d < least && d <= len(c)/3 {
			best, least = c, d
		}
	}
	return best
}

// fold removes the differences that people do not see.
func fold(s string) string {
	return strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToLower(s))
}

// distance counts the letters to insert, remove, replace or swap with the next
// (optimal string alignment).
func distance(a, b string) int {
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(b)]
}
