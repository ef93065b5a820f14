package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"preforkd/internal/ipc"
)

// maxWarmupData is how much all files of a model's warm-up requests hold: the manifest
// carries it.
const maxWarmupData = 1 << 20

// warmup returns the requests of the warmup.json of a version, else of the model, and those
// of its config.pbtxt, whose files lie in the model's directory warmup.
func warmup(dir, version string, s *ipc.ModelSettings) (cases []ipc.WarmupCase, err error) {
	for _, path := range []string{filepath.Join(dir, version, warmupName), filepath.Join(dir, warmupName)} {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, modelsFailure(path, err)
		}
		if cases, err = parseWarmup(path, data); err != nil {
			return nil, err
		}
		break
	}
	room := int64(maxWarmupData)
	for _, c := range s.Warmup {
		c.Inputs = slices.Clone(c.Inputs)
		for i := range c.Inputs {
			if err := load(dir, c.From, &c.Inputs[i], &room); err != nil {
				return nil, err
			}
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// load reads the file of in, if it has one.
func load(dir, from string, in *ipc.WarmupInput, room *int64) error {
	if in.File == "" {
		return nil
	}
	path := filepath.Join(dir, "warmup", in.File)
	f, err := os.Open(path)
	if err == nil {
		defer f.Close()
		in.Data, err = io.ReadAll(io.LimitReader(f, *room+1))
	}
	if err != nil {
		return &ipc.Failure{Exit: ipc.ExitConfig, What: from + ": input_data_file: " + err.Error(), Try: "put the file there, or write zero_data: true", Err: err}
	}
	if *room -= int64(len(in.Data)); *room < 0 {
		return &ipc.Failure{
			Exit: ipc.ExitConfig, What: fmt.Sprintf("%s: input_data_file: with %s the model's files have more than %d bytes", from, path, maxWarmupData),
			Try: "write zero_data: true or random_data: true",
		}
	}
	return nil
}

// parseWarmup reads the content of the warmup.json at path: a list of requests.
func parseWarmup(path string, data []byte) ([]ipc.WarmupCase, error) {
	wrong := func(where, what string) error {
		return &ipc.Failure{
			Exit: ipc.ExitConfig, What: path + where + ": " + what,
			Try: `write a list of {"request": {…}, "outputs": {"NAME": [values]}, "tolerance": 1e-4}`,
		}
	}
	var written []struct {
		Request   json.RawMessage      `json:"request"`
		Outputs   map[string][]float64 `json:"outputs"`
		Tolerance float64              `json:"tolerance"`
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&written); err != nil {
		return nil, wrong(position(data, offsetOf(err, len(data))), words(err))
	}
	if written == nil {
		return nil, wrong("", "it is null, not a list")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, wrong(position(data, d.InputOffset()), "something follows the list")
	}
	cases := make([]ipc.WarmupCase, len(written))
	for i, c := range written {
		cases[i] = ipc.WarmupCase{
			Request: c.Request, Outputs: c.Outputs, Tolerance: c.Tolerance, From: fmt.Sprintf("%s, request %d", path, i),
		}
		switch request := bytes.TrimSpace(c.Request); {
		case len(request) == 0:
			return nil, wrong(fmt.Sprintf(", request %d", i), `it has no "request"`)
		case request[0] != '{':
			return nil, wrong(fmt.Sprintf(", request %d", i), `"request" is no object: it is the body of an inference request`)
		case c.Tolerance < 0:
			return nil, wrong(fmt.Sprintf(", request %d", i), fmt.Sprintf(`"tolerance" is %v, less than 0`, c.Tolerance))
		}
	}
	return cases, nil
}

// offsetOf returns where in a text of so many bytes err lies; -1 where it does not say.
func offsetOf(err error, size int) int64 {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return syntax.Offset - 1 // it counts the byte at fault
	case errors.As(err, &kind):
		return kind.Offset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return int64(size)
	}
	return -1
}

// words is err as an operator reads it.
func words(err error) string {
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF):
		return "it is empty"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends early"
	case errors.As(err, &kind) && kind.Field != "":
		return fmt.Sprintf("%s: %s is out of place here", kind.Field, kind.Value)
	case errors.As(err, &kind):
		return fmt.Sprintf("%s is out of place here", kind.Value)
	}
	return err.Error()
}

// position is offset as line and column, which begin with 1; nothing for -1.
func position(data []byte, offset int64) string {
	if offset < 0 {
		return ""
	}
	before := data[:min(offset, int64(len(data)))]
	line := 1 + bytes.Count(before, []byte("\n"))
	return fmt.Sprintf(":%d:%d", line, len(before)-bytes.LastIndexByte(before, '\n'))
}
