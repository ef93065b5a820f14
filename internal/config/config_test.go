package config

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDefaults(t *testing.T) {
	want := Config{
		Listen:  []Address{{Network: "tcp", Addr: "127.0.0.1:8000"}},
		Workers: Auto,
		Models:  Models{Dir: "models", Control: ControlNone, MaxUpload: 256 << 20},
		Worker: Worker{
			Kind: KindAuto, Ready: ReadyAuto, ReadyDelay: time.Second, Live: LiveAuto, StopSignal: "TERM",
			Probe:      Probe{Path: "/", Interval: 2 * time.Second, Timeout: 2 * time.Second, Successes: 1, Failures: 3},
			MaxCrashes: 5, CrashWindow: time.Minute, QuarantineAfter: 3, MaxBackoff: 10 * time.Second,
			OOMScoreAdj: 200,
		},
		Timeouts: Timeouts{
			Boot: 2 * time.Minute, Heartbeat: 30 * time.Second,
			Request: 30 * time.Second, Drain: 30 * time.Second,
		},
		Inference: Inference{Prepare: PrepareAuto},
		Cache:     Cache{PreparedMax: 8 << 30},
		Queue:     Queue{Shared: true, MaxRequests: 1000, MaxBytes: 256 << 20, MaxWait: 10 * time.Second},
		Reload:    Reload{Bake: 2 * time.Second, Trial: time.Second},
		Recycle:   Recycle{Jitter: 10},
		Memory:    Memory{Guard: "auto"},
		Tasks: Tasks{
			Workers: 1, MaxInput: 8 << 20, MaxTasks: 10000, MaxBytes: 1 << 30, Timeout: 10 * time.Minute, MaxWait: 24 * time.Hour, ResultTTL: time.Hour,
			Attempts: 3, MaxCrashes: 3, Silence: 15 * time.Second, MaxStore: 10 << 30, Reserve: 64 << 20, Memory: 256 << 20, Prefix: "preforkd", Replicas: 3,
		},
		HTTP: HTTP{
			MaxBody: 16 << 20, KeepaliveTimeout: 75 * time.Second,
			HeaderTimeout: 10 * time.Second, MaxConnections: 10000,
		},
		Layers: Layers{AsyncLayer{1000}, SyncLayer{40, 1000}},
		Log:    Log{Level: "info", Format: "text"},
	}
	if got := Default(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// The shipped file is the documentation of the settings: it names each of them,
// says something about it, and shows the default that holds without the file.
func TestShippedFile(t *testing.T) {
	const file = "../../configs/preforkd.yaml"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got Config
	d := newDecoder(file, reflectOf(&got))
	d.decode(data, reflectOf(&got))
	if problems := d.found(); len(problems) > 0 {
		t.Fatal(&Error{problems})
	}
	want := Default()
	want.Predict.Model = "digits" // the one choice it makes
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, s := range settingsOf(reflectOf(&got), "") {
		p, ok := d.places[s.key]
		if !ok {
			t.Errorf("%s is missing", s.key)
			continue
		}
		above := strings.TrimSpace(d.lines[p.line-2])
		if !strings.HasPrefix(above, "# ") {
			t.Errorf("%s has no comment above line %d", s.key, p.line)
		}
	}
}

// Two settings with one variable or flag could not be told apart.
func TestNamesAreUnique(t *testing.T) {
	var c Config
	seen := map[string]string{}
	for _, name := range internal {
		seen[name] = name
	}
	for _, s := range settingsOf(reflectOf(&c), "") {
		for _, name := range []string{s.env, flagName(s.key)} {
			if other, ok := seen[name]; ok {
				t.Errorf("%s and %s are both %s", s.key, other, name)
			}
			seen[name] = s.key
		}
	}
}

var (
	fullProxy = ProxyRoute{
		"http://a:1",
		[]string{"GET"},
		1, 2, 3, "Bearer x",
		4, 5, 6, 7, 8,
	}
	fullFeatures = Features{
		"redis://a:1/2", "u:{u}",
		[]string{"a"},
		FormatHash, MissingZero, "m", "x", 1, 2, "u", "p", "a",
		3, 4, 5, 6,
	}
	fullCORS = CORS{[]string{"https://a.example"}, []string{"GET"}, []string{"A"}, []string{"B"}, true, 1}
)

func TestJSONRoundTrip(t *testing.T) {
	full := Config{
		Listen: []Address{
			{Network: "tcp", Addr: "[::]:8000"},
			{Network: "unix", Addr: "/run/p.sock", Mode: 0o660, Owner: "www-data", Group: "33"},
			{Network: "fd", Addr: "http"},
			{Network: "tcp", Addr: ":8443", Cert: "/c,1.pem", Key: "/k.pem", Proxy: true},
		},
		Workers: 7,
		Models:  Models{"/srv/models", ControlExplicit, 15 * time.Second, 1 << 30},
		User:    "www-data",
		Group:   "33",
		Groups:  []Account{"video", "44"},
		Predict: Predict{"digits"},
		Worker: Worker{
			[]string{"python3", "-m", "serve"},
			KindOther, "/srv", ReadyProbe, time.Second, LiveProbe,
			Probe{"/health", 1, 2, 3, 4},
			"INT", 1, time.Millisecond, 2, time.Hour, 300,
			Limits{"1024", "0", "64GiB", "unlimited", "8MiB", "8388608"},
		},
		Pools:     map[string]Pool{"web": {Workers: 2, Timeouts: Timeouts{4, 3, 2, 1}}},
		Helpers:   map[string]Helper{"decode": {1, 2, 3}},
		Layers:    Layers{AsyncLayer{1}, SyncLayer{2, 3}},
		Routes:    map[string]Route{"/x": {Layer: LayerAsync, Class: "docs", Sleep: 1, Block: 2, Burn: 3, Proxy: fullProxy, Features: fullFeatures, CORS: fullCORS, At: "p:1", Steps: []string{"model:m"}, StepsAt: []string{"preforkd.yaml:1:2"}}},
		Lab:       true,
		Timeouts:  Timeouts{1, 2, 3, 4},
		Drain:     Drain{15},
		HTTP:      HTTP{1 << 30, 5, 6, 7, true, []Proxy{"10.0.0.0/8", ProxyUnix}},
		Auth:      Auth{"/i", "/t", "/c", "/d"},
		Inference: Inference{"/lib/libonnxruntime.so", []string{"/lib/a.so"}, PrepareOff},
		Cache:     Cache{"/cache", 1 << 30},
		Reload:    Reload{8, 9, 10},
		Recycle:   Recycle{11, 12, 13, 14},
		Memory:    Memory{Guard: "off"},
		Admin:     AdminOff,
		Ops:       Ops{OpsOff},
		Log:       Log{"debug", "json", "/var/log/p.log"},
	}
	for _, want := range []Config{Default(), full} {
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Config
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s\ngot  %+v\nwant %+v", text, got, want)
		}
	}
}
