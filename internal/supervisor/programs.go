package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
)

// libraryName is the file's name in every distribution of ONNX Runtime 1.x.
const libraryName = "libonnxruntime.so.1"

// programs are the files that the workers of a generation run, held open from the moment
// the generation is made: whatever takes their names meanwhile, a worker that replaces a
// crashed one runs what the others run.
type programs struct {
	path    string   // of the worker's program
	args    []string // the program's name first
	own     bool     // it is preforkd-worker, found by ourselves
	worker  *os.File // nil: a script, which its interpreter opens by name; or not readable
	library string   // path of the engine's library, or a name for the dynamic loader
	engine  *os.File // that library; nil: the dynamic loader or an error message will find it
}

// openPrograms finds and opens what the settings ask for; key is that of the command.
func openPrograms(key string, command []string, library string) (p programs, err error) {
	if p.path, p.args, err = workerCommand(key, command); err != nil {
		return p, err
	}
	p.own = len(command) == 0
	p.worker = openBinary(p.path)
	dirs := []string{filepath.Dir(p.path)}
	if self, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Dir(self))
	}
	p.library = findLibrary(library, dirs...)
	// What cannot be opened the worker cannot open either, and it can say why.
	if filepath.IsAbs(p.library) {
		p.engine, _ = os.Open(p.library)
	}
	return p, nil
}

// withoutEngine lets go of the library, for a program that is not ours.
func (p *programs) withoutEngine() {
	if p.engine != nil {
		p.engine.Close()
	}
	p.library, p.engine = "", nil
}

// close gives the files back. Workers that run have their own hold on them.
func (p *programs) close() {
	for _, f := range []*os.File{p.worker, p.engine} {
		if f != nil {
			f.Close()
		}
	}
	p.worker, p.engine = nil, nil
}

// again returns the same programs, held once more. What is held by name only must still be
// there.
func (p *programs) again() (_ programs, err error) {
	q := *p
	q.worker, q.engine = nil, nil
	var missing []string
	for _, f := range []struct {
		what, path string
		held       *os.File
		into       **os.File
	}{{"worker", p.path, p.worker, &q.worker}, {"engine's library", p.library, p.engine, &q.engine}} {
		switch {
		case f.held != nil:
			if *f.into, err = duplicate(f.held); err != nil {
				q.close()
				return q, err
			}
		case filepath.IsAbs(f.path): // a script; what could not be opened when the generation was made
			if _, err := os.Stat(f.path); err != nil {
				missing = append(missing, fmt.Sprintf("%s: %v", f.what, err))
			}
		}
	}
	if len(missing) > 0 {
		q.close()
		return q, &ipc.Failure{Exit: ipc.ExitUnavailable, What: strings.Join(missing, "\n"), Try: "put it back: a script is held by its name only"}
	}
	return q, nil
}

// duplicate returns another descriptor of f.
func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	controlErr := raw.Control(func(old uintptr) {
		fd, err = activation.Duplicate(int(old))
	})
	if err := errors.Join(controlErr, err); err != nil {
		return nil, fmt.Errorf("hold %s once more: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// differ says which files are others than those of p, though their paths may be the same.
func (p *programs) differ(next *programs) (lines []string) {
	for _, f := range []struct {
		what     string
		old, new *os.File
	}{{"worker", p.worker, next.worker}, {"engine's library", p.engine, next.engine}} {
		if f.old == nil || f.new == nil || f.old.Name() != f.new.Name() { // the settings tell
			continue
		}
		if differentFiles(f.old, f.new) {
			lines = append(lines, fmt.Sprintf("%s: another file at %s", f.what, f.new.Name()))
		}
	}
	return lines
}

// differentFiles tells whether a and b are known not to be one file.
func differentFiles(a, b *os.File) bool {
	x, err := a.Stat()
	y, err2 := b.Stat()
	return err == nil && err2 == nil && !os.SameFile(x, y)
}

// openBinary opens the program at path if the kernel can execute it through a
// descriptor: the interpreter of a script would find that closed (fexecve(3), bugs).
func openBinary(path string) *os.File {
	f, err := os.Open(path)
	if err != nil {
		return nil // executable does not mean readable; the start tells what else is wrong
	}
	magic := make([]byte, 4)
	if _, err := io.ReadFull(f, magic); err != nil || !bytes.Equal(magic, []byte("\x7fELF")) {
		f.Close()
		return nil
	}
	return f
}

// findLibrary returns the path of ONNX Runtime's shared library: setting when it is not
// empty, else the file beside the executables in dirs or where a package installs it, else
// the bare name, which the dynamic loader looks up in its own places (ld.so(8)).
func findLibrary(setting string, dirs ...string) string {
	if setting != "" {
		return setting
	}
	for _, dir := range dirs {
		for _, path := range []string{filepath.Join(dir, libraryName), filepath.Join(dir, "..", "lib", "preforkd", libraryName)} {
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				return path
			}
		}
	}
	return libraryName
}
