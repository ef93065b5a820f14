package supervisor

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"testing"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
)

// numberOf returns a number of a user of this machine, and skips where there is no such one.
func numberOf(t *testing.T, name string, number func(*user.User) string) int {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	n, err := strconv.Atoi(number(u))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestIdentify(t *testing.T) {
	uid := numberOf(t, "nobody", func(u *user.User) string { return u.Uid })
	gid := numberOf(t, "nobody", func(u *user.User) string { return u.Gid })
	group, err := user.LookupGroup("daemon")
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	daemon, _ := strconv.Atoi(group.Gid)
	root, other := self{uid: 0, gid: 0, groups: []int{0, 4}}, self{uid: uid, gid: gid, groups: []int{gid, 7}}
	accounts := func(names ...config.Account) []config.Account { return names }
	sorted := func(n ...int) []int { slices.Sort(n); return slices.Compact(n) }
	for _, c := range []struct {
		name        string
		me          self
		user, group config.Account
		groups      []config.Account
		uid, gid    int // -1: as we are
		in          []int
		exit        int
		words       string
	}{
		{"root says nothing", root, "", "", nil, 0, 0, nil, ipc.ExitConfig, "pools.a.user: the service was started as root"},
		{"root for root", root, "root", "", nil, 0, 0, []int{0, 4}, 0, ""},
		{"by number", root, "0", "", nil, 0, 0, []int{0, 4}, 0, ""},
		{"root in another group", root, "root", "daemon", nil, 0, daemon, []int{daemon}, 0, ""},
		{"for another user", root, "nobody", "", nil, uid, gid, []int{gid}, 0, ""},
		{"by its number", root, config.Account(strconv.Itoa(uid)), "", nil, uid, gid, []int{gid}, 0, ""},
		{"in another group", root, "nobody", "daemon", nil, uid, daemon, []int{daemon}, 0, ""},
		{"in more groups", root, "nobody", "", accounts("daemon", "4711", "daemon"), uid, gid, sorted(gid, daemon, 4711), 0, ""},
		{"missing user", root, "no-such-user", "", nil, 0, 0, nil, ipc.ExitConfig, `pools.a.user: there is no user "no-such-user"`},
		{"missing group", root, "nobody", "no-such-group", nil, 0, 0, nil, ipc.ExitConfig, `pools.a.group: there is no group "no-such-group"`},
		{"missing one of groups", root, "nobody", "", accounts("4711", "no-such-group"), 0, 0, nil, ipc.ExitConfig, `pools.a.groups[1]: there is no group`},
		{"number of nobody", root, "4711", "4712", nil, 4711, 4712, []int{4712}, 0, ""},
		{"without a group", root, "4711", "", nil, 0, 0, nil, ipc.ExitConfig, "pools.a.user: there is no user of number 4711"},
		{"not root, silent", other, "", "", nil, -1, -1, nil, 0, ""},
		{"not root, itself", other, "nobody", "", nil, uid, gid, []int{gid, 7}, 0, ""},
		{"not root, its groups", other, "nobody", config.Account(strconv.Itoa(gid)), accounts("7"), uid, gid, []int{gid, 7}, 0, ""},
		{"not root, for root", other, "root", "", nil, 0, 0, nil, ipc.ExitPermission, "pools.a.user: only a service that root has started can run its workers as root; this one is user"},
		{"not root, another group", other, "", "daemon", nil, 0, 0, nil, ipc.ExitPermission, "pools.a.group: only a service that root has started"},
		{"not root, a further group", other, "nobody", "", accounts("4711"), 0, 0, nil, ipc.ExitPermission, "pools.a.groups[0]: only a service that root has started"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config.Default()
			cfg.User, cfg.Group, cfg.Groups = c.user, c.group, c.groups
			got, err := c.me.identify(&cfg, func(k string) string { return config.PoolKey("a", k) })
			if c.exit != 0 {
				f := (*ipc.Failure)(nil)
				if !errors.As(err, &f) || f.Exit != c.exit || !strings.HasPrefix(f.What, c.words) || f.Try == "" {
					t.Errorf("%v, want %d, %q", err, c.exit, c.words)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.uid < 0 {
				if got != nil {
					t.Errorf("%+v", got)
				}
				return
			}
			if got.UID != c.uid || got.GID != c.gid || fmt.Sprint(got.Groups) != fmt.Sprint(c.in) || got.Name == "" || got.Home == "" {
				t.Errorf("%+v, want user %d, group %d, groups %v", got, c.uid, c.gid, c.in)
			}
		})
	}
}
