package onnx

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"preforkd/internal/testkit/digits"
)

// checkout is a copy of what scripts/fetch-onnxruntime.sh needs, with an npm that packs
// a small file instead of ONNX Runtime.
type checkout struct {
	root, bin string
	library   string
}

const libraryBytes = "this stands for ONNX Runtime"

// newCheckout pins the digest of pinned.
func newCheckout(t *testing.T, pinned string) checkout {
	t.Helper()
	root := t.TempDir()
	c := checkout{root, filepath.Join(root, "bin"), filepath.Join(root, ".cache", "onnxruntime", "1.24.3", libraryName)}
	script, err := os.ReadFile(filepath.Join(digits.Load(t).Root, "scripts", "fetch-onnxruntime.sh"))
	if err != nil {
		t.Fatal(err)
	}
	var pins string
	archive := &bytes.Buffer{}
	zip := gzip.NewWriter(archive)
	files := tar.NewWriter(zip)
	for _, arch := range []string{"x64", "arm64"} {
		member := "package/bin/napi-v6/linux/" + arch + "/" + libraryName
		pins += fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(pinned)), member)
		if err := files.WriteHeader(&tar.Header{Name: member, Mode: 0o755, Size: int64(len(libraryBytes))}); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write([]byte(libraryBytes)); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	npm := "#!/bin/sh\necho called >>" + root + "/calls\ncp " + root + "/archive onnxruntime-node-1.24.3.tgz\n"
	for path, data := range map[string]string{
		"scripts/fetch-onnxruntime.sh":   string(script),
		"third_party/onnxruntime.sha256": pins,
		"archive":                        archive.String(),
		"bin/npm":                        npm,
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tool := range []string{"bash", "cat", "chmod", "cp", "dirname", "find", "gzip", "mkdir", "mktemp", "mv", "rm", "sh", "sha256sum", "tar", "uname"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(c.bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// fetch runs the script and returns its exit status and what it printed.
func (c checkout) fetch(env ...string) (int, string) {
	cmd := exec.Command(filepath.Join(c.bin, "bash"), filepath.Join(c.root, "scripts", "fetch-onnxruntime.sh"))
	cmd.Env = append([]string{"PATH=" + c.bin}, env...)
	out, _ := cmd.CombinedOutput() // the status says it
	return cmd.ProcessState.ExitCode(), string(out)
}

func (c checkout) calls() int {
	data, _ := os.ReadFile(filepath.Join(c.root, "calls")) // none: never called
	return bytes.Count(data, []byte("\n"))
}

func TestFetchDownloadsOnce(t *testing.T) {
	c := newCheckout(t, libraryBytes)
	for range 2 {
		if status, out := c.fetch(); status != 0 {
			t.Fatalf("%d: %s", status, out)
		}
	}
	if data, err := os.ReadFile(c.library); string(data) != libraryBytes || c.calls() != 1 {
		t.Errorf("%q, %v after %d downloads", data, err, c.calls())
	}
	// A damaged file is replaced, also when two notice at once.
	if err := os.WriteFile(c.library, []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if status, out := c.fetch(); status != 0 {
				t.Errorf("%d: %s", status, out)
			}
		})
	}
	both.Wait()
	if data, err := os.ReadFile(c.library); string(data) != libraryBytes {
		t.Errorf("%q, %v", data, err)
	}
	entries, err := os.ReadDir(filepath.Dir(c.library))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestFetchRefusesAnotherDigest(t *testing.T) {
	c := newCheckout(t, "something else")
	status, out := c.fetch()
	if status != 1 || !strings.Contains(out, "has the wrong digest") ||
		!strings.Contains(out, fmt.Sprintf("%x", sha256.Sum256([]byte(libraryBytes)))) {
		t.Errorf("%d: %s", status, out)
	}
	if entries, err := os.ReadDir(filepath.Dir(c.library)); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestFetchWithoutNpm(t *testing.T) {
	c := newCheckout(t, libraryBytes)
	if err := os.Remove(filepath.Join(c.bin, "npm")); err != nil {
		t.Fatal(err)
	}
	if status, out := c.fetch(); status != 1 || !strings.Contains(out, "apt-get install npm, or set ONNXRUNTIME=") {
		t.Errorf("%d: %s", status, out)
	}
	// Who has a library needs neither npm nor a download.
	if status, out := c.fetch("ONNXRUNTIME=" + filepath.Join(c.root, "archive")); status != 0 || out != "" {
		t.Errorf("%d: %s", status, out)
	}
	if status, out := c.fetch("ONNXRUNTIME=/no/such.so"); status != 1 || !strings.Contains(out, "ONNXRUNTIME=/no/such.so: no such file") {
		t.Errorf("%d: %s", status, out)
	}
}

func TestFetchShowsWhatNpmSays(t *testing.T) {
	c := newCheckout(t, libraryBytes)
	npm := "#!/bin/sh\necho 'npm: no network' >&2\nexit 3\n"
	if err := os.WriteFile(filepath.Join(c.bin, "npm"), []byte(npm), 0o755); err != nil {
		t.Fatal(err)
	}
	if status, out := c.fetch(); status != 1 || !strings.Contains(out, "npm: no network") {
		t.Errorf("%d: %s", status, out)
	}
}
