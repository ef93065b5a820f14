package worker

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"preforkd/internal/inference"
	"preforkd/internal/inference/onnx"
	"preforkd/internal/ipc"
)

// The supervisor, which knows no engine, knows the file by another name: it does not compile if
// that is not the same.
var _ = map[bool]struct{}{false: {}, inference.PreparedFile == ipc.PreparedGraph: {}}

// Prepare is the command prepare: it writes into an empty directory what workers load in place
// of a model. It serves nothing and needs no supervisor, so that a model which ends a process,
// or for which there is no memory, ends this one alone.
func Prepare(args []string) error {
	flags := flag.NewFlagSet(ipc.PrepareCommand, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	library := flags.String("library", "", "the engine's library: a path, or a name for the dynamic loader")
	name := flags.String("library-name", "", "what that is called in messages")
	var custom []string
	flags.Func("custom-ops", "a library of operators; may be repeated", func(path string) error {
		custom = append(custom, path)
		return nil
	})
	err := flags.Parse(args)
	if err == nil && (flags.NArg() != 2 || *library == "") {
		err = errors.New("it needs a library, a model and an empty directory")
	}
	if err != nil {
		return &ipc.Failure{
			Exit: ipc.ExitUsage, What: ipc.PrepareCommand + ": " + err.Error(), Err: err,
			Try: "preforkd-worker " + ipc.PrepareCommand + " -library libonnxruntime.so.1 [-custom-ops FILE] MODEL.onnx DIRECTORY",
		}
	}
	if *name == "" {
		*name = *library
	}
	source, dir := flags.Arg(0), flags.Arg(1)
	if found, err := os.ReadDir(dir); err != nil || len(found) > 0 {
		if err == nil {
			err = fmt.Errorf("%s is not empty", dir)
		}
		return &ipc.Failure{Exit: ipc.ExitUsage, What: ipc.PrepareCommand + ": " + err.Error(), Err: err, Try: "make an empty directory for what is prepared"}
	}
	engine, err := onnx.OpenAs(*library, *name, custom)
	if err != nil {
		return err
	}
	defer engine.Close() // no model is open, and the process ends
	if err := engine.Prepare(source, dir); err != nil {
		return &ipc.Failure{Exit: ipc.ExitBoot, What: fmt.Sprintf("prepare %s: %s", source, strings.TrimSpace(err.Error())), Err: err}
	}
	return nil
}
