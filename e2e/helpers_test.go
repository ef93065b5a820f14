package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"preforkd/internal/testkit"
)

// soak tells whether the long counts were asked for.
var soak = os.Getenv("PREFORKD_SOAK") != ""

// times returns n for CI, and full for a soak.
func times(n, full int) int {
	if soak {
		return full
	}
	return n
}

// post sends a request on a connection of its own and returns status and body.
func post(t testing.TB, url, body string) (int, string) {
	t.Helper()
	resp, err := fresh.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return answered(t, resp)
}

func get(t testing.TB, url string) (int, string) {
	t.Helper()
	return fetched(t, fresh, url)
}

// answered reads an answer to its end.
func answered(t testing.TB, resp *http.Response) (status int, body string) {
	t.Helper()
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// fetched is get by a client of the test's own.
func fetched(t testing.TB, client *http.Client, url string) (int, string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return answered(t, resp)
}

// fresh opens a connection for each request, so that each may meet another worker.
var fresh = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// slowBody is an inference that takes a worker some tenths of a second: n rows.
func slowBody(t testing.TB, n int) []byte {
	t.Helper()
	row := make([]int, 64)
	for i := range row {
		row[i] = i % 17
	}
	one, err := json.Marshal(row)
	if err != nil {
		t.Fatal(err)
	}
	rows := bytes.Repeat(append(bytes.Trim(one, "[]"), ','), n)
	return fmt.Appendf(nil, `{"inputs":[{"name":"pixels","datatype":"FP32","shape":[%d,64],"data":[%s]}]}`, n, rows[:len(rows)-1])
}

// copyModels copies the repository's models to a directory of the test's own.
func copyModels(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "models")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(testkit.Root(t), "models"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// program writes an executable text.
func program(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func kill(t testing.TB, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Error(err)
	}
}

// run runs a command to its end and returns what it printed, and its exit status.
func run(t testing.TB, name string, args ...string) (out string, status int) {
	t.Helper()
	cmd := exec.Command(name, args...)
	data, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(data), cmd.ProcessState.ExitCode()
}

// exitStatus returns the status with which a command ended, in digits.
func exitStatus(err error) string {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return strconv.Itoa(exit.ExitCode())
	}
	return err.Error()
}
