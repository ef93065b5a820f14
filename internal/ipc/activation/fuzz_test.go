package activation

import (
	"strconv"
	"strings"
	"testing"

	"preforkd/internal/ipc"
)

func TestAnnounced(t *testing.T) {
	for _, c := range []struct {
		pid, fds, names, extra string
		sockets, behind        string // joined by commas
		bad                    bool
	}{
		{"7", "2", "a:b", "m:c", "a,b", "m,c", false},
		{"7", "2", "a", "", "a,unknown", "", false},
		{"7", "1", "a:b:c", "", "a", "", false},
		{"7", "0", "a", "m", "", "m", false},
		{"7", "1", "", "", "unknown", "", false},
		{"8", "2", "a:b", "m", "", "", false},
		{"", "2", "a:b", "m", "", "", false},
		{"7", "", "a:b", "m", "", "", false},
		{"7", "-1", "", "", "", "", true},
		{"7", "65537", "", "", "", "", true},
		{"7", "99999999999999999999", "", "", "", "", true},
		{"7", "1 ", "", "", "", "", true},
	} {
		env := map[string]string{"LISTEN_PID": c.pid, "LISTEN_FDS": c.fds, "LISTEN_FDNAMES": c.names, ipc.EnvFDNames: c.extra}
		sockets, extra, err := announced(env, 7)
		if strings.Join(sockets, ",") != c.sockets || strings.Join(extra, ",") != c.behind || err != nil != c.bad {
			t.Errorf("%+v: %q, %q, %v", c, sockets, extra, err)
		}
	}
}

// FuzzAnnounced: whatever the variables say, there are as many sockets as LISTEN_FDS, and
// only for the process that LISTEN_PID names.
func FuzzAnnounced(f *testing.F) {
	f.Add("7", "2", "a:b", "manifest:board")
	f.Add("7", "+3", ":::", ":")
	f.Add("07", "65536", "", "a")
	f.Fuzz(func(t *testing.T, pid, fds, names, extra string) {
		env := map[string]string{"LISTEN_PID": pid, "LISTEN_FDS": fds, "LISTEN_FDNAMES": names, ipc.EnvFDNames: extra}
		sockets, behind, err := announced(env, 7)
		if err != nil {
			if !strings.Contains(err.Error(), strconv.Quote(fds)) || sockets != nil || behind != nil {
				t.Fatalf("%q, %q, %v", sockets, behind, err)
			}
			return
		}
		if pid != "7" || fds == "" {
			if len(sockets)+len(behind) > 0 {
				t.Fatalf("%q, %q for another process", sockets, behind)
			}
			return
		}
		if n, err := strconv.Atoi(fds); err != nil || n != len(sockets) || n > mostSockets {
			t.Fatalf("LISTEN_FDS=%q, %d sockets", fds, len(sockets))
		}
		if strings.Join(behind, ":") != extra {
			t.Fatalf("%q became %q", extra, behind)
		}
	})
}
