package supervisor

import (
	"syscall"
	"testing"
)

func TestLastStatus(t *testing.T) {
	for _, c := range []struct {
		worker worker
		want   string
	}{
		{worker{}, ""},
		{worker{status: "loading m"}, ", while it was loading m"},
		{worker{errno: syscall.ENOENT}, "; it reported error 2 (no such file or directory)"},
		{worker{status: "loading m", errno: syscall.EACCES}, ", while it was loading m; it reported error 13 (permission denied)"},
	} {
		if got := c.worker.lastStatus(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
