package worker

import (
	"os"
	"path/filepath"
)

// program is this process's name for ps(1) and top(1): the kernel keeps 15 bytes of it.
const program = "preforkd-worker"

// nameThreads gives all threads of this process the name: started through a descriptor,
// the kernel has called them by its number (PR_SET_NAME(2const)). New threads inherit it.
// Where that cannot be, as with /proc read-only, it costs only the name.
func nameThreads(name string) {
	files, err := filepath.Glob("/proc/self/task/*/comm")
	if err != nil {
		return
	}
	for _, file := range files {
		_ = os.WriteFile(file, []byte(name), 0)
	}
}
