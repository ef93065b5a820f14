package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"preforkd/internal/ipc"
)

// parseWarmup reads the content of the warmup.json at path: a list of requests.
func parseWarmup(path string, data []byte) ([]ipc.WarmupCase, error) {
	wrong := func(where, what string) error {
		return &ipc.Failure{
			Exit: ipc.ExitConfig, What: path + where + ": " + what,
			Try: `write a list of {"request": {…}, "outputs": {"NAME": [values]}, "tolerance": 1e-4}`,
		}
	}
	var cases []ipc.WarmupCase
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&cases); err != nil {
		return nil, wrong(position(data, offsetOf(err, len(data))), words(err))
	}
	if cases == nil {
		return nil, wrong("", "it is null, not a list")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, wrong(position(data, d.InputOffset()), "something follows the list")
	}
	for i, c := range cases {
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
