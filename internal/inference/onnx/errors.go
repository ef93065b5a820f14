package onnx

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"preforkd/internal/inference"
)

// What the binding says when OrtApiBase.GetApi knows no API of the version it was
// built for. It gives the error no other mark, and no version: the library is closed
// again by then.
const tooOld = "Error setting ORT API base: 2"

// loaderError turns the binding's error about a shared library into one line about the
// library, without its path, which the caller names.
func loaderError(err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, tooOld):
		return errors.New("it is older than version 1.24")
	case strings.Contains(text, "Error looking up OrtGetApiBase"):
		return errors.New("it is another library: it has no OrtGetApiBase")
	}
	// dlopen(3) says "PATH: what is wrong"; the binding puts its own words before that.
	if _, after, ok := strings.Cut(text, `": `); ok {
		if _, what, ok := strings.Cut(after, ": "); ok {
			return errors.New(what)
		}
	}
	return err
}

// noise is what ONNX Runtime's messages contain that says nothing to whoever sent the
// values or made the model: its source files with the function's signature, and advice
// to change the model or its own source.
var noise = regexp.MustCompile(
	`(?:/\S+/)?[\w./]+\.(?:cc|h|cpp|hpp):\d+ (?:onnxruntime::|static |virtual |void |\w+::)[^()]*\([^()]*(?:\([^()]*\)[^()]*)*\)(?: const)?(?: \[with [^\]]*\])? ?` +
		`|Non-zero status code returned while ` +
		`|Please fix either the inputs/outputs or the model\.`)

// tidy returns ONNX Runtime's message as one line without the noise.
func tidy(err error) string {
	text := noise.ReplaceAllString(err.Error(), "")
	for _, prefix := range []string{
		"Error running network: ",
		"Error loading temporary session: ",
		"Error creating C session from file: ",
	} {
		text = strings.TrimPrefix(text, prefix)
	}
	return strings.Join(strings.Fields(text), " ")
}

// loadError is what is wrong with the file at path, without naming it.
func loadError(path string, err error) error {
	text := tidy(err)
	text = strings.TrimPrefix(text, "Load model from "+path+" failed:")
	return errors.New(strings.TrimSpace(strings.ReplaceAll(text, path, "the file")))
}

// runError is an error of a run. The binding drops ONNX Runtime's status codes, so the
// text decides. A loaded graph that refuses to run does so because of the values or
// their shape: an index out of bounds, sizes that do not fit together. The exception is
// memory, which another request may find again.
func runError(err error) error {
	text := tidy(err)
	for _, engine := range []string{"bad_alloc", "Failed to allocate memory", "out of memory"} {
		if strings.Contains(text, engine) {
			return fmt.Errorf("run the model: %s", text)
		}
	}
	return fmt.Errorf("%w: %s", inference.ErrInput, text)
}

// aboutInput tells that ONNX Runtime refused an input before it ran anything.
func aboutInput(err error) bool {
	text := err.Error()
	return strings.Contains(text, "Got invalid dimensions for input") ||
		strings.Contains(text, "Invalid rank for input")
}
