package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// CacheDir returns the directory of the prepared models: cache.dir, else
// $CACHE_DIRECTORY (systemd.exec(5)), else /var/cache/preforkd where root serves with
// workers of another user, who may not enter root's home, else preforkd in
// $XDG_CACHE_HOME, else in ~/.cache, else a directory in /var/tmp that carries uid.
// Whoever uses the last must see to it that the directory belongs to uid: anybody may
// create it.
func (c *Config) CacheDir(getenv func(string) string, uid int) string {
	if c.Cache.Dir != "" {
		return c.Cache.Dir
	}
	if dir := firstDir(getenv("CACHE_DIRECTORY")); dir != "" {
		return dir
	}
	if uid == 0 && c.namesUsers() {
		return "/var/cache/preforkd"
	}
	if dir := getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "preforkd")
	}
	// Accounts of services have no home: / in containers and with DynamicUser=,
	// /nonexistent in Debian.
	home := getenv("HOME")
	if filepath.IsAbs(home) && home != "/nonexistent" && (home != "/" || uid == 0) {
		return filepath.Join(home, ".cache", "preforkd")
	}
	return fmt.Sprintf("/var/tmp/preforkd-%d", uid)
}

// AdminSocket returns the path of the admin socket, empty if there is none: admin,
// else admin.sock in $RUNTIME_DIRECTORY (systemd.exec(5)), in
// $XDG_RUNTIME_DIR/preforkd, for root in /run/preforkd, else in a directory in /tmp
// that carries uid. Whoever uses the last must see to it that the directory
// belongs to uid: anybody may create it.
func (c *Config) AdminSocket(getenv func(string) string, uid int) string {
	const name = "admin.sock"
	if c.Admin == AdminOff {
		return ""
	}
	if c.Admin != "" {
		return c.Admin
	}
	if dir := firstDir(getenv("RUNTIME_DIRECTORY")); dir != "" {
		return filepath.Join(dir, name)
	}
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "preforkd", name)
	}
	if uid == 0 {
		return filepath.Join("/run/preforkd", name)
	}
	return filepath.Join(fmt.Sprintf("/tmp/preforkd-%d", uid), name)
}

// OpsAddress returns where the operations listener is, empty if there is none, and
// whether an operator asked for that address: ops.listen, else 127.0.0.1:8002, which
// another service of this machine may have.
func (c *Config) OpsAddress() (address string, asked bool) {
	switch c.Ops.Listen {
	case OpsOff:
		return "", false
	case "":
		return "127.0.0.1:8002", false
	}
	return c.Ops.Listen, true
}

// namesUsers tells whether some pool's workers shall be somebody's who is not root.
func (c *Config) namesUsers() bool {
	return slices.ContainsFunc(c.PoolNames(), func(name string) bool {
		user := c.ForPool(name).User
		return user != "" && user != "root" && user != "0"
	})
}

// firstDir returns the first of the directories that systemd lists, separated by
// colons; empty if that is not an absolute path.
func firstDir(list string) string {
	dir, _, _ := strings.Cut(list, ":")
	if !filepath.IsAbs(dir) {
		return ""
	}
	return dir
}
