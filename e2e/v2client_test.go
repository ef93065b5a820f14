package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
)

// caseTensor is a tensor as scripts/onnx-node-cases.py writes it.
type caseTensor struct {
	Name     string
	Datatype string
	Shape    []int64
	Data     caseData
	Kind     string // what it is instead of a tensor
}

// caseData is the elements of a tensor in binary form.
type caseData []byte

// UnmarshalJSON implements json.Unmarshaler: the elements as one text in base64, or a list of
// such texts, which are strings.
func (d *caseData) UnmarshalJSON(text []byte) error {
	*d = caseData{}
	if len(text) > 0 && text[0] == '"' {
		return json.Unmarshal(text, (*[]byte)(d))
	}
	var list []string
	if err := json.Unmarshal(text, &list); err != nil {
		return err
	}
	for _, one := range list {
		b, err := base64.StdEncoding.DecodeString(one)
		if err != nil {
			return err
		}
		*d = binary.LittleEndian.AppendUint32(*d, uint32(len(b)))
		*d = append(*d, b...)
	}
	return nil
}

// v2Client infers with tensors in binary form, on a connection that it keeps.
type v2Client struct {
	url  string
	http *http.Client
}

func newV2Client(url string) *v2Client {
	return &v2Client{url, &http.Client{Transport: &http.Transport{}}}
}

// wireTensor is a tensor in the JSON text of a request or an answer.
type wireTensor struct {
	Name       string  `json:"name"`
	Datatype   string  `json:"datatype"`
	Shape      []int64 `json:"shape"`
	Parameters struct {
		Size *int `json:"binary_data_size"`
	} `json:"parameters"`
}

// infer returns the outputs of model for inputs.
func (c *v2Client) infer(model string, inputs []caseTensor) ([]caseTensor, error) {
	body, head, err := binaryRequest(inputs)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodPost, c.url+"/v2/models/"+model+"/infer", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Inference-Header-Content-Length", strconv.Itoa(head))
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d: %s", resp.StatusCode, answer)
	}
	return readBinary(resp.Header, answer)
}

// binaryRequest is a body with inputs in binary form that asks for all outputs in it; head is how
// long its JSON text is.
func binaryRequest(inputs []caseTensor) (body []byte, head int, err error) {
	list := make([]wireTensor, len(inputs))
	for i, in := range inputs {
		if in.Kind != "" {
			return nil, 0, fmt.Errorf("input %q is no tensor of the protocol: %s", in.Name, in.Kind)
		}
		size := len(in.Data)
		list[i] = wireTensor{Name: in.Name, Datatype: in.Datatype, Shape: in.Shape}
		list[i].Parameters.Size = &size
	}
	body, err = json.Marshal(map[string]any{"inputs": list, "parameters": map[string]bool{"binary_data_output": true}})
	head = len(body)
	for _, in := range inputs {
		body = append(body, in.Data...)
	}
	return body, head, err
}

// readBinary reads an answer as clients do: the outputs in their order, each as long as its
// binary_data_size. They have to be all that follows the JSON text.
func readBinary(header http.Header, body []byte) ([]caseTensor, error) {
	head := len(body) // without the header all is JSON
	if field := header.Get("Inference-Header-Content-Length"); field != "" {
		n, err := strconv.Atoi(field)
		if err != nil || n < 0 || n > len(body) || header.Get("Content-Type") != "application/octet-stream" {
			return nil, fmt.Errorf("Inference-Header-Content-Length: %s, Content-Type: %s, %d bytes", field, header.Get("Content-Type"), len(body))
		}
		head = n
	}
	var answer struct{ Outputs []wireTensor }
	if err := json.Unmarshal(body[:head], &answer); err != nil {
		return nil, err
	}
	rest := body[head:]
	out := make([]caseTensor, len(answer.Outputs))
	for i, o := range answer.Outputs {
		size := o.Parameters.Size
		if size == nil || *size > len(rest) {
			return nil, fmt.Errorf("output %q has no binary_data_size, or a larger one than the %d bytes that are left", o.Name, len(rest))
		}
		out[i] = caseTensor{Name: o.Name, Datatype: o.Datatype, Shape: o.Shape, Data: caseData(rest[:*size])}
		rest = rest[*size:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes belong to no output", len(rest))
	}
	return out, nil
}

// differsInForm tells how got has another name, datatype or shape than want; empty: it has not.
func differsInForm(got, want *caseTensor) string {
	switch {
	case want.Kind != "":
		return "it is no tensor of the protocol: " + want.Kind
	case got.Name != want.Name:
		return fmt.Sprintf("it is called %q", got.Name)
	case got.Datatype != want.Datatype:
		return fmt.Sprintf("%s, want %s", got.Datatype, want.Datatype)
	case !slices.Equal(got.Shape, want.Shape):
		return fmt.Sprintf("shape %v, want %v", got.Shape, want.Shape)
	case len(got.Data) != len(want.Data) && want.Datatype != "BYTES":
		return fmt.Sprintf("%d bytes, want %d", len(got.Data), len(want.Data))
	}
	return ""
}

// differsInValues tells whether got, of the form of want, has other values, within the tolerance of
// numpy's assert_allclose: |got - want| <= atol + rtol*|want|. Empty: it has not. The text has no
// values, which may depend on the processor.
func differsInValues(got, want *caseTensor, rtol, atol float64) string {
	decode := floatTypes[want.Datatype]
	if decode == nil { // whole numbers, truth values, strings
		if !bytes.Equal(got.Data, want.Data) {
			return "other values"
		}
		return ""
	}
	a, errA := decode(got.Data)
	b, errB := decode(want.Data)
	if err := errors.Join(errA, errB); err != nil {
		return err.Error()
	}
	for i, w := range b {
		g := a[i]
		if g == w || math.IsNaN(g) && math.IsNaN(w) {
			continue
		}
		// An infinite want would allow any difference.
		if math.IsInf(w, 0) || !(math.Abs(g-w) <= atol+rtol*math.Abs(w)) {
			return "other values"
		}
	}
	return ""
}

// floatTypes reads elements of each floating-point type.
var floatTypes = map[string]func([]byte) ([]float64, error){
	"FP16": func(b []byte) ([]float64, error) { return decodeFloats(b, half) },
	"BF16": func(b []byte) ([]float64, error) {
		return decodeFloats(b, func(v uint16) float64 { return float64(math.Float32frombits(uint32(v) << 16)) })
	},
	"FP32": func(b []byte) ([]float64, error) {
		return decodeFloats(b, func(v uint32) float64 { return float64(math.Float32frombits(v)) })
	},
	"FP64": func(b []byte) ([]float64, error) { return decodeFloats(b, math.Float64frombits) },
}

func decodeFloats[T uint16 | uint32 | uint64](b []byte, value func(T) float64) ([]float64, error) {
	bits := make([]T, len(b)/binary.Size(T(0)))
	if _, err := binary.Decode(b, binary.LittleEndian, bits); err != nil {
		return nil, err
	}
	out := make([]float64, len(bits))
	for i, v := range bits {
		out[i] = value(v)
	}
	return out, nil
}

// half is the value of IEEE 754's binary16: a sign, 5 bits of exponent, 10 of fraction.
func half(bits uint16) float64 {
	sign, exponent, fraction := float64(1), int(bits>>10&31), float64(bits&1023)
	if bits>>15 == 1 {
		sign = -1
	}
	switch {
	case exponent == 31 && fraction != 0:
		return math.NaN()
	case exponent == 31:
		return sign * math.Inf(1)
	case exponent == 0:
		return sign * math.Ldexp(fraction, -24)
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}
