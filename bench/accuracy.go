package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"preforkd/bench/proc"
)

// accuracy is how many samples a model reads as what was written.
type accuracy struct {
	Model   string `json:"model"`
	Bytes   int64  `json:"bytes"` // of its file
	Right   int    `json:"right"`
	Samples int    `json:"samples"`
}

func (a *accuracy) String() string {
	return fmt.Sprintf("%d of %d, %.1f %%", a.Right, a.Samples, 100*float64(a.Right)/float64(max(a.Samples, 1)))
}

// accuracies asks preforkd for every sample of the test data.
func (l *lab) accuracies(ctx context.Context, models ...string) (all []*accuracy, err error) {
	port, err := proc.FreePort()
	if err != nil {
		return nil, err
	}
	server, err := proc.Start(preforkd.spec(l, port))
	if err != nil {
		return nil, err
	}
	defer server.Stop(goodbye)
	base := "http://127.0.0.1:" + strconv.Itoa(port)
	starting, cancel := context.WithTimeout(ctx, boot)
	defer cancel()
	if err := preforkd.ready(starting, base, server); err != nil {
		return nil, err
	}
	for _, model := range models {
		file, err := os.Stat(filepath.Join(l.root, "models", model, "1", "model.onnx"))
		if err != nil {
			return nil, err
		}
		a := &accuracy{Model: model, Bytes: file.Size()}
		q := binaryQuestion(model)
		if err := a.count(l.samples, func(d *digit) ([]byte, error) { return q.ask(base, d) }); err != nil {
			return nil, fmt.Errorf("%s: %w", model, err)
		}
		all = append(all, a)
	}
	return all, nil
}

// count asks for each sample and counts the answers that are right.
func (a *accuracy) count(samples []digit, ask func(*digit) ([]byte, error)) error {
	for i := range samples {
		answer, err := ask(&samples[i])
		if err != nil {
			return err
		}
		label, _, err := binaryAnswer(answer)
		if err != nil {
			return err
		}
		a.Samples++
		if label == samples[i].truth {
			a.Right++
		}
	}
	return nil
}
