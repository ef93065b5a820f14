package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrNoModel is in the chain of CollectOne's error when there is no directory.
var ErrNoModel = errors.New("there is no such model")

// CollectOne is Collect for the model called name alone, which lies in dir.
func CollectOne(o Options, name, dir string) (*Collection, error) {
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is no directory: %w", dir, ErrNoModel)
		}
		return nil, modelsFailure(dir, err)
	}
	if err := o.makeDirectories(); err != nil {
		return nil, err
	}
	c := &Collection{Lease: &Lease{}}
	models, warnings, err := o.find(name, dir)
	if err != nil {
		return nil, err
	}
	c.Warnings = warnings
	for _, m := range models {
		if err := c.add(o, m); err != nil {
			c.Lease.Close()
			return nil, err
		}
	}
	return c, nil
}

// Stage makes an empty directory in the cache for what is on its way there, or to workers. Its
// maker removes it; what a crash leaves is swept.
func Stage(o Options) (string, error) {
	if err := o.makeDirectories(); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(filepath.Join(o.Cache, "models"), newPrefix)
	if err != nil {
		return "", cacheFailure(o.Cache, err)
	}
	return dir, nil
}

// StageJSON is Stage with a file that holds v, which workers may read.
func StageJSON(o Options, v any) (dir, file string, err error) {
	data, err := json.Marshal(v)
	if err != nil {
		return "", "", err
	}
	if dir, err = Stage(o); err != nil {
		return "", "", err
	}
	file = filepath.Join(dir, "set.json")
	if err = os.WriteFile(file, data, 0o644); err == nil && o.Readable {
		err = openToAll(o.Cache, dir)
	}
	if err != nil {
		os.RemoveAll(dir)
		return "", "", cacheFailure(o.Cache, err)
	}
	return dir, file, nil
}
