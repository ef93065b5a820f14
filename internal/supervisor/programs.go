package supervisor

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
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

// openPrograms finds and opens what the settings ask for.
func openPrograms(command []string, library string) (p programs, err error) {
	if p.path, p.args, err = workerCommand(command); err != nil {
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

// close gives the files back. Workers that run have their own hold on them.
func (p *programs) close() {
	for _, f := range []*os.File{p.worker, p.engine} {
		if f != nil {
			f.Close()
		}
	}
	p.worker, p.engine = nil, nil
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
