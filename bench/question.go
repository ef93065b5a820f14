package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"preforkd/internal/load"
)

// question is what is asked for a sample, and how the answer is read.
type question struct {
	model   string
	path    string
	kind    string   // the content's type
	headers []string // more of them, as whole lines
	body    func(*digit) []byte
	read    func([]byte) (int, []float64, error)
}

// The types of content.
const (
	textType   = "application/json"
	binaryType = "application/octet-stream"
)

// The questions to the model digits.
var (
	predictJSON = question{"digits", "/predict", textType, nil, predictBody, predictAnswer}
	inferJSON   = question{"digits", inferPath("digits"), textType, nil, inferBody, inferAnswer}
	inferBinary = binaryQuestion("digits")
)

// binaryQuestion asks a model that takes what digits takes, in binary form both ways.
func binaryQuestion(model string) question {
	lines := []string{"Inference-Header-Content-Length: " + strconv.Itoa(len(binaryHead))}
	return question{model, inferPath(model), binaryType, lines, binaryBody, binaryAnswer}
}

func inferPath(model string) string { return "/v2/models/" + model + "/infer" }

// request is the question for d as the load sends it.
func (q *question) request(d *digit) []byte {
	return load.Post(q.path, q.kind, q.body(d), q.headers...)
}

// ask asks for d once and returns the body of the answer.
func (q *question) ask(base string, d *digit) ([]byte, error) {
	return fetch("POST", base+q.path, q.body(d), append([]string{"Content-Type: " + q.kind}, q.headers...)...)
}

// predictBody, inferBody and binaryBody are the requests for a sample.
func predictBody(d *digit) []byte { return []byte(`{"features":` + d.pixels + `}`) }

func inferBody(d *digit) []byte {
	return []byte(`{"inputs":[{"name":"pixels","shape":[1,64],"datatype":"FP32","data":` + d.pixels + `}]}`)
}

// binaryHead is the JSON of a request whose tensors are binary both ways (docs/http.md).
const binaryHead = `{"inputs":[{"name":"pixels","shape":[1,64],"datatype":"FP32","parameters":{"binary_data_size":256}}],` +
	`"parameters":{"binary_data_output":true}}`

func binaryBody(d *digit) []byte {
	body := []byte(binaryHead)
	var pixels []float32
	if err := json.Unmarshal([]byte(d.pixels), &pixels); err != nil {
		panic(err) // the text is ours
	}
	for _, v := range pixels {
		body = binary.LittleEndian.AppendUint32(body, math.Float32bits(v))
	}
	return body
}

// predictAnswer, inferAnswer and binaryAnswer read label and probabilities from an answer.
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

func binaryAnswer(body []byte) (label int, probabilities []float64, err error) {
	var a struct {
		Outputs []struct {
			Name, Datatype string
			Parameters     struct {
				Size int `json:"binary_data_size"`
			}
		}
	}
	head := json.NewDecoder(bytes.NewReader(body))
	if err := head.Decode(&a); err != nil {
		return 0, nil, err
	}
	rest := body[head.InputOffset():]
	label = -1
	for _, o := range a.Outputs {
		if o.Parameters.Size > len(rest) {
			return 0, nil, fmt.Errorf("output %s has %d bytes, %d are left", o.Name, o.Parameters.Size, len(rest))
		}
		data := rest[:o.Parameters.Size]
		rest = rest[len(data):]
		switch {
		case o.Name == "label" && o.Datatype == "INT64" && len(data) == 8:
			label = int(binary.LittleEndian.Uint64(data))
		case o.Name == "probabilities" && o.Datatype == "FP32":
			for ; len(data) >= 4; data = data[4:] {
				probabilities = append(probabilities, float64(math.Float32frombits(binary.LittleEndian.Uint32(data))))
			}
		}
	}
	if len(rest) > 0 {
		return 0, nil, fmt.Errorf("%d bytes follow the last output", len(rest))
	}
	return label, probabilities, nil
}
