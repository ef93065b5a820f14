package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"preforkd/bench/proc"
	"preforkd/internal/supervisor/admin"
)

// uvicornOurs is preforkd with uvicorn as its workers: the application of gunicorn.
var uvicornOurs = contender{
	name: ours + " with uvicorn",
	prepare: func(ctx context.Context, l *lab) (string, error) {
		text, err := l.output(ctx, python, "-c", `import uvicorn, fastapi, uvloop, httptools
print("uvicorn", uvicorn.__version__, "on uvloop, FastAPI", fastapi.__version__)`)
		if err != nil {
			return "", errors.New("try: apt-get install python3-uvicorn python3-fastapi python3-uvloop python3-httptools")
		}
		return strings.TrimSpace(text) + "; preforkd reload", nil
	},
	deploy: deployOther(fmt.Sprintf(`[%s, -m, uvicorn, "asgi:app", --fd, "{fd}", --no-access-log, --timeout-keep-alive, "75"]`, python), "30s"), // gunicorn's graceful_timeout
	spec:   specOther, trigger: reloadOurs, waits: true, ready: probed,
	worker: func(cmdline string) bool { return strings.Contains(cmdline, "uvicorn") }, request: root, versions: applications,
}

// nodeOurs is preforkd with node as its workers: the application of pm2.
var nodeOurs = contender{
	name: ours + " with node",
	prepare: func(ctx context.Context, l *lab) (string, error) {
		version, err := l.output(ctx, "node", "--version")
		if err != nil {
			return "", errors.New("try: apt-get install nodejs")
		}
		return "node " + strings.TrimSpace(version) + " without its cluster module; preforkd reload", nil
	},
	deploy: deployOther("[node, app.js]", "5s"), // kill_timeout of pm2
	spec:   specOther, trigger: reloadOurs, waits: true, ready: probed,
	worker: func(cmdline string) bool { return strings.Contains(cmdline, "app.js") }, request: root, versions: applications,
}

// deployOther returns what writes the configuration for workers that are started by command
// and have so long to leave.
func deployOther(command, drain string) func(*stage, version) error {
	return func(s *stage, v version) error {
		text := fmt.Sprintf(`listen: ["%s"]
workers: %d
admin: %s
worker:
  command: %s
  dir: %s
  probe: {path: /}
timeouts: {drain: %s}
%s
`, s.address(), workersEach, s.path("admin.sock"), command, s.peers(), drain, s.settings)
		return errors.Join(os.WriteFile(s.path("preforkd.yaml"), []byte(text), 0o644), deployWord(s, v))
	}
}

// probed returns nil when preforkd takes every worker for ready: such programs answer
// before it has probed them.
func probed(s *stage) error {
	client, err := admin.Dial(s.path("admin.sock"))
	if err != nil {
		return err
	}
	defer client.Close()
	st, err := client.Status(context.Background())
	if err != nil {
		return err
	}
	for _, slot := range st.Pools[0].Slots {
		if slot.State != "ready" {
			return fmt.Errorf("worker %d is %s", slot.Index, slot.State)
		}
	}
	return nil
}

func specOther(s *stage) proc.Spec {
	spec := ourselves.spec(s)
	spec.Name = s.c.name
	spec.Env = append(spec.Env, "VERSION_FILE="+s.path("version"), "PYTHONDONTWRITEBYTECODE=1")
	return spec
}
