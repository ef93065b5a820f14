package onnx

import (
	"os"
	"path/filepath"
)

// libraryName is the file's name in every distribution of ONNX Runtime 1.x.
const libraryName = "libonnxruntime.so.1"

// FindLibrary returns the path of ONNX Runtime's shared library: setting when it is
// not empty, else the file beside the executables or where a package installs it,
// else the bare name, which the dynamic loader looks up in its own places (ld.so(8)).
// Open tells whether it can be used.
func FindLibrary(setting, executableDir string) string {
	if setting != "" {
		return setting
	}
	for _, path := range []string{
		filepath.Join(executableDir, libraryName),
		filepath.Join(executableDir, "..", "lib", "preforkd", libraryName),
	} {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return libraryName
}
