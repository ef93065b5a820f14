package worker

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"preforkd/internal/inference/onnx"
	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc"
)

// Whether a prepared model is shared in fact shows in what loading it takes: the engine maps the
// file of weights, and finds there what it would otherwise pack into memory of its own. Where it
// does not find it, because its keys are others or the file is, everything works, and each
// worker has a copy. So what a load has taken is compared with what it may take.

// loaded is what is known of one model's memory.
type loaded struct {
	own    int64    // what loading it has taken of this process's own; -1: unknown
	beside bool     // requests ran meanwhile, whose memory is in own as well
	files  []string // of those that are mapped of what is prepared, as maps names them
}

// trimFrom is the size of a model's files from which on what its loading has freed is given
// back before it is measured.
const trimFrom = 1 << 20

// measured has load called, and returns what that has taken for f, which may be nil.
func (w *worker) measured(f *ipc.ModelFile, beside bool, load func() error) (l loaded, err error) {
	before, errBefore := readUsage()
	if err := load(); err != nil {
		return l, err
	}
	if f != nil && f.Bytes >= trimFrom {
		trim()
	}
	after, errAfter := readUsage()
	l = loaded{own: max(after.own()-before.own(), 0), beside: beside}
	if errBefore != nil || errAfter != nil {
		l.own = -1
	}
	if f != nil && f.Prepared != "" {
		l.files = mappedBelow(f.Prepared)
	}
	return l, nil
}

// trim gives back what loading has freed, on a thread that is not slow, as that of a load beside
// what serves is: it holds locks which requests want.
func trim() {
	done := make(chan struct{})
	go func() { // ends at once
		defer close(done)
		onnx.Trim()
	}()
	<-done
}

// mapping is one line of /proc/PID/maps, or the first of several of smaps (proc_pid_maps(5)).
type mapping struct {
	file string // device and inode, which renaming leaves as they are
	path string
}

// parseMapping returns the mapping of a file that line is about; false: it is about another, or
// is none.
func parseMapping(line []byte) (m mapping, ok bool) {
	var fields [5][]byte
	rest := line
	for i := range fields {
		rest = bytes.TrimLeft(rest, " ")
		at := bytes.IndexByte(rest, ' ')
		if at < 0 {
			return m, false
		}
		fields[i], rest = rest[:at], rest[at:]
	}
	path := bytes.TrimSpace(rest)
	if len(path) == 0 || path[0] != '/' || !bytes.Contains(fields[0], []byte("-")) || bytes.HasSuffix(fields[0], []byte(":")) || string(fields[4]) == "0" {
		return m, false
	}
	return mapping{string(fields[3]) + " " + string(fields[4]), string(path)}, true
}

// mappedBelow returns the files of dir that this process has mapped.
func mappedBelow(dir string) (files []string) {
	data, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil
	}
	seen := map[string]bool{}
	prefix := strings.TrimSuffix(dir, "/") + "/"
	for line := range bytes.Lines(data) {
		if m, ok := parseMapping(line); ok && strings.HasPrefix(m.path, prefix) && !seen[m.file] {
			seen[m.file] = true
			files = append(files, m.file)
		}
	}
	return files
}

// resident returns how much of each file is present in the mappings that smaps lists, in bytes.
func resident(smaps io.Reader) (map[string]int64, error) {
	all := map[string]int64{}
	file := ""
	lines := bufio.NewScanner(smaps)
	lines.Buffer(make([]byte, 0, 8<<10), 64<<10) // a path has 4096 bytes at most, some of them escaped
	for lines.Scan() {
		line := lines.Bytes()
		rest, ok := bytes.CutPrefix(line, []byte("Rss:"))
		switch {
		case ok && file != "":
			fields := bytes.Fields(rest)
			if len(fields) == 0 {
				continue
			}
			if n, err := strconv.ParseInt(string(fields[0]), 10, 52); err == nil && n >= 0 {
				all[file] += n << 10
			}
		case len(line) > 0 && (line[0] >= '0' && line[0] <= '9' || line[0] >= 'a' && line[0] <= 'f'): // the names of fields begin with capitals
			m, _ := parseMapping(line)
			file = m.file
		}
	}
	return all, lines.Err()
}

// lostFrom is how much a worker may have of its own beyond what is expected.
const lostFrom = 4 << 20

// lost says why the weights of f, which was loaded as prepared, are not shared as they should be;
// empty: they are, or there is nothing to share. Graph is the size of the prepared graph: what
// lies in there, as trees in the attributes of their nodes, is each worker's own, and takes some
// times as much as in the file.
//
// Of the file of weights, what is more than the model has is packed. That, or at least half
// of it where one model has some weights that are packed alone, is what the engine makes
// again if it does not find it.
func lost(f *ipc.ModelFile, l loaded, graph int64) string {
	packed := f.Shared - f.Bytes
	allowed := lostFrom + 4*graph + packed/2
	switch {
	case f.Shared == 0:
	case len(l.files) == 0:
		return fmt.Sprintf("the engine has not mapped the prepared weights (%s)", mebibytes(f.Shared))
	case packed < lostFrom || l.own < 0 || l.beside || l.own <= allowed:
	default:
		return fmt.Sprintf("the engine has packed the weights anew: loading took %s of this worker's own, and at most %s were to be expected; "+
			"the prepared file's keys are not those of this engine", mebibytes(l.own), mebibytes(allowed))
	}
	return ""
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// weigh returns what this worker has of the models of set. With maps it says how much of the
// prepared weights is present, too.
func (w *worker) weigh(set *ipc.ModelSet) (all []ipc.ModelMemory) {
	present := map[string]int64{}
	if smaps, err := os.Open("/proc/self/smaps"); err == nil {
		present, _ = resident(smaps) // what was read counts
		smaps.Close()
	}
	models := w.models.Every()
	for i := range set.Models {
		f := &set.Models[i]
		for _, m := range models {
			if m.Name == f.Name && m.Version == f.Version {
				all = append(all, weightsOf(f, m, present))
			}
		}
	}
	return all
}

// weightsOf returns what this worker has of one model.
func weightsOf(f *ipc.ModelFile, m *repository.Model, present map[string]int64) ipc.ModelMemory {
	mm := ipc.ModelMemory{Name: f.Name, Version: f.Version, Private: -1}
	if m.Plain != nil {
		mm.Plain = m.Plain.Error()
	}
	wm, ok := m.Loaded().(*watchedModel)
	if !ok {
		return mm
	}
	mm.Private, mm.Beside = wm.memory.own, wm.memory.beside
	for _, file := range wm.memory.files {
		mm.Shared += present[file]
	}
	mm.Shared = min(mm.Shared, f.Shared) // pages at the edges of two mappings are in both
	if m.Plain == nil && f.Prepared != "" {
		mm.Lost = lost(f, wm.memory, sizeOf(filepath.Join(f.Prepared, ipc.PreparedGraph)))
	}
	return mm
}

func sizeOf(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}

// reportWait is how long the supervisor may take to hear of the models' memory.
const reportWait = 5 * time.Second

// reportModels tells the supervisor what this worker has of its models. Nobody is told where the
// supervisor has died: the next one starts workers of its own.
func (w *worker) reportModels() {
	all := w.weigh(w.set.Load())
	for first := true; first || len(all) > 0; first = false {
		part := all[:min(len(all), ipc.MemoryReportModels)]
		all = all[len(part):]
		ctx, cancel := context.WithTimeout(context.Background(), reportWait)
		err := w.control.Call(ctx, ipc.ControlMemory, ipc.MemoryReport{First: first, Models: part}, nil)
		cancel()
		if err != nil {
			w.log.Debug("memory of models not reported", "err", err)
			return
		}
	}
}

// warnLost says of which models this worker has packed weights of its own though the entry has
// them.
func (w *worker) warnLost(models []*repository.Model, files []ipc.ModelFile) {
	for _, m := range models {
		for i := range files {
			f := &files[i]
			if f.Name != m.Name || f.Version != m.Version || m.Plain != nil {
				continue
			}
			if mm := weightsOf(f, m, nil); mm.Lost != "" {
				w.log.Warn("prepared weights not shared: this worker has a copy of its own", "model", m.Name, "version", m.Version,
					"private", mm.Private, "prepared", f.Shared, "err", mm.Lost)
			}
		}
	}
}
