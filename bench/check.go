package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// digit is one held-out image with scikit-learn's answer of the model digits.
type digit struct {
	pixels        string // as a JSON array of floating-point numbers, such as 5.0
	label         int
	probabilities []float64
}

// readDigits reads the test data of the model digits.
func readDigits(dir string) ([]digit, error) {
	samples, err := readLines(filepath.Join(dir, "samples.csv"))
	if err != nil {
		return nil, err
	}
	answers, err := readLines(filepath.Join(dir, "digits.csv"))
	if err != nil {
		return nil, err
	}
	var all []digit
	for i, line := range samples {
		pixels, answer := strings.Split(line, ","), strings.Split(answers[min(i, len(answers)-1)], ",")
		if len(pixels) != 65 || len(answer) != 11 || len(answers) != len(samples) {
			return nil, fmt.Errorf("%s: line %d of samples.csv and digits.csv do not belong together", dir, i+1)
		}
		d := digit{pixels: "[" + strings.Join(pixels[:64], ".0,") + ".0]"}
		if d.label, err = strconv.Atoi(answer[0]); err != nil {
			return nil, err
		}
		for _, text := range answer[1:] {
			p, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return nil, err
			}
			d.probabilities = append(d.probabilities, p)
		}
		all = append(all, d)
	}
	return all, nil
}

func readLines(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n"), nil
}

// predictBody and inferBody are the requests for a sample.
func predictBody(d *digit) []byte { return []byte(`{"features":` + d.pixels + `}`) }

func inferBody(d *digit) []byte {
	return []byte(`{"inputs":[{"name":"pixels","shape":[1,64],"datatype":"FP32","data":` + d.pixels + `}]}`)
}

// predictAnswer and inferAnswer read label and probabilities from an answer.
func predictAnswer(body []byte) (label int, probabilities []float64, err error) {
	var a struct {
		Prediction     int
		Probabilities  []float64
		Model, Version string
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return 0, nil, err
	}
	if a.Model != "digits" || a.Version != "1" {
		return 0, nil, fmt.Errorf("model %q, version %q", a.Model, a.Version)
	}
	return a.Prediction, a.Probabilities, nil
}

func inferAnswer(body []byte) (label int, probabilities []float64, err error) {
	var a struct {
		Outputs []struct {
			Name string
			Data []float64
		}
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return 0, nil, err
	}
	label = -1
	for _, o := range a.Outputs {
		switch {
		case o.Name == "label" && len(o.Data) == 1:
			label = int(o.Data[0])
		case o.Name == "probabilities":
			probabilities = o.Data
		}
	}
	return label, probabilities, nil
}

// right returns an error unless answer is scikit-learn's answer to d.
func (d *digit) right(answer []byte, read func([]byte) (int, []float64, error)) error {
	label, probabilities, err := read(answer)
	if err != nil {
		return fmt.Errorf("%w in %.300s", err, answer)
	}
	if label != d.label || len(probabilities) != len(d.probabilities) {
		return fmt.Errorf("not the digit %d: %.300s", d.label, answer)
	}
	for i, p := range probabilities {
		if math.Abs(p-d.probabilities[i]) > 1e-4 { // float32, in another order of additions
			return fmt.Errorf("class %d has the probability %v, scikit-learn's is %v", i, p, d.probabilities[i])
		}
	}
	return nil
}

// client makes a new connection for each request, so that every worker gets some.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}

// fetch sends a request and returns the body of an answer with status 200.
func fetch(method, url string, body []byte) ([]byte, error) {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s: %.300s", method, url, resp.Status, answer)
	}
	return answer, nil
}
