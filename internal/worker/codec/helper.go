package codec

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"preforkd/internal/inference"
)

// What workers say to helpers, and what those answer, is the Open Inference Protocol: requests
// with binary tensors, answers with those or in JSON; docs/helpers.md.

// Call is a request to a helper. Requests of one form have the same JSON, so that helpers need not
// read it each time: what differs, how long somebody waits and for whom, is in headers.
type Call struct {
	Kind []byte // the content type of the raw body; empty: not known
}

// Append appends a request with the tensors of in, those of the type Invalid left out, to b: JSON,
// whose length is header, and then their elements.
func (c *Call) Append(b []byte, in []inference.Tensor) (_ []byte, header int) {
	from := len(b)
	b = append(b, begin...)
	comma := false
	for i := range in {
		t := &in[i]
		if t.DataType == inference.Invalid {
			continue
		}
		if comma {
			b = append(b, ',')
		}
		comma = true
		b, _ = appendTensor(b, t, inBinary) // which does not fail
	}
	b = append(b, `]}`...)
	header = len(b) - from
	for i := range in {
		if in[i].DataType != inference.Invalid {
			b = appendBinary(b, &in[i])
		}
	}
	return b, header
}

// AppendRaw is Append for one string of size bytes, the value of the input called name: the caller
// sends it after b.
func (c *Call) AppendRaw(b []byte, name string, size int) (_ []byte, header int) {
	from := len(b)
	b = append(b, begin...)
	b = append(b, `{"name":`...)
	b = AppendString(b, name)
	b = append(b, `,"datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":`...)
	b = strconv.AppendInt(b, int64(size)+lengthBytes, 10)
	if len(c.Kind) > 0 && utf8.Valid(c.Kind) {
		b = append(b, `,"content_type":`...)
		b = appendString(b, c.Kind)
	}
	b = append(b, `}}]}`...)
	header = len(b) - from
	return binary.LittleEndian.AppendUint32(b, uint32(size)), header
}

// begin is all that comes before the tensors.
const begin = `{"parameters":{"binary_data_output":true},"inputs":[`

// Answer reads what helpers answer. The zero value is ready to use; it belongs to one goroutine at
// a time and is reused.
type Answer struct {
	// Outputs are those that were declared, in their order.
	Outputs []inference.Tensor
	// Kind is the content type that the helper gave with an output, as the parameter content_type.
	Kind []byte

	r InferRequest
}

// Decode reads body, which begins with header bytes of JSON, as the values of all of out. Large
// tensors are not copied where they are aligned: Outputs refer to body until the next Decode or
// Trim. The error is an *Error.
func (a *Answer) Decode(body []byte, header int, out []inference.TensorInfo) error {
	r := &a.r
	r.reset(out, nil)
	r.answer, r.kind, r.body, r.next = true, r.kind[:0], body, header
	a.Outputs, a.Kind = nil, nil
	if header < 0 || header > len(body) {
		return &Error{Field: headerField, Offset: -1, Text: fmt.Sprintf("%d, of a body of %d bytes", header, len(body))}
	}
	ok := r.s.start(body[:header]) && r.outputs() && r.s.end() && r.allTaken()
	err := r.s.err
	r.s.b, r.s.rawKey, r.s.path, r.s.err = nil, nil, path{}, nil
	r.in, r.body = nil, nil
	if !ok {
		return err
	}
	a.Outputs, a.Kind = r.Inputs, r.kind
	return nil
}

// Trim frees memory beyond limit bytes for each tensor, and returns how much.
func (a *Answer) Trim(limit int) (freed int) { return a.r.Trim(limit) }

// outputs reads the object of an answer.
func (r *InferRequest) outputs() bool {
	s := &r.s
	seen, ok := s.object("'{'", func(key []byte) bool {
		if string(key) != "outputs" {
			return s.skipUnknown(1)
		}
		ok := s.once(keyOutputs, "outputs") && r.list(r.readInput)
		if ok {
			s.path.pop()
		}
		return ok
	})
	if !ok {
		return false
	}
	s.path.push(part{name: "outputs"})
	if seen&keyOutputs == 0 {
		return s.fail(-1, "missing")
	}
	for i, given := range r.given {
		if !given {
			return s.failf(-1, "output %q is missing", r.in[i].Name)
		}
	}
	s.path.pop()
	return true
}

// contentType reads that parameter of an output.
func (r *InferRequest) contentType() bool {
	s := &r.s
	s.path.push(part{name: "content_type"})
	if s.peek() != '"' {
		return s.unexpected("a string")
	}
	at := s.i
	text, ok := s.str()
	if !ok {
		return false
	}
	if len(text) == 0 || len(text) > maxID {
		return s.failf(at, "%d bytes, from 1 to %d are a content type", len(text), maxID)
	}
	for _, c := range text {
		if c < ' ' || c > '~' { // it becomes a header of the answer
			return s.fail(at, "a character that no header may have")
		}
	}
	r.kind = append(r.kind[:0], text...)
	s.path.pop()
	return true
}

// AllOutputs makes r ask for all of a model's outputs, so many, in JSON: for AppendResponse to a
// request that no Decode has read.
func (r *InferRequest) AllOutputs(n int) {
	r.reset(nil, nil)
	for i := range n {
		r.Outputs, r.forms = append(r.Outputs, i), append(r.forms, inJSON)
	}
}

// ParseMetadata reads what a helper says of one of its models (GET /v2/models/NAME): name, inputs
// and outputs. Every size is -1 or not negative, names are different, and there is at least one
// of each.
func ParseMetadata(body []byte) (in, out []inference.TensorInfo, err error) {
	type tensor struct {
		Name     string  `json:"name"`
		DataType string  `json:"datatype"`
		Shape    []int64 `json:"shape"`
	}
	var m struct {
		Inputs  []tensor `json:"inputs"`
		Outputs []tensor `json:"outputs"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, nil, fmt.Errorf("no JSON of a model's description: %w", err)
	}
	read := func(list []tensor, key string) (infos []inference.TensorInfo, err error) {
		if len(list) == 0 {
			return nil, errors.New(key + ": none")
		}
		for i, t := range list {
			info := inference.TensorInfo{Name: t.Name, DataType: inference.ParseDataType([]byte(t.DataType)), Shape: t.Shape}
			switch {
			case t.Name == "":
				return nil, fmt.Errorf("%s[%d].name: missing", key, i)
			case find(infos, []byte(t.Name)) >= 0:
				return nil, fmt.Errorf("%s[%d].name: %q is given twice", key, i, clip([]byte(t.Name)))
			case info.DataType == inference.Invalid:
				return nil, fmt.Errorf("%s[%d].datatype: %q is no datatype", key, i, clip([]byte(t.DataType)))
			case t.Shape == nil:
				return nil, fmt.Errorf("%s[%d].shape: missing", key, i)
			case len(t.Shape) > maxRank:
				return nil, fmt.Errorf("%s[%d].shape: more than %d dimensions", key, i, maxRank)
			}
			fixed := make([]int64, 0, len(t.Shape))
			for _, d := range t.Shape {
				if d < -1 {
					return nil, fmt.Errorf("%s[%d].shape: %d is no size; write -1 for any", key, i, d)
				}
				fixed = append(fixed, max(d, 1))
			}
			if _, err := inference.Elements(fixed); err != nil {
				return nil, fmt.Errorf("%s[%d].shape: %w", key, i, err)
			}
			infos = append(infos, info)
		}
		return infos, nil
	}
	if in, err = read(m.Inputs, "inputs"); err != nil {
		return nil, nil, err
	}
	if out, err = read(m.Outputs, "outputs"); err != nil {
		return nil, nil, err
	}
	return in, out, nil
}

// ErrorText returns what an answer that is no success says: the value of "error" if it is the
// protocol's, else its beginning.
func ErrorText(body []byte) string {
	var m struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &m) == nil && m.Error != "" {
		body = []byte(m.Error)
	}
	const limit = 500
	if len(body) > limit {
		body = append(append([]byte(nil), body[:limit]...), "…"...)
	}
	return string(printable(body))
}

// printable returns text with what is no printable ASCII or UTF-8 replaced, so that it stays one
// line of a log and of a message.
func printable(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for _, r := range string(text) {
		switch {
		case r == '\n' || r == '\t':
			out = append(out, ' ')
		case r < ' ' || r == 0x7f:
		default:
			out = append(out, string(r)...)
		}
	}
	return out
}
