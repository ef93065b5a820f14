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

// source is where in its own source ONNX Runtime raised an error: a file and line, then
// a function, as a name or with its whole signature. It says nothing to whoever sent
// the values or made the model.
var source = regexp.MustCompile(
	`[\w./]+\.(?:cc|h|cpp|hpp):\d+ ` +
		`(?:[^()]*onnxruntime::[^()]*\((?:[^()]|\([^()]*\))*\)(?: const)?(?:::<lambda\([^()]*\)>)?(?: \[with [^\]]*\])? |\w+ )`)

var (
	prefixes = regexp.MustCompile(`^(?:Error running network: |Error loading temporary session: |Error creating C session from file: )+`)
	inNode   = regexp.MustCompile(`Non-zero status code returned while running (\w+) node\. Name:'([^']*)' Status Message: `)
	advice   = strings.NewReplacer("Please fix either the inputs/outputs or the model.", "", " '':", ":")
)

// tidy returns ONNX Runtime's message as one line, without the binding's prefixes and
// what only its developers can use.
func tidy(err error) string {
	text := prefixes.ReplaceAllString(err.Error(), "")
	text = source.ReplaceAllString(text, "")
	text = inNode.ReplaceAllString(text, "operator $1 '$2': ")
	return strings.Join(strings.Fields(advice.Replace(text)), " ")
}

// loadError is what is wrong with the file at path, without naming it.
func loadError(path string, err error) error {
	text := tidy(err)
	text = strings.TrimPrefix(text, "Load model from "+path+" failed:")
	if strings.HasPrefix(text, "Protobuf parsing failed") {
		return errors.New("it is no ONNX model, or a part of one: Protobuf parsing failed")
	}
	return errors.New(strings.TrimSpace(strings.ReplaceAll(text, path, "the file")))
}

// runError is an error of a run. The binding drops ONNX Runtime's status codes, so the
// text decides. A loaded graph that refuses to run does so because of the values or
// their shape: an index out of bounds, sizes that do not fit together. The exceptions
// are memory, which another request may find again, and a locale that is not installed.
func runError(err error) error {
	text := tidy(err)
	for _, ours := range []string{
		"bad_alloc", "Failed to allocate memory", "out of memory", "Failed to construct locale",
	} {
		if strings.Contains(text, ours) {
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
