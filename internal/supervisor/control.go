package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
	"preforkd/internal/supervisor/cache"
)

// Load loads a model in the whole service and waits for the end.
func (v service) Load(ctx context.Context, r admin.ModelRequest, upload func(dir string, limit int64) error) (admin.ModelResult, error) {
	o := modelOrder{name: r.Name, version: r.Version, pool: r.Pool, by: "command", noWait: r.NoWait}
	if upload == nil {
		return v.s.orderModel(ctx, o)
	}
	dir, err := v.s.receive(ctx, &o, upload)
	if dir != "" {
		defer os.RemoveAll(dir) // else it is swept
	}
	if err != nil {
		return admin.ModelResult{}, err
	}
	return v.s.orderModel(ctx, o)
}

// Unload takes a model away and waits for the end.
func (v service) Unload(ctx context.Context, r admin.ModelRequest) (admin.ModelResult, error) {
	return v.s.orderModel(ctx, modelOrder{name: r.Name, unload: true, pool: r.Pool, by: "command", noWait: r.NoWait})
}

// receive has upload write the files of o's model to a directory in the cache, which it
// returns.
func (s *Supervisor) receive(ctx context.Context, o *modelOrder, upload func(dir string, limit int64) error) (dir string, err error) {
	var refused error
	var options cache.Options
	var limit int64
	highest := uint64(0)
	asked := s.ask(ctx, func() {
		if refused = s.mayControl(*o); refused != nil {
			return
		}
		var p *pool
		if p, refused = s.gen.poolNamed(o.pool); refused != nil {
			return
		}
		options, limit = p.cacheOptions(), int64(s.gen.cfg.Models.MaxUpload)
		for _, m := range p.models {
			if n, err := strconv.ParseUint(m.Version, 10, 63); err == nil && m.Name == o.name {
				highest = max(highest, n)
			}
		}
	})
	if asked != nil || refused != nil {
		return "", firstOf(asked, refused)
	}
	if dir, err = cache.Stage(options); err != nil {
		return "", err
	}
	o.dir = filepath.Join(dir, o.name)
	if err := os.Mkdir(o.dir, 0o755); err != nil {
		return dir, err
	}
	if err := upload(o.dir, limit); err != nil {
		return dir, err
	}
	version := o.version
	if version == "" {
		version = strconv.FormatUint(highest+1, 10)
	} else if n, err := strconv.ParseUint(version, 10, 63); err != nil || n == 0 || strconv.FormatUint(n, 10) != version {
		return dir, &ipc.Failure{Exit: ipc.ExitUsage, What: fmt.Sprintf("version %q is no whole number from 1 on", version), Try: "write --version 2"}
	}
	if err := os.Rename(filepath.Join(o.dir, admin.UploadedVersion), filepath.Join(o.dir, version)); err != nil {
		return dir, &ipc.Failure{Exit: ipc.ExitUsage, What: "files: none of them is of the model itself", Try: "send " + ipc.DefaultModelFile + " as well"}
	}
	return dir, nil
}

// firstOf returns the first error that is one.
func firstOf(errs ...error) error {
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if i < 0 {
		return nil
	}
	return errs[i]
}
