package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"preforkd/internal/ipc"
)

// Options say where models lie and where their copies go.
type Options struct {
	Models string // the model directory
	Cache  string // the cache directory; made when absent
	// Shared says that the cache lies where anybody may make directories, such as
	// /var/tmp: it must then be this user's alone.
	Shared bool
	// Version is the only one that is taken, whatever settings choose; empty: they do. Only
	// CollectOne looks at it.
	Version string
	// Readable says that others than this user shall read the copies: workers of another one.
	Readable bool
	// Decode reads a model's config.yaml; its error names file and line.
	Decode func(file string, data []byte, into any) error
	// DecodeText reads the config.pbtxt of the model called name; so do its error and its
	// warnings.
	DecodeText func(file, name string, data []byte, into *ipc.ModelSettings) (warnings []string, err error)
}

// Collection is what Collect found.
type Collection struct {
	Models   []ipc.ModelFile // by name, the versions of one from the lowest on
	Warnings []string        // what is no model, and settings without effect
	Lease    *Lease          // of the copies; the caller's to close

	known *known // once there is anything to read
}

// Bytes returns the size of all model files together.
func (c *Collection) Bytes() uint64 {
	var n uint64
	for _, m := range c.Models {
		n += uint64(m.Bytes)
	}
	return n
}

// Collect finds the models and copies them into the cache. The error is an
// *ipc.Failure, and names every model at fault, not only the first.
func Collect(o Options) (*Collection, error) {
	entries, err := os.ReadDir(o.Models)
	if err != nil {
		return nil, modelsFailure(o.Models, err)
	}
	if err := o.makeDirectories(); err != nil {
		return nil, err
	}
	c := &Collection{Lease: &Lease{}}
	var bad []error
	for _, entry := range entries {
		dir := filepath.Join(o.Models, entry.Name())
		if strings.HasPrefix(entry.Name(), ".") {
			continue // editors' and Kubernetes' own
		}
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			c.Warnings = append(c.Warnings, dir+" is no directory: not a model")
			continue
		}
		models, warnings, err := o.find(entry.Name(), dir)
		c.Warnings = append(c.Warnings, warnings...)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		for _, m := range models {
			if err := c.add(o, m); err != nil {
				bad = append(bad, err)
			}
		}
	}
	if len(bad) > 0 {
		c.Lease.Close()
		return nil, joined(bad)
	}
	if len(c.Models) == 0 {
		return nil, &ipc.Failure{
			Exit: ipc.ExitConfig, What: "models: " + o.Models + " holds no model",
			Try: "put one at " + filepath.Join(o.Models, "NAME", "1", ipc.DefaultModelFile) + ", or set models to another directory",
		}
	}
	return c, nil
}

// add copies m into the cache.
func (c *Collection) add(o Options, m ipc.ModelFile) error {
	if c.known == nil {
		c.known = readKnown(o.Cache)
	}
	copied, err := store(o.Cache, c.known, &m)
	c.known.save()
	if err != nil {
		return err
	}
	if o.Readable {
		if err := openToAll(o.Cache, filepath.Dir(m.Path)); err != nil {
			copied.Close()
			return err
		}
	}
	c.Models = append(c.Models, m)
	c.Lease.dirs = append(c.Lease.dirs, leased{m.Digest, copied})
	return nil
}

// makeDirectories makes those of the cache. The copies' is ours; the cache itself may be
// somebody's who has chosen who may enter it, unless we have just made it.
func (o Options) makeDirectories() error {
	_, err := os.Stat(o.Cache)
	made := errors.Is(err, fs.ErrNotExist)
	if o.Shared {
		if err := ownDirectory(o.Cache); err != nil {
			return err
		}
	}
	models := filepath.Join(o.Cache, "models")
	if err := os.MkdirAll(models, 0o755); err != nil {
		return cacheFailure(o.Cache, err)
	}
	if !o.Readable {
		return nil
	}
	open := []string{models}
	if made {
		open = append(open, o.Cache)
	}
	for _, dir := range open {
		if err := os.Chmod(dir, 0o755); err != nil {
			return cacheFailure(o.Cache, err)
		}
	}
	return nil
}

// openToAll lets everybody read what lies below dir, whatever the umask was when it was made.
func openToAll(cache, dir string) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		add := fs.FileMode(0o444)
		switch {
		case d.IsDir():
			add = 0o555
		case !d.Type().IsRegular():
			return nil
		}
		if mode := info.Mode().Perm(); mode|add != mode {
			return os.Chmod(path, mode|add)
		}
		return nil
	})
	if err != nil {
		return cacheFailure(cache, err)
	}
	return nil
}

// ownDirectory makes dir, or checks that it is a directory of this user that nobody
// else may write: a stranger could put models there.
func ownDirectory(dir string) error {
	if err := os.Mkdir(dir, 0o700); err == nil || !errors.Is(err, fs.ErrExist) {
		if err != nil {
			return cacheFailure(dir, err)
		}
		return nil
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return cacheFailure(dir, err)
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !st.IsDir() || !ok || int(owner.Uid) != os.Getuid() || st.Mode().Perm()&0o022 != 0 {
		return &ipc.Failure{
			Exit: ipc.ExitPermission, What: "model cache: " + dir + " is not a directory that only this user may write",
			Try: "set cache.dir to a directory of this user",
		}
	}
	return nil
}

// joined makes one failure of several; the status is that of the first.
func joined(bad []error) error {
	if len(bad) == 1 {
		return bad[0]
	}
	f := &ipc.Failure{Exit: ipc.ExitStatus(bad[0]), Err: errors.Join(bad...)}
	for i, err := range bad {
		if i > 0 {
			f.What += "\n"
		}
		f.What += err.Error()
	}
	return f
}

func modelsFailure(path string, err error) *ipc.Failure {
	f := &ipc.Failure{Exit: ipc.ExitConfig, What: "models: " + err.Error(), Try: "set models to the directory that holds them", Err: err}
	if errors.Is(err, fs.ErrPermission) {
		f.Exit, f.Try = ipc.ExitPermission, "let this user read "+path
	}
	return f
}

func cacheFailure(dir string, err error) *ipc.Failure {
	f := &ipc.Failure{Exit: ipc.ExitUnavailable, What: "model cache: " + err.Error(), Try: "make room, or set cache.dir to another directory", Err: err}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errReadOnly) {
		f.Exit, f.Try = ipc.ExitPermission, "let this user write "+dir+" (in a container: mount a volume or a tmpfs there), or set cache.dir to another directory"
	}
	return f
}
