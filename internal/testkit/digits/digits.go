package digits

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The sizes of the data.
const (
	Samples  = 360
	Features = 64
	Classes  = 10
)

// Names are the models that have answers, as their directories in models/ are called.
var Names = []string{"digits", "digits-cnn", "digits-forest", "digits-gbdt"}

// Set is the test data. Element i of every slice is about sample i.
type Set struct {
	Root    string              // of the repository; the models are in Root/models
	Pixels  [][Features]float32 // raw values, whole numbers from 0 to 16
	Truth   []int64             // the digit that was written
	Answers map[string]Answers  // by name of model
}

// Answers is what scikit-learn says; a model is not always right.
type Answers struct {
	Labels        []int64
	Probabilities [][Classes]float32
}

// Load reads the test data and ends the test when it is not there.
func Load(t testing.TB) Set {
	t.Helper()
	set := Set{Root: root(t), Answers: make(map[string]Answers, len(Names))}
	dir := filepath.Join(set.Root, "testdata", "digits")
	for _, row := range read(t, filepath.Join(dir, "samples.csv"), Features+1) {
		set.Pixels = append(set.Pixels, [Features]float32(row))
		set.Truth = append(set.Truth, int64(row[Features]))
	}
	for _, name := range Names {
		var a Answers
		for _, row := range read(t, filepath.Join(dir, name+".csv"), 1+Classes) {
			a.Labels = append(a.Labels, int64(row[0]))
			a.Probabilities = append(a.Probabilities, [Classes]float32(row[1:]))
		}
		set.Answers[name] = a
	}
	return set
}

// root is the directory of go.mod, at or above the test's working directory.
func root(t testing.TB) string {
	t.Helper()
	start, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatalf("no go.mod at or above %s", start)
		}
	}
}

// read returns the rows of a file of comma-separated numbers.
func read(t testing.TB, path string, columns int) [][]float32 {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if len(lines) != Samples {
		t.Fatalf("%s: %d lines, want %d", path, len(lines), Samples)
	}
	rows := make([][]float32, len(lines))
	for i, line := range lines {
		fields := strings.Split(line, ",")
		if len(fields) != columns {
			t.Fatalf("%s:%d: %d columns, want %d", path, i+1, len(fields), columns)
		}
		for _, field := range fields {
			v, err := strconv.ParseFloat(field, 32)
			if err != nil {
				t.Fatalf("%s:%d: %v", path, i+1, err)
			}
			rows[i] = append(rows[i], float32(v))
		}
	}
	return rows
}
