// Package archtest keeps the map of the packages true: its tests read the imports in
// the source files and the packages that each program links, and fail when a wall has
// been broken. The rules are in map.go, the map in docs/ARCHITECTURE.md.
//
// It exports nothing.
package archtest
