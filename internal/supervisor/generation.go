package supervisor

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/supervisor/cache"
	"preforkd/internal/supervisor/machine"
	"preforkd/internal/supervisor/sizing"
	"preforkd/internal/supervisor/slot"
)

// generation is the workers that are started from one manifest.
type generation struct {
	number   uint64
	cfg      *config.Config
	models   []ipc.ModelFile
	manifest int // sealed memory; -1: not made yet
	pool     *pool
}

// newGeneration makes what the workers of generation number start from. It starts none.
func (s *Supervisor) newGeneration(number uint64, cfg *config.Config) (*generation, error) {
	path, command, err := workerCommand(cfg.Worker.Command)
	if err != nil {
		return nil, err
	}
	if err := absolute(cfg); err != nil {
		return nil, err
	}
	models, err := cache.Collect(cache.Options{
		Models: cfg.Models, Cache: cfg.Cache.Dir, Decode: config.Decode,
		Shared: filepath.Dir(cfg.Cache.Dir) == "/var/tmp",
	})
	if err != nil {
		return nil, err
	}
	for _, w := range models.Warnings {
		s.log.Warn("model directory", "warning", w)
	}
	if err := checkDefaultModel(cfg, models.Models); err != nil {
		return nil, err
	}
	g := &generation{number: number, cfg: cfg, models: models.Models, manifest: -1}
	g.pool = s.newPool(g, path, command, models.Bytes())
	return g, g.seal()
}

// seal makes the manifest.
func (g *generation) seal() error {
	settings, err := json.Marshal(g.cfg)
	if err != nil {
		return fmt.Errorf("encode the configuration for workers: %w", err)
	}
	data, err := json.Marshal(ipc.Manifest{Generation: g.number, Settings: settings, Models: g.models})
	if err != nil {
		return fmt.Errorf("encode the manifest: %w", err)
	}
	g.manifest, err = activation.Sealed("preforkd-manifest", data)
	return err
}

// release gives back the manifest. No worker of g may be started afterwards.
func (g *generation) release() {
	activation.Close(g.manifest)
	g.manifest = -1
}

func (s *Supervisor) newPool(g *generation, path string, command []string, modelBytes uint64) *pool {
	found, err := machine.Read()
	if err != nil {
		s.log.Warn("machine not fully known", "err", err)
	}
	plan := sizing.Decide(sizing.Input{
		Cores: found.Cores, Available: found.Available, ModelBytes: modelBytes, Asked: int(g.cfg.Workers),
	})
	s.log.Info("pool sized", "workers", plan.Workers, "why", plan.Why)
	if plan.Warning != "" {
		s.log.Warn("pool may not fit", "warning", plan.Warning)
	}
	c := g.cfg
	p := &pool{
		gen: g, name: "main", path: path, command: command, procs: plan.Procs,
		clocks: clocks{boot: c.Timeouts.Boot, heartbeat: c.Timeouts.Heartbeat, drain: c.Timeouts.Drain},
		policy: slot.Policy{MaxCrashes: c.Worker.MaxCrashes, CrashWindow: c.Worker.CrashWindow, MaxWait: c.Worker.MaxBackoff},
	}
	for i := range plan.Workers {
		p.slots = append(p.slots, &poolSlot{pool: p, index: i})
	}
	return p
}

// absolute makes the paths that workers use independent of this process's directory:
// they run in /.
func absolute(cfg *config.Config) (err error) {
	cfg.Cache.Dir = cfg.CacheDir(os.Getenv, os.Getuid())
	for _, path := range []*string{&cfg.Cache.Dir, &cfg.Inference.Library} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return fmt.Errorf("make %s absolute: %w", *path, err)
		}
	}
	return nil
}

// checkDefaultModel refuses a predict.model that is not there.
func checkDefaultModel(cfg *config.Config, models []ipc.ModelFile) error {
	want := cfg.Predict.Model
	if want == "" {
		return nil
	}
	var names []string
	for _, m := range models {
		if m.Name == want {
			return nil
		}
		names = append(names, m.Name)
	}
	return &ipc.Failure{
		Exit: ipc.ExitConfig, What: fmt.Sprintf("predict.model: %s is not in %s, which holds %s", want, cfg.Models, strings.Join(names, ", ")),
		Try: "name a model that is there, or remove the setting",
	}
}
