package config

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

// write returns the path of a new file with this content.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "preforkd.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// said returns an error's text without the directory of its file.
func said(err error) string {
	if err == nil {
		return ""
	}
	lines := strings.Split(err.Error(), "\n")
	for i, l := range lines {
		if head, tail, ok := strings.Cut(l, "preforkd.yaml:"); ok && strings.HasPrefix(head, "/") {
			lines[i] = "preforkd.yaml:" + tail
		}
	}
	return strings.Join(lines, "\n")
}

func TestProblemsGolden(t *testing.T) {
	data, err := os.ReadFile("testdata/problems.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var c Config
	got := said(Decode("problems.yaml", data, &c)) + "\n"
	if *update {
		if err := os.WriteFile("testdata/problems.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/problems.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestPrecedence(t *testing.T) {
	const file = "workers: 2\nlog: {level: warn}\n"
	tests := []struct {
		name   string
		file   string
		env    []string
		flags  []Flag
		want   Workers
		origin string
	}{
		{"default", "", nil, nil, Auto, "default"},
		{"file", file, nil, nil, 2, "preforkd.yaml:1"},
		{"customary variable", file, []string{"WEB_CONCURRENCY=3"}, nil, 3, "environment WEB_CONCURRENCY"},
		{"our variable", file, []string{"WEB_CONCURRENCY=3", "PREFORKD_WORKERS=4"}, nil, 4, "environment PREFORKD_WORKERS"},
		{"first of two", file, []string{"PREFORKD_WORKERS=4", "PREFORKD_WORKERS=5"}, nil, 4, "environment PREFORKD_WORKERS"},
		{"empty variable", file, []string{"PREFORKD_WORKERS=", "WEB_CONCURRENCY="}, nil, 2, "preforkd.yaml:1"},
		{"flag", file, []string{"WEB_CONCURRENCY=many", "PREFORKD_WORKERS=4"}, []Flag{{"-w", "workers", "5"}}, 5, "flag -w"},
		{"last of two flags", file, nil, []Flag{{"-w", "workers", "5"}, {"--workers", "workers", "auto"}}, Auto, "flag --workers"},
		{"flag without a name", file, nil, []Flag{{"", "workers", "6"}}, 6, "flag --workers"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, test.file)
			l, err := Load(Sources{File: path, Explicit: true, Env: test.env, Flags: test.flags})
			if err != nil {
				t.Fatal(err)
			}
			if l.Config.Workers != test.want {
				t.Errorf("workers %v, want %v", l.Config.Workers, test.want)
			}
			if got := strings.TrimPrefix(l.Origins["workers"], filepath.Dir(path)+"/"); got != test.origin {
				t.Errorf("origin %q, want %q", got, test.origin)
			}
			if l.File != path || len(l.Warnings) > 0 {
				t.Errorf("file %q, warnings %q", l.File, l.Warnings)
			}
			for _, s := range settingsOf(reflectOf(&l.Config), "") {
				if l.Origins[s.key] == "" {
					t.Errorf("%s has no origin", s.key)
				}
			}
		})
	}
}

func TestEnvironmentValues(t *testing.T) {
	l, err := Load(Sources{Env: []string{
		"PORT=8080",
		"ONNXRUNTIME=/opt/libonnxruntime.so",
		"PREFORKD_TIMEOUTS_BOOT=1m30s",
		"PREFORKD_WORKER_MAX_CRASHES=9",
		"PREFORKD_WORKER_COMMAND=python3, -m ,serve",
		"PREFORKD_HTTP_MAX_BODY=1048576",
		"PREFORKD_HTTP_WORKER_HEADER=1",
		"PREFORKD_POOL=main", "PREFORKD_SLOT=1", "PREFORKD_GENERATION=2", "PREFORKD_FDNAMES=a:b",
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Listen = []Address{{Network: "tcp", Addr: "0.0.0.0:8080"}}
	want.Inference.Library = "/opt/libonnxruntime.so"
	want.Timeouts.Boot = 90 * time.Second
	want.Worker.MaxCrashes = 9
	want.Worker.Command = []string{"python3", "-m", "serve"}
	want.HTTP.MaxBody = 1 << 20
	want.HTTP.WorkerHeader = true
	if !reflect.DeepEqual(l.Config, want) {
		t.Errorf("got  %+v\nwant %+v", l.Config, want)
	}
	if len(l.Warnings) > 0 {
		t.Errorf("warnings %q", l.Warnings)
	}
}

func TestListFlags(t *testing.T) {
	l, err := Load(Sources{
		Env: []string{"PREFORKD_LISTEN=:1"},
		Flags: []Flag{
			{"--listen", "listen", ":8000"},
			{"--models", "models", "m"},
			{"--listen", "listen", "unix:/run/a,fd:b"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Address{{Network: "tcp", Addr: ":8000"}, {Network: "unix", Addr: "/run/a"}, {Network: "fd", Addr: "b"}}
	if !reflect.DeepEqual(l.Config.Listen, want) || l.Origins["listen"] != "flag --listen" {
		t.Errorf("got %v from %s", l.Config.Listen, l.Origins["listen"])
	}
}

func TestWarnings(t *testing.T) {
	l, err := Load(Sources{Env: []string{
		"PREFORKD_WORKRS=3", "PREFORKD_YONDER_ENTIRELY=1", "PREFORKD=1", "PREFORKD_TIMEOUTS_DRAIN=5s", "PREFORKD_WORKER_QUARANTINE_AFTER=6",
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"environment PREFORKD_WORKRS: no such setting, ignored; did you mean PREFORKD_WORKERS?",
		"environment PREFORKD_YONDER_ENTIRELY: no such setting, ignored",
		"timeouts.drain (5s) is shorter than timeouts.request (30s): a leaving worker cuts off requests that take longer",
		"worker.quarantine_after (6) is more than worker.max_crashes (5): a model may use up the crashes of a slot before it is quarantined",
	}
	if !reflect.DeepEqual(l.Warnings, want) {
		t.Errorf("got %q", l.Warnings)
	}
}

// Problems of all sources come together, those of the file by line.
func TestProblemsOfAllSources(t *testing.T) {
	_, err := Load(Sources{
		File: write(t, "workers: many\nlisten: []\nport: 1\n"),
		Env: []string{
			"PORT=http", "WEB_CONCURRENCY=0", "PREFORKD_LOG_LEVEL=INFO", "PREFORKD_TIMEOUTS_BOOT=30",
			"PREFORKD_ADMIN=a\x00b",
		},
		Flags: []Flag{
			{"--log-levle", "log.levle", "info"},
			{"--listen", "listen", ",:x"},
			{"-c", "nothing", ""},
		},
	})
	want := `preforkd.yaml:1:10: workers: "many" is not a whole number; write auto or a number from 1 to 1024
    workers: many
             ^
preforkd.yaml:2:9: listen: is empty; write a list, such as ["127.0.0.1:8000"]
    listen: []
            ^
preforkd.yaml:3:1: port: unknown key; known here are listen, workers, models, user, group, groups, predict, worker, timeouts, drain, concurrency, queue, layers, routes, lab, http, auth, inference, cache, reload, recycle, memory, tasks, pools, admin, ops, log
    port: 1
    ^
environment WEB_CONCURRENCY: workers: "0" is too small; write auto or a number from 1 to 1024
environment PREFORKD_TIMEOUTS_BOOT: timeouts.boot: "30" has no unit; write a duration from 1ms to 24h, such as 30s
environment PREFORKD_ADMIN: admin: "a\x00b" contains a control character; write text
environment PREFORKD_LOG_LEVEL: log.level: "INFO" is not allowed; did you mean info? write debug, info, warn or error
flag --log-levle: log.levle: unknown key; did you mean log.level?
flag -c: nothing: unknown key
flag --listen: listen[0]: "" is empty; write HOST:PORT, unix:/PATH or fd:NAME
flag --listen: listen[1]: ":x" has the port "x", which is not a number from 0 to 65535; write HOST:PORT, unix:/PATH or fd:NAME`
	if got := said(err); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFileIsFound(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.yaml")
	one, two := write(t, "workers: 1\n"), write(t, "workers: 2\n")
	tests := []struct {
		name    string
		sources Sources
		file    string
		err     string
	}{
		{"none", Sources{}, "", ""},
		{"default missing", Sources{File: missing}, "", ""},
		{"default", Sources{File: one}, one, ""},
		{"variable wins over default", Sources{File: one, Env: []string{"PREFORKD_CONFIG=" + two}}, two, ""},
		{"flag wins over variable", Sources{File: one, Explicit: true, Env: []string{"PREFORKD_CONFIG=" + two}}, one, ""},
		{"named and missing", Sources{File: missing, Explicit: true}, "", missing + ": read configuration: no such file or directory; correct -c or the file"},
		{"variable and missing", Sources{Env: []string{"PREFORKD_CONFIG=" + missing}}, "", missing + ": read configuration: no such file or directory; correct PREFORKD_CONFIG or the file"},
		{"directory", Sources{File: filepath.Dir(one)}, "", filepath.Dir(one) + ": read configuration: is a directory; correct -c or the file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l, err := Load(test.sources)
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Errorf("got  %v\nwant %s", err, test.err)
				}
				return
			}
			if err != nil || l.File != test.file {
				t.Errorf("file %v, error %v", l, err)
			}
		})
	}
}

func TestChecksAcrossSettings(t *testing.T) {
	tests := []struct{ name, file, env, want string }{
		{
			"one address twice", "listen:\n  - :8000\n  - 127.0.0.1:80\n  - \"[::]:8000\"\n", "",
			`preforkd.yaml:4:5: listen[2]: "[::]:8000" is the same address as ":8000" in listen[0]; remove one` +
				"\n      - \"[::]:8000\"\n        ^",
		},
		{
			"one path twice", "", "PREFORKD_LISTEN=unix:/a?mode=0600,unix:/./a",
			`environment PREFORKD_LISTEN: listen[1]: "unix:/./a" is the same address as "unix:/a?mode=0600" in listen[0]; remove one`,
		},
		{
			"the variable's list, not the file's", "listen: [:1, :2]\n", "PREFORKD_LISTEN=:3,:3",
			`environment PREFORKD_LISTEN: listen[1]: ":3" is the same address as ":3" in listen[0]; remove one`,
		},
		{
			"relative admin", "admin: run/admin.sock\n", "",
			`preforkd.yaml:1:8: admin: "run/admin.sock" is not a path that begins with /; write one, or off` +
				"\n    admin: run/admin.sock\n           ^",
		},
		{
			"long admin", "", "PREFORKD_ADMIN=/" + strings.Repeat("a", 107),
			`environment PREFORKD_ADMIN: admin: a path of 108 bytes is too long for a socket; the kernel allows 107`,
		},
		{
			"admin is a listener", "", "PREFORKD_LISTEN=unix:/a/b,PREFORKD_ADMIN=/a//b",
			`environment PREFORKD_ADMIN: admin: "/a//b" is also listen[0]; write another path`,
		},
		{
			"no program", "worker: {command: ['', x]}\n", "",
			`preforkd.yaml:1:20: worker.command[0]: "" names no program; write its name or path` +
				"\n    worker: {command: ['', x]}\n                       ^",
		},
		{"admin off", "admin: off\n", "", ""},
		{"ops off", "ops: {listen: off}\n", "", ""},
		{"ops elsewhere", "listen: [:8000]\nops: {listen: 127.0.0.1:8000}\n", "", ""}, // the kernel decides
		{
			"ops is a listener", "listen: [127.0.0.1:8002]\n", "PREFORKD_OPS_LISTEN=127.0.0.1:8002",
			`environment PREFORKD_OPS_LISTEN: ops.listen: "127.0.0.1:8002" is also listen[0]; write another port`,
		},
		{"any two ports", "listen: [127.0.0.1:0]\n", "PREFORKD_OPS_LISTEN=127.0.0.1:0", ""},
		{
			"ops on a socket", "", "PREFORKD_OPS_LISTEN=unix:/a",
			`environment PREFORKD_OPS_LISTEN: ops.listen: "unix:/a" is no HOST:PORT; write one, or off`,
		},
		{
			"ops nowhere", "", "PREFORKD_OPS_LISTEN=8002",
			`environment PREFORKD_OPS_LISTEN: ops.listen: "8002" is a port without a host; write 127.0.0.1:8002, or :8002 for every interface; write HOST:PORT, or off`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			env := []string{test.env}
			if list, admin, ok := strings.Cut(test.env, ",PREFORKD_ADMIN"); ok {
				env = []string{list, "PREFORKD_ADMIN" + admin}
			}
			_, err := Load(Sources{File: write(t, test.file), Env: env})
			if got := said(err); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}
