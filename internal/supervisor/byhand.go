package supervisor

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/cache"
)

// PrepareModels has models prepared as a start with these settings would, and starts nothing: the
// start then finds them. names chooses some; empty: all. What was done is written to out, why
// something was not to errOut.
func PrepareModels(ctx context.Context, cfg *config.Config, names []string, out, errOut io.Writer) error {
	if err := absolute(cfg); err != nil {
		return err
	}
	s := New(Options{Config: cfg})
	s.ctx, s.log = ctx, slog.New(slog.NewTextHandler(errOut, nil))
	s.inCharge = true // nobody waits for a start
	g := s.emptyGeneration(0, cfg)
	defer g.release(nil)
	for _, name := range cfg.PoolNames() {
		if err := s.newPool(g, name).identify(); err != nil {
			return err
		}
	}
	known := map[string]bool{}
	var failed []string
	for _, p := range g.pools {
		if p.other {
			continue
		}
		var err error
		if p.programs, err = openPrograms(p.key("worker.command"), p.cfg.Worker.Command, p.cfg.Inference.Library); err != nil {
			return err
		}
		found, err := cache.Collect(p.cacheOptions())
		if err != nil {
			return err
		}
		g.leases = append(g.leases, found.Lease)
		models := slices.DeleteFunc(slices.Clone(found.Models), func(m ipc.ModelFile) bool {
			return len(names) > 0 && !slices.Contains(names, m.Name)
		})
		s.prepareModels(p, models, found.Lease)
		for _, m := range models {
			known[m.Name] = true
			text := fmt.Sprintf("prepared, %d bytes of weights are shared", m.Shared)
			switch {
			case m.Prepared == "" && !p.prepares(&m):
				text = "left as it is: see inference.prepare"
			case m.Prepared == "":
				text = "not prepared"
				failed = append(failed, m.Name+" "+m.Version)
			case m.Shared == 0:
				text = "prepared; it has no weights that could be shared"
			}
			if _, err := fmt.Fprintf(out, "%s %s: %s\n", m.Name, m.Version, text); err != nil {
				return err
			}
		}
	}
	for _, name := range names {
		if !known[name] {
			return &ipc.Failure{Exit: ipc.ExitUsage, What: fmt.Sprintf("models prepare: there is no model %q in %s", name, cfg.Models.Dir), Try: "name one that is there, or none to have all prepared"}
		}
	}
	if len(failed) > 0 {
		return &ipc.Failure{Exit: ipc.ExitOther, What: "not prepared: " + strings.Join(failed, ", "), Try: "the lines above say why; the service serves them all the same, each worker with its own copy of the weights"}
	}
	return nil
}
