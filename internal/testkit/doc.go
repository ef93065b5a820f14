// Package testkit runs the real programs for tests: it builds them once, starts a
// supervisor, waits for what it reports, and checks that nothing is left behind.
//
// A Service hears of its supervisor as systemd would, through NOTIFY_SOCKET, so that
// tests wait for events and never sleep.
//
// It serves tests only; every function may be called from the test's goroutine.
package testkit
