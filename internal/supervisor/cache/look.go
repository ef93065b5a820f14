package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Look returns what tells apart how the model in each directory below dir is from how it was:
// names, sizes, times and inode numbers of its files. It reads none of them. A directory
// without a version is no model yet.
func Look(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, modelsFailure(dir, err)
	}
	all := make(map[string]string)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if found, err := versions(path); err != nil || len(found) == 0 {
			continue
		}
		sum := sha256.New()
		err := walk(path, func(name string) error {
			st, err := os.Stat(filepath.Join(path, name))
			if err != nil {
				return err
			}
			inode := uint64(0)
			if s, ok := st.Sys().(*syscall.Stat_t); ok {
				inode = s.Ino
			}
			fmt.Fprintf(sum, "%q %d %d %d\n", name, st.Size(), st.ModTime().UnixNano(), inode)
			return nil
		})
		if err == nil { // else it is being written, or removed
			all[e.Name()] = hex.EncodeToString(sum.Sum(nil))
		}
	}
	return all, nil
}
