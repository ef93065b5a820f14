// Engine measures the bare engine call of the benchmarks: a model that takes 64 numbers a
// row runs in a loop on one thread, with nothing around it. It prints one line of JSON.
//
//	engine -library /path/libonnxruntime.so -model models/digits/1/model.onnx -rows 1 -duration 2s
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"preforkd/bench/proc"
	"preforkd/internal/inference"
	"preforkd/internal/inference/onnx"
)

func main() {
	library := flag.String("library", "libonnxruntime.so.1", "ONNX Runtime's shared library")
	path := flag.String("model", "models/digits/1/model.onnx", "the model")
	rows := flag.Int64("rows", 1, "rows of a call")
	duration := flag.Duration("duration", 2*time.Second, "how long to measure")
	flag.Parse()
	if err := run(*library, *path, *rows, *duration); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

func run(library, path string, rows int64, duration time.Duration) error {
	engine, err := onnx.Open(library)
	if err != nil {
		return err
	}
	m, err := engine.Load(path)
	if err != nil {
		return err
	}
	in, out := make([]inference.Tensor, 1), make([]inference.Tensor, len(m.Outputs()))
	if err := in[0].Reset(inference.FP32, []int64{rows, 64}); err != nil {
		return err
	}
	for i := range in[0].Float32s() {
		in[0].Float32s()[i] = float32(i % 17)
	}
	if _, err := call(m, in, out, duration/10, 1); err != nil { // warm
		return err
	}
	once := time.Now()
	if err := m.Run(in, out); err != nil {
		return err
	}
	each := int(min(100, 1+time.Millisecond/max(time.Since(once), 1)))
	cpu, err := proc.SelfCPU()
	if err != nil {
		return err
	}
	start := time.Now()
	n, err := call(m, in, out, duration, each)
	if err != nil {
		return err
	}
	wall := time.Since(start)
	after, err := proc.SelfCPU()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"version": engine.Version(), "calls": n, "cpu_ns": (after - cpu).Nanoseconds(), "wall_ns": wall.Nanoseconds(),
	})
}

// call runs m for d, looks at the clock after so many runs, which is not what is measured,
// and returns how often it has run.
func call(m inference.Model, in, out []inference.Tensor, d time.Duration, each int) (n int, err error) {
	for start := time.Now(); time.Since(start) < d; n += each {
		for range each {
			if err := m.Run(in, out); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}
