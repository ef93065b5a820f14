package e2e

import (
	"os"
	"testing"
)

// TestMain spares every command that a test runs the second that the race detector waits
// at the end of a program.
func TestMain(m *testing.M) {
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	os.Exit(m.Run())
}
