package e2e

import (
	"fmt"
	"os"
	"testing"
)

// TestMain spares every command that a test runs the second that the race detector waits
// at the end of a program. Workers of TestFullQueue pass through it, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == squeezeName {
		fmt.Fprintln(os.Stderr, squeeze(os.Args[2], os.Args[3]))
		os.Exit(1)
	}
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	os.Exit(m.Run())
}
