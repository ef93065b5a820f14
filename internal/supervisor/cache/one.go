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

// CollectOne is Collect for the model called name alone, which lies in dir. Before anything is
// read or copied, fits is asked whether so many bytes may be loaded.
func CollectOne(o Options, name, dir string, fits func(bytes uint64) error) (*Collection, error) {
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
	bytes := uint64(0)
	for _, m := range models {
		n, err := size(filepath.Dir(m.Source))
		if err != nil {
			return nil, modelsFailure(dir, err)
		}
		bytes += n
	}
	if err := fits(bytes); err != nil {
		return nil, err
	}
	for _, m := range models {
		if err := c.add(o, m); err != nil {
			c.Lease.Close()
			return nil, err
		}
	}
	return c, nil
}

// size returns how many bytes the files below dir have.
func size(dir string) (n uint64, err error) {
	err = walk(dir, func(name string) error {
		st, err := os.Stat(filepath.Join(dir, name))
		if err == nil {
			n += uint64(st.Size())
		}
		return err
	})
	return n, err
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
