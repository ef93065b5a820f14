package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"preforkd/internal/ipc"
)

// recipeVersion changes with what the engine is asked for when it prepares, and with the layout
// of an entry.
const recipeVersion = "preforkd prepared 1"

// Recipe is all that a prepared model depends on beside the model.
type Recipe struct {
	library, cpu string
	custom       []string
}

// NewRecipe reads the engine's library, the libraries of operators and what the CPU can do.
func NewRecipe(library *os.File, custom []string) (r Recipe, err error) {
	info, err := library.Stat()
	if err != nil {
		return r, err
	}
	if r.library, err = digestOf(io.NewSectionReader(library, 0, info.Size())); err != nil {
		return r, err
	}
	for _, path := range custom {
		f, err := os.Open(path)
		if err != nil {
			return r, err
		}
		one, err := digestOf(f)
		f.Close()
		if err != nil {
			return r, err
		}
		r.custom = append(r.custom, one)
	}
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return r, err
	}
	r.cpu, err = cpuFeatures(text)
	return r, err
}

// key is the name of the entry of m.
func (r *Recipe) key(m *ipc.ModelFile) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\nmodel %s %q\nlibrary %s\ncpu %q\n", recipeVersion, m.Digest, filepath.Base(m.Path), r.library, r.cpu)
	for _, one := range r.custom { // their order may matter to the engine
		fmt.Fprintf(sum, "operators %s\n", one)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// cpuLines are those of /proc/cpuinfo by which an engine chooses how weights are packed: of x86
// and of ARM.
var cpuLines = []string{
	"vendor_id", "cpu family", "model", "flags",
	"CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features",
}

// cpuFeatures returns what text, that of /proc/cpuinfo, says of all processors: each line once.
func cpuFeatures(text []byte) (string, error) {
	var found []string
	for line := range bytes.Lines(text) {
		key, value, ok := strings.Cut(string(line), ":")
		key = strings.TrimSpace(key)
		if !ok || !slices.Contains(cpuLines, key) {
			continue
		}
		words := strings.Fields(value)
		slices.Sort(words)
		found = append(found, key+": "+strings.Join(words, " "))
	}
	if len(found) == 0 {
		return "", errors.New("/proc/cpuinfo does not say what the CPU can do")
	}
	slices.Sort(found)
	return strings.Join(slices.Compact(found), "\n"), nil
}

func digestOf(r io.Reader) (string, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
