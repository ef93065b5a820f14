package e2e

import (
	"strconv"
	"strings"

	"preforkd/internal/testkit"
)

// limited starts a service whose pool sizes itself, and takes cores and memory away from it while it
// runs. given, later, checks that it has followed and gives them back, and what that returns
// checks that it has followed again: it looks every ten seconds.
func (u *unit) limited() (given func() (back func())) {
	u.t.Helper()
	const socket = "/run/preforkd-auto/admin.sock"
	size := func() int { return u.statusOf(socket).Pools[0].Size }
	follows := func(what string, want int) {
		u.t.Helper()
		if testkit.Await(func() bool { return size() == want }) != nil {
			u.t.Errorf("%s: %d workers, not %d\n%s", what, size(), want, u.Run("preforkd events --admin "+socket).Out)
		}
	}
	u.write("etc", "listen: [\""+freeAddress(u.t)+"\"]\n"+strings.NewReplacer("workers: 2", "workers: auto", "/preforkd/models", "/preforkd-auto/models").Replace(unitSettings), "/etc/preforkd/auto.yaml")
	u.Must(`mkdir -p /var/lib/preforkd-auto && cp -r /opt/models /var/lib/preforkd-auto/ && systemctl start preforkd@auto`)
	all := size()
	u.Must("systemctl set-property --runtime preforkd@auto CPUQuota=100% MemoryMax=400M")
	return func() func() {
		u.t.Helper()
		follows("CPUQuota=100%", 1)
		if out := u.Must("preforkd events --admin " + socket); !strings.Contains(out, "1 usable core by ") || all > 1 && !strings.Contains(out, "; it was "+strconv.Itoa(all)+" usable cores") {
			u.t.Errorf("%s", out)
		}
		if u.Run("test -e /sys/fs/cgroup/memory/memory.limit_in_bytes").Exit != 0 {
			u.t.Log("skipped: no memory cgroup: nothing limits memory here")
		} else if out := u.Must("preforkd events --admin " + socket); !strings.Contains(out, "400 MiB by ") {
			u.t.Errorf("%s", out)
		}
		u.Must("systemctl set-property --runtime preforkd@auto CPUQuota= MemoryMax=infinity")
		return func() {
			u.t.Helper()
			follows("no CPUQuota", all)
			u.Must("systemctl stop preforkd@auto")
		}
	}
}
