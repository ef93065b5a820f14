package config

import "testing"

func TestPaths(t *testing.T) {
	tests := []struct {
		name         string
		cache, admin string // the settings
		user         Account
		env          map[string]string
		uid          int
		wantCache    string
		wantAdmin    string
	}{
		{"settings", "/c", "/a", "", map[string]string{"CACHE_DIRECTORY": "/x", "RUNTIME_DIRECTORY": "/y"}, 1, "/c", "/a"},
		{"off", "c", AdminOff, "", map[string]string{"RUNTIME_DIRECTORY": "/y"}, 1, "c", ""},
		{"systemd", "", "", "", map[string]string{"CACHE_DIRECTORY": "/x:/x2", "RUNTIME_DIRECTORY": "/y:/y2", "XDG_CACHE_HOME": "/z"}, 1, "/x", "/y/admin.sock"},
		{"desktop", "", "", "", map[string]string{"XDG_CACHE_HOME": "/c", "XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/h"}, 7, "/c/preforkd", "/run/user/7/preforkd/admin.sock"},
		{"relative ones do not count", "", "", "", map[string]string{"CACHE_DIRECTORY": "x", "XDG_CACHE_HOME": "c", "RUNTIME_DIRECTORY": "r", "XDG_RUNTIME_DIR": "d", "HOME": "h"}, 7, "/var/tmp/preforkd-7", "/tmp/preforkd-7/admin.sock"},
		{"home", "", "", "", map[string]string{"HOME": "/home/u"}, 7, "/home/u/.cache/preforkd", "/tmp/preforkd-7/admin.sock"},
		{"root", "", "", "", map[string]string{"HOME": "/root"}, 0, "/root/.cache/preforkd", "/run/preforkd/admin.sock"},
		{"no home in a container", "", "", "", map[string]string{"HOME": "/"}, 7, "/var/tmp/preforkd-7", "/tmp/preforkd-7/admin.sock"},
		{"no home in Debian", "", "", "", map[string]string{"HOME": "/nonexistent"}, 7, "/var/tmp/preforkd-7", "/tmp/preforkd-7/admin.sock"},
		{"nothing", "", "", "", nil, 0, "/var/tmp/preforkd-0", "/run/preforkd/admin.sock"},
		{"workers of another user", "", "", "nobody", map[string]string{"HOME": "/root", "XDG_CACHE_HOME": "/c"}, 0, "/var/cache/preforkd", "/run/preforkd/admin.sock"},
		{"of another user, systemd", "", "", "nobody", map[string]string{"CACHE_DIRECTORY": "/x"}, 0, "/x", "/run/preforkd/admin.sock"},
		{"of root", "", "", "root", map[string]string{"HOME": "/root"}, 0, "/root/.cache/preforkd", "/run/preforkd/admin.sock"},
		{"of oneself", "", "", "u", map[string]string{"HOME": "/home/u"}, 7, "/home/u/.cache/preforkd", "/tmp/preforkd-7/admin.sock"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := Default()
			c.Cache.Dir, c.Admin, c.User = test.cache, test.admin, test.user
			getenv := func(name string) string { return test.env[name] }
			if got := c.CacheDir(getenv, test.uid); got != test.wantCache {
				t.Errorf("cache %s, want %s", got, test.wantCache)
			}
			if got := c.AdminSocket(getenv, test.uid); got != test.wantAdmin {
				t.Errorf("admin %s, want %s", got, test.wantAdmin)
			}
		})
	}
}

func TestOpsAddress(t *testing.T) {
	for setting, want := range map[string]struct {
		address string
		asked   bool
	}{"": {"127.0.0.1:8002", false}, OpsOff: {"", false}, "127.0.0.1:8002": {"127.0.0.1:8002", true}} {
		c := Default()
		c.Ops.Listen = setting
		if address, asked := c.OpsAddress(); address != want.address || asked != want.asked {
			t.Errorf("%q: %q, %v", setting, address, asked)
		}
	}
}
