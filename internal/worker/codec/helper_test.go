package codec

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"preforkd/internal/inference"
)

var declared = []inference.TensorInfo{
	{Name: "pixels", DataType: inference.FP32, Shape: []int64{-1, 2}},
	{Name: "text", DataType: inference.Bytes, Shape: []int64{1}},
}

// TestCall: what Call appends is a request that Decode understands.
func TestCall(t *testing.T) {
	in := make([]inference.Tensor, 3)
	for i, dt := range []inference.DataType{inference.FP32, inference.Bytes} {
		if err := in[i].Reset(dt, [][]int64{{1, 2}, {1}}[i]); err != nil {
			t.Fatal(err)
		}
		in[i].Name = declared[i].Name
	}
	copy(in[0].Float32s(), []float32{1, 2})
	in[1].AppendText([]byte("a \"word\""))
	var c Call
	b, header := c.Append([]byte("kept"), in)
	if !bytes.HasPrefix(b, []byte("kept{")) {
		t.Fatalf("%q", b)
	}
	var r InferRequest
	if err := r.DecodeBinary(b[4:], header, declared, declared); err != nil {
		t.Fatalf("%v: %q", err, b)
	}
	if r.Inputs[0].Float32s()[1] != 2 || string(r.Inputs[1].Text(0)) != `a "word"` || r.form != inBinary {
		t.Errorf("%+v", r)
	}

	b, header = (&Call{Kind: []byte("image/png")}).AppendRaw(nil, "text", 5)
	b = append(b, "\x00\xff\n\"!"...)
	if err := r.DecodeBinary(b, header, declared[1:], declared); err != nil {
		t.Fatalf("%v: %q", err, b)
	}
	if string(r.Inputs[0].Text(0)) != "\x00\xff\n\"!" || !bytes.Contains(b[:header], []byte(`"content_type":"image/png"`)) {
		t.Errorf("%q", b)
	}
}

// TestAnswer reads answers in both forms, and says of bad ones what is wrong.
func TestAnswer(t *testing.T) {
	var a Answer
	const both = `{"model_name":"m","outputs":[{"name":"text","datatype":"BYTES","shape":[1],"parameters":{"content_type":"text/plain","x":1},"data":["word"]},` +
		`{"name":"pixels","datatype":"FP32","shape":[1,2],"data":[1.5,2]}]}`
	if err := a.Decode([]byte(both), len(both), declared); err != nil {
		t.Fatal(err)
	}
	if len(a.Outputs) != 2 || a.Outputs[0].Float32s()[0] != 1.5 || string(a.Outputs[1].Text(0)) != "word" || string(a.Kind) != "text/plain" {
		t.Errorf("%+v %q", a.Outputs, a.Kind)
	}
	const head = `{"outputs":[{"name":"text","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":8}}]}`
	data := append(binary.LittleEndian.AppendUint32([]byte(head), 4), "\xff\x00ab"...)
	if err := a.Decode(data, len(head), declared[1:]); err != nil {
		t.Fatal(err)
	}
	if string(a.Outputs[0].Text(0)) != "\xff\x00ab" || len(a.Kind) > 0 {
		t.Errorf("%q %q", a.Outputs[0].Text(0), a.Kind)
	}
	for body, want := range map[string]string{
		`{}`:             "outputs: missing",
		``:               "empty",
		`[]`:             "'{' is expected",
		`{"outputs":[]}`: `output "text" is missing`,
		`{"outputs":[{"name":"x","datatype":"BYTES","shape":[1],"data":["a"]}]}`:                                         `no output "x" is declared`,
		`{"outputs":[{"name":"text","datatype":"FP32","shape":[1],"data":[1]}]}`:                                         "outputs[0].datatype: FP32, is declared BYTES",
		`{"outputs":[{"name":"text","datatype":"BYTES","shape":[2],"data":["a","b"]}]}`:                                  "outputs[0].shape: [2], is declared [1]",
		`{"outputs":[{"name":"text","datatype":"BYTES","shape":[1],"data":["a","b"]}]}`:                                  "elements",
		`{"outputs":[{"name":"text","datatype":"BYTES","shape":[1]}]}`:                                                   "outputs[0].data: missing",
		`{"outputs":[{"name":"text","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":9}}]}`:               "unexpected size for output 'text', expecting 9",
		`{"outputs":[{"name":"text","datatype":"BYTES","shape":[1],"parameters":{"content_type":"a\nb"},"data":["a"]}]}`: "no header may have",
		`{"outputs":[{"name":"text","datatype":"BYTES","shape":[1],"parameters":{"content_type":1},"data":["a"]}]}`:      "a string",
		`{"outputs":[{"name":"text","datatype":"BYTES","shape":[1],"data":["a"]}]}x`:                                     "text after the end",
		`{"outputs":[{"name":"text","datatype":"BYTES","shape":[1],"data":["a"]},{"name":"text","datatype":"BYTES"}]}`:   `output "text" is given twice`,
	} {
		if err := a.Decode([]byte(body), len(body), declared[1:]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
	if err := a.Decode([]byte("{}"), 3, declared); err == nil {
		t.Error("a header longer than the body")
	}
}

// TestMetadata reads a helper's description.
func TestMetadata(t *testing.T) {
	in, out, err := ParseMetadata([]byte(`{"name":"m","versions":["1"],"inputs":[{"name":"a","datatype":"BYTES","shape":[1]}],"outputs":[{"name":"b","datatype":"FP32","shape":[-1,64]}]}`))
	if err != nil || len(in) != 1 || in[0].DataType != inference.Bytes || out[0].Shape[1] != 64 {
		t.Fatalf("%+v %+v %v", in, out, err)
	}
	for body, want := range map[string]string{
		`x`:               "no JSON",
		`{}`:              "inputs: none",
		`{"inputs":[{}]}`: "inputs[0].name: missing",
		`{"inputs":[{"name":"a","datatype":"float","shape":[1]}]}`:                                           `"float" is no datatype`,
		`{"inputs":[{"name":"a","datatype":"FP32"}]}`:                                                        "shape: missing",
		`{"inputs":[{"name":"a","datatype":"FP32","shape":[-2]}]}`:                                           "-2 is no size",
		`{"inputs":[{"name":"a","datatype":"FP32","shape":[4611686018427387904,4]}]}`:                        "overflows",
		`{"inputs":[{"name":"a","datatype":"FP32","shape":[1]},{"name":"a","datatype":"FP32","shape":[1]}]}`: "given twice",
		`{"inputs":[{"name":"a","datatype":"FP32","shape":[1]}]}`:                                            "outputs: none",
	} {
		if _, _, err := ParseMetadata([]byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
	if got := ErrorText([]byte(`{"error":"no image\nhere"}`)); got != "no image here" {
		t.Errorf("%q", got)
	}
	if got := ErrorText([]byte("<html>\x00 bad")); got != "<html> bad" {
		t.Errorf("%q", got)
	}
}

// FuzzAnswer: whatever a helper answers is read or refused, and what is read has the shapes that
// were declared.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"outputs":[{"name":"pixels","datatype":"FP32","shape":[1,2],"data":[1,2]},{"name":"text","datatype":"BYTES","shape":[1],"data":["a"]}]}`), 1000)
	f.Add([]byte(`{"outputs":[{"name":"text","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":8,"content_type":"a/b"}}]}`+"\x04\x00\x00\x00abcd"), 113)
	f.Add([]byte(`{"name":"m","inputs":[{"name":"a","datatype":"BYTES","shape":[1]}],"outputs":[{"name":"b","datatype":"FP32","shape":[-1,64]}]}`), 0)
	var a Answer
	f.Fuzz(func(t *testing.T, body []byte, header int) {
		if header > len(body) || header < 0 {
			header = len(body)
		}
		if err := a.Decode(body, header, declared); err == nil {
			for i := range declared {
				if e := declared[i].Check(a.Outputs[i].DataType, a.Outputs[i].Shape); e != nil {
					t.Error(e)
				}
				if n, _ := inference.Elements(a.Outputs[i].Shape); int(n) != a.Outputs[i].Len() {
					t.Errorf("%d elements of %v", a.Outputs[i].Len(), a.Outputs[i].Shape)
				}
			}
		}
		if in, out, err := ParseMetadata(body); err == nil && (len(in) == 0 || len(out) == 0) {
			t.Error("none")
		}
		if text := ErrorText(body); strings.ContainsAny(text, "\n\x00") {
			t.Errorf("%q", text)
		}
	})
}
