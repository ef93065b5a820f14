//go:build race

package testkit

// RaceEnabled tells whether the race detector is in this program, and so in those of Programs.
const RaceEnabled = true
