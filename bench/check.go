package main

import (
	"bytes"
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
	truth         int    // what was written
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
		if d.truth, err = strconv.Atoi(pixels[64]); err != nil {
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

// fetch sends a request with headers, which are whole lines, and returns the body of an
// answer with status 200.
func fetch(method, url string, body []byte, headers ...string) ([]byte, error) {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", textType)
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
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
