package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"preforkd/internal/ipc"
	"preforkd/internal/testkit"
)

// refuses runs a service that cannot start and checks status and words.
func refuses(t *testing.T, o testkit.Options, exit int, words ...string) {
	t.Helper()
	s := testkit.Launch(t, o)
	if got := s.Wait(); got != exit {
		t.Errorf("exit status %d, want %d", got, exit)
	}
	text := s.LogText()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in\n%s", w, text)
		}
	}
}

func TestCorruptModelsAreAllNamed(t *testing.T) {
	models := copyModels(t)
	data, err := os.ReadFile(filepath.Join(models, "digits/1/model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{
		"digits/1/model.onnx":     data[:len(data)/2],
		"digits-cnn/1/model.onnx": []byte("this is no model"),
		"empty/1/model.onnx":      nil,
	} {
		full := filepath.Join(models, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	refuses(t, testkit.Options{Models: models}, ipc.ExitBoot,
		"digits/1/model.onnx", "digits-cnn/1/model.onnx", "empty/1/model.onnx", "try:")
}

func TestWorkerEndsAtOnce(t *testing.T) {
	command := program(t, "#!/bin/sh\necho first; echo the reason >&2; exit 7\n")
	refuses(t, testkit.Options{Set: []string{"worker.command=" + command}}, ipc.ExitBoot, "exit status 7", "the reason")
}

func TestWorkerNeverReady(t *testing.T) {
	command := program(t, "#!/bin/sh\ntrap '' TERM\necho waiting\nwhile :; do sleep 1000 & wait; done\n")
	refuses(t, testkit.Options{Set: []string{"worker.command=" + command, "timeouts.boot=300ms"}}, ipc.ExitBoot,
		"timeouts.boot", "300ms", "waiting", "worker killed")
}

func TestEngineLibrary(t *testing.T) {
	dir := t.TempDir()
	refuses(t, testkit.Options{Set: []string{"inference.library=" + filepath.Join(dir, "none.so")}}, ipc.ExitUnavailable, "none.so", "inference.library")
	wrong := filepath.Join(dir, "wrong.so")
	if err := os.WriteFile(wrong, []byte("no library"), 0o755); err != nil {
		t.Fatal(err)
	}
	refuses(t, testkit.Options{Set: []string{"inference.custom_ops=" + filepath.Join(dir, "ops.so")}}, ipc.ExitUnavailable,
		"load custom operators from "+filepath.Join(dir, "ops.so")+": no such file or directory", "inference.custom_ops")
	refuses(t, testkit.Options{Env: []string{"ONNXRUNTIME=" + wrong}}, ipc.ExitUnavailable, "wrong.so", "ONNXRUNTIME")
}

func TestAddressesThatCannotBe(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	address := ln.Addr().String()
	refuses(t, testkit.Options{Listen: []string{"127.0.0.1:0", address}}, ipc.ExitUnavailable, address, "ss -ltnp")
	refuses(t, testkit.Options{Listen: []string{"unix:" + filepath.Join(t.TempDir(), "none", "s")}}, ipc.ExitUnavailable, "none/s")
	refuses(t, testkit.Options{Listen: []string{"fd:web"}}, ipc.ExitUnavailable, "fd:web", "FileDescriptorName=web")
}

func TestDirectoriesThatCannotBe(t *testing.T) {
	refuses(t, testkit.Options{Models: filepath.Join(t.TempDir(), "none")}, ipc.ExitConfig, "none", "set models to")
	refuses(t, testkit.Options{Set: []string{"log.file=" + filepath.Join(t.TempDir(), "none", "log")}}, ipc.ExitUnavailable, "log.file", "none/log")
	refuses(t, testkit.Options{Set: []string{"predict.model=digtis"}}, ipc.ExitConfig, "predict.model", "digtis", "digits-gbdt")

	if os.Getuid() != 0 {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		refuses(t, testkit.Options{Cache: filepath.Join(dir, "cache")}, ipc.ExitPermission, dir)
		return
	}
	o := testkit.Options{Cache: "/sys/preforkd-cache"} // nobody, not even root, makes a directory there
	refuses(t, o, ipc.ExitPermission, "/sys/preforkd-cache", "cache.dir")
}

func TestWorkerByItselfSaysWhatToDo(t *testing.T) {
	out, status := run(t, filepath.Join(testkit.Programs(t), "preforkd-worker"))
	if status != ipc.ExitUsage || !strings.Contains(out, "preforkd serve") {
		t.Errorf("%d: %s", status, out)
	}
}
