package config

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestAccount(t *testing.T) {
	for _, c := range []struct {
		in, err string
		id      int
		number  bool
	}{
		{"", "", 0, false},
		{"www-data", "", 0, false},
		{"svc$", "", 0, false},
		{"0", "", 0, true},
		{"65534", "", 65534, true},
		{"4294967294", "", 4294967294, true},
		{"4294967295", "is no number of a user or a group; write one from 0 to 4294967294", 0, false},
		{"99999999999999999999", "is no number of a user or a group; write one from 0 to 4294967294", 0, false},
		{"010", "is no number of a user or a group; write one from 0 to 4294967294", 0, false},
		{"-1", "is no name of a user or a group", 0, false},
		{"a b", "is no name of a user or a group", 0, false},
		{"a:b", "is no name of a user or a group", 0, false},
		{"/a", "is no name of a user or a group", 0, false},
	} {
		var a Account
		if err := a.UnmarshalText([]byte(c.in)); message(err) != c.err {
			t.Errorf("%q: %v", c.in, err)
		}
		if id, number := a.ID(); id != c.id || number != c.number {
			t.Errorf("%q: %d, %v", c.in, id, number)
		}
	}
}

func TestLimit(t *testing.T) {
	for _, c := range []struct {
		in, err string
		value   uint64
		given   bool
	}{
		{"", "", 0, false},
		{"0", "", 0, true},
		{"65536", "", 65536, true},
		{"8MiB", "", 8 << 20, true},
		{"unlimited", "", math.MaxUint64, true},
		{"-1", "is too small", 0, false},
		{"infinity", "is not a size", 0, false},
		{"1.5GiB", "is not a size", 0, false},
	} {
		var l Limit
		if err := l.UnmarshalText([]byte(c.in)); message(err) != c.err {
			t.Errorf("%q: %v", c.in, err)
		}
		if value, given := l.Value(); value != c.value || given != c.given {
			t.Errorf("%q: %d, %v", c.in, value, given)
		}
	}
}

// TestPrivilegesOfPools: a pool has those outside of pools, unless it has a user of its own.
func TestPrivilegesOfPools(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.yaml")
	const text = `
user: alice
group: web
groups: [video, 44]
worker: {oom_score_adj: 300, limits: {nofile: 1000, core: 0}}
pools:
  same: {}
  group: {group: 7}
  other: {user: bob, worker: {limits: {core: unlimited}}}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Load(Sources{File: file, Explicit: true})
	if err != nil {
		t.Fatal(err)
	}
	type privileges struct {
		user, group Account
		groups      []Account
		limits      Limits
	}
	groups, limits := []Account{"video", "44"}, Limits{NoFile: "1000", Core: "0"}
	for name, want := range map[string]privileges{
		"main":  {"alice", "web", groups, limits},
		"same":  {"alice", "web", groups, limits},
		"group": {"alice", "7", groups, limits},
		"other": {"bob", "", nil, Limits{NoFile: "1000", Core: "unlimited"}},
	} {
		c := l.Config.ForPool(name)
		if got := (privileges{c.User, c.Group, c.Groups, c.Worker.Limits}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
		if c.Worker.OOMScoreAdj != 300 {
			t.Errorf("%s: %d", name, c.Worker.OOMScoreAdj)
		}
	}
}
