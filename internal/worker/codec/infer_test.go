package codec

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"preforkd/internal/inference"
)

func tensor(name string, dt inference.DataType, shape ...int64) inference.TensorInfo {
	return inference.TensorInfo{Name: name, DataType: dt, Shape: shape}
}

// The model of these tests.
var (
	inputs  = []inference.TensorInfo{tensor("x", inference.FP32, -1, 3), tensor("n", inference.Int64, -1)}
	outputs = []inference.TensorInfo{tensor("label", inference.Int64, -1), tensor("scores", inference.FP32, -1, 2)}
)

const (
	inputX = `{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}`
	inputN = `{"name":"n","shape":[1],"datatype":"INT64","data":[7]}`
)

func decode(body string) (*InferRequest, error) {
	var r InferRequest
	err := r.Decode([]byte(body), inputs, outputs)
	return &r, err
}

func TestInferDecodes(t *testing.T) {
	x, n := []float32{1, 2, 3}, []int64{7}
	for name, c := range map[string]struct {
		body    string
		x       []float32
		n       []int64
		id      string
		outputs []int
	}{
		"plain":          {body: `{"inputs":[` + inputX + `,` + inputN + `]}`},
		"inputs turned":  {body: `{"inputs":[` + inputN + `,` + inputX + `]}`},
		"white space":    {body: " {\n\t\"inputs\" : [ " + inputX + "\r\n, " + inputN + " ] } \n"},
		"keys turned":    {body: `{"inputs":[{"data":[[1,2,3]],"datatype":"FP32","shape":[1,3],"name":"x"},{"shape":[1],"data":[7],"name":"n","datatype":"INT64"}]}`},
		"names escaped":  {body: `{"\u0069nputs":[{"n\u0061me":"\u0078","shape":[1,3],"datatype":"FP\u00332","data":[1,2,3]},` + inputN + `]}`},
		"nested":         {body: `{"inputs":[{"name":"x","shape":[2,3],"datatype":"FP32","data":[[1,2.5,3],[-4,5e0,6]]},` + inputN + `]}`, x: []float32{1, 2.5, 3, -4, 5, 6}},
		"nested anyhow":  {body: `{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[[],[[1],2],[[[3]]]]},` + inputN + `]}`},
		"ends of range":  {body: `{"inputs":[` + inputX + `,{"name":"n","shape":[2],"datatype":"INT64","data":[-9223372036854775808,9223372036854775807]}]}`, n: []int64{math.MinInt64, math.MaxInt64}},
		"no elements":    {body: `{"inputs":[{"name":"x","shape":[0,3],"datatype":"FP32","data":[]},` + inputN + `]}`, x: []float32{}},
		"id":             {body: `{"id":"a\"\u00e9\ud83d\ude00\n","inputs":[` + inputX + `,` + inputN + `]}`, id: "a\"é😀\n"},
		"id empty":       {body: `{"id":"","inputs":[` + inputX + `,` + inputN + `]}`},
		"outputs":        {body: `{"outputs":[{"name":"scores","parameters":{"binary_data":false}}],"inputs":[` + inputX + `,` + inputN + `]}`, outputs: []int{1}},
		"outputs turned": {body: `{"outputs":[{"name":"scores"},{"name":"label","x":[]}],"inputs":[` + inputX + `,` + inputN + `]}`, outputs: []int{1, 0}},
		"outputs empty":  {body: `{"outputs":[],"inputs":[` + inputX + `,` + inputN + `]}`},
		"parameters":     {body: `{"parameters":{"priority":1,"binary_data_output":true,"headers":{"a":[null]}},"inputs":[` + inputX + `,` + inputN + `]}`},
		"unknown keys":   {body: `{"":null,"x":{"inputs":[{"data":"\ud83d\ude00"}]},"inputs":[` + inputX + `,{"y":[true,false,-0.1E+2,"\\"],` + inputN[1:] + `]}`},
		"depth of 64":    {body: `{"x":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `,"inputs":[` + inputX + `,` + inputN + `]}`},
		"data depth of 61": {
			body: `{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":` + strings.Repeat("[", 61) + "1,2,3" + strings.Repeat("]", 61) + `},` + inputN + `]}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := decode(c.body)
			if err != nil {
				t.Fatal(err)
			}
			if c.x == nil {
				c.x = x
			}
			if c.n == nil {
				c.n = n
			}
			if c.outputs == nil {
				c.outputs = []int{0, 1}
			}
			if !slices.Equal(r.Inputs[0].Float32s(), c.x) || !slices.Equal(r.Inputs[1].Int64s(), c.n) {
				t.Errorf("x %v, n %v", r.Inputs[0].Float32s(), r.Inputs[1].Int64s())
			}
			if r.Inputs[0].Shape[1] != 3 || r.Inputs[0].Name != "x" || r.Inputs[0].DataType != inference.FP32 {
				t.Errorf("x: %+v", r.Inputs[0])
			}
			if string(r.ID) != c.id || r.HasID != strings.Contains(c.body, `"id"`) || !slices.Equal(r.Outputs, c.outputs) {
				t.Errorf("id %q %v, outputs %v", r.ID, r.HasID, r.Outputs)
			}
		})
	}
}

// with replaces a part of inputX and returns a body with the result.
func with(old, text string) string {
	return `{"inputs":[` + strings.Replace(inputX, old, text, 1) + `,` + inputN + `]}`
}

func TestInferNamesWhatIsWrong(t *testing.T) {
	for body, want := range map[string]string{
		"":                                     `body: empty, a JSON object is expected`,
		" \r\n":                                `body: empty, a JSON object is expected`,
		"\xef\xbb\xbf{}":                       `body: starts with a byte order mark, which JSON has not (RFC 8259, section 8.1) (offset 0)`,
		`[]`:                                   `body: '[' where '{' is expected (offset 0)`,
		`{`:                                    `body: the text ends where a key is expected (offset 1)`,
		`{}`:                                   `inputs: missing`,
		`{} x`:                                 `inputs: missing`,
		`{,}`:                                  `body: ',' where a key is expected (offset 1)`,
		`{"a":1,}`:                             `body: '}' where a key is expected (offset 7)`,
		`{"a" 1}`:                              `body: '1' where ':' is expected (offset 5)`,
		`{"a":1 "b":2}`:                        `body: '"' where ',' or '}' is expected (offset 7)`,
		`{"a":tru}`:                            `a: 't' where a value is expected (offset 5)`,
		`{"a":[1,]}`:                           `a: ']' where a value is expected (offset 8)`,
		`{"":NaN}`:                             `"": 'N' where a value is expected (offset 4)`,
		`{"a.\n":NaN}`:                         `"a.\\n": 'N' where a value is expected (offset 8)`,
		`{"a":NaN}`:                            `a: 'N' where a value is expected (offset 5)`,
		`{"a":.5}`:                             `a: '.' where a value is expected (offset 5)`,
		`{"a":1.}`:                             `a: '}' where a digit is expected (offset 7)`,
		`{"a":-01}`:                            `a: a number with a leading zero (offset 6)`,
		`{"a":1e+}`:                            `a: '}' where a digit is expected (offset 8)`,
		`{"a":"` + "\x01" + `"}`:               `a: control character '\x01' in a string (offset 6)`,
		`{"a":"` + "\xff" + `"}`:               `a: invalid UTF-8 in a string (offset 6)`,
		`{"a":"\` + "\xff" + `"}`:              "a: unknown escape \\\xff (offset 6)",
		"{\"a\":\xff}":                         `a: invalid UTF-8 where a value is expected (offset 5)`,
		`{"a":"\x"}`:                           `a: unknown escape \x (offset 6)`,
		`{"a":"\u12g4"}`:                       `a: \u without four hexadecimal digits (offset 6)`,
		`{"a":"\u12`:                           `a: the text ends where a hexadecimal digit is expected (offset 10)`,
		`{"a":"\ud800"}`:                       `a: half of a surrogate pair in a string (offset 6)`,
		`{"a":"\ud800\u0041"}`:                 `a: half of a surrogate pair in a string (offset 6)`,
		`{"a":"\udc00\ud800"}`:                 `a: half of a surrogate pair in a string (offset 6)`,
		`{"a":"\ud800\udc0"}`:                  `a: half of a surrogate pair in a string (offset 6)`,
		`{"a":"abc`:                            `a: the text ends where the end of a string is expected (offset 9)`,
		`{"a":"abc\`:                           `a: the text ends where the end of a string is expected (offset 10)`,
		`{"a":` + strings.Repeat("[", 100_000): `a: nested deeper than 64 levels (offset 68)`,
		`{"a":` + strings.Repeat(`{"b":`, 100_000):                     `a: nested deeper than 64 levels (offset 320)`,
		`{"` + strings.Repeat("é", 40) + `":x}`:                        strings.Repeat("é", 32) + `…: 'x' where a value is expected (offset 84)`,
		with(`[1,2,3]`, strings.Repeat("[", 100_000)):                  `inputs[0].data[0]: nested deeper than 64 levels (offset 123)`,
		`{"inputs":[` + inputX + `,` + inputN + `]}]`:                  `body: text after the end of the JSON object (offset 127)`,
		`{"inputs":[` + inputX + `,` + inputN:                          `inputs: the text ends where ',' or ']' is expected (offset 125)`,
		`{"inputs":[],"inputs":[]}`:                                    `inputs: given twice (offset 22)`,
		`{"inputs":{}}`:                                                `inputs: '{' where an array is expected (offset 10)`,
		`{"inputs":[]}`:                                                `inputs: input "x" is missing`,
		`{"inputs":[` + inputX + `]}`:                                  `inputs: input "n" is missing`,
		`{"inputs":[` + inputX + `,` + inputX + `]}`:                   `inputs[1].name: input "x" is given twice (offset 79)`,
		`{"inputs":[1]}`:                                               `inputs[0]: '1' where an object is expected (offset 11)`,
		`{"inputs":[ {}]}`:                                             `inputs[0].name: missing (offset 12)`,
		`{"id":1}`:                                                     `id: '1' where a string is expected (offset 6)`,
		`{"id":null}`:                                                  `id: 'n' where a string is expected (offset 6)`,
		`{"id":"` + strings.Repeat("x", 1025) + `"}`:                   `id: longer than 1024 bytes (offset 6)`,
		`{"id":"a","id":"b"}`:                                          `id: given twice (offset 15)`,
		`{"parameters":[]}`:                                            `parameters: '[' where an object is expected (offset 14)`,
		`{"parameters":{"triton_enable_empty_final_response":true}}`:   `parameters.triton_enable_empty_final_response: parameters that begin with triton_ are reserved (offset 52)`,
		`{"parameters":{"a":{"b":nul}}}`:                               `parameters.a: 'n' where a value is expected (offset 24)`,
		`{"outputs":[{"name":"score"}]}`:                               `outputs[0].name: the model has no output "score" (offset 20)`,
		`{"outputs":[{"name":"label"},{"name":"label"}]}`:              `outputs[1].name: output "label" already exists in request (offset 37)`,
		`{"outputs":[{}]}`:                                             `outputs[0].name: missing (offset 12)`,
		`{"outputs":["label"]}`:                                        `outputs[0]: '"' where an object is expected (offset 12)`,
		`{"outputs":[{"name":7}]}`:                                     `outputs[0].name: '7' where a string is expected (offset 20)`,
		`{"outputs":[{"name":"label","parameters":{"a":}}]}`:           `outputs[0].parameters.a: '}' where a value is expected (offset 46)`,
		with(`"x"`, `"y"`):                                             `inputs[0].name: the model has no input "y" (offset 19)`,
		with(`"x"`, `7`):                                               `inputs[0].name: '7' where a string is expected (offset 19)`,
		with(`"name":"x",`, ``):                                        `inputs[0].name: missing (offset 11)`,
		with(`"shape":[1,3],`, ``):                                     `inputs[0].shape: missing (offset 11)`,
		with(`"datatype":"FP32",`, ``):                                 `inputs[0].datatype: missing (offset 11)`,
		with(`,"data":[1,2,3]`, ``):                                    `inputs[0].data: missing (offset 11)`,
		with(`"data"`, `"data":[],"data"`):                             `inputs[0].data: 0 elements, the shape [1 3] has 3 (offset 62)`,
		with(`,"data":[1,2,3]`, `,"data":[1,2,3],"data":[1,2,3]`):      `inputs[0].data: given twice (offset 77)`,
		with(`"FP32"`, `"FLOAT"`):                                      `inputs[0].datatype: "FLOAT" is no datatype (offset 48)`,
		with(`"FP32"`, `1`):                                            `inputs[0].datatype: '1' where a string is expected (offset 48)`,
		with(`"FP32"`, `"INT64"`):                                      `inputs[0].datatype: INT64, the model takes FP32 (offset 48)`,
		with(`"FP32"`, `"FP16"`):                                       `inputs[0].datatype: FP16, the model takes FP32 (offset 48)`,
		with(`[1,3]`, `[1,4]`):                                         `inputs[0].shape: [1 4], the model takes [-1 3] (offset 31)`,
		with(`[1,3]`, `[3]`):                                           `inputs[0].shape: [3], the model takes [-1 3] (offset 31)`,
		with(`[1,3]`, `[2,3]`):                                         `inputs[0].data: 3 elements, the shape [2 3] has 6 (offset 62)`,
		with(`[1,3]`, `[-1,3]`):                                        `inputs[0].shape[0]: -1 is negative (offset 32)`,
		with(`[1,3]`, `[1.0,3]`):                                       `inputs[0].shape[0]: 1.0 is not written as an integer (offset 32)`,
		with(`[1,3]`, `[1,"3"]`):                                       `inputs[0].shape[1]: '"' where an integer is expected (offset 34)`,
		with(`[1,3]`, `[99999999999999999999,3]`):                      `inputs[0].shape[0]: 99999999999999999999 does not fit INT64 (offset 32)`,
		with(`[1,3]`, `[4611686018427387904,3]`):                       `inputs[0].shape: the number of elements overflows (offset 31)`,
		with(`[1,3]`, `[4294967296,4294967296]`):                       `inputs[0].shape: the number of elements overflows (offset 31)`,
		with(`[1,3]`, `[300000000000000000,3]`):                        `inputs[0].data: 3 elements, the shape [300000000000000000 3] has 900000000000000000 (offset 79)`,
		with(`[1,3]`, `[`+strings.Repeat("1,", 70)+`1]`):               `inputs[0].shape[64]: more than 64 dimensions (offset 160)`,
		with(`[1,3]`, `3`):                                             `inputs[0].shape: '3' where an array is expected (offset 31)`,
		with(`[1,2,3]`, `[1,2]`):                                       `inputs[0].data: 2 elements, the shape [1 3] has 3 (offset 62)`,
		with(`[1,2,3]`, `[1,2,3,4]`):                                   `inputs[0].data: 4 elements, the shape [1 3] has 3 (offset 62)`,
		with(`[1,2,3]`, `5`):                                           `inputs[0].data: '5' where '[' is expected (offset 62)`,
		with(`[1,2,3]`, `[1,NaN,3]`):                                   `inputs[0].data[1]: 'N' where a number is expected (offset 65)`,
		with(`[1,2,3]`, `[1,-Infinity,3]`):                             `inputs[0].data[1]: 'I' where a digit is expected (offset 66)`,
		with(`[1,2,3]`, `[1,2,Infinity]`):                              `inputs[0].data[2]: 'I' where a number is expected (offset 67)`,
		with(`[1,2,3]`, `[1,1e39,3]`):                                  `inputs[0].data[1]: 1e39 does not fit FP32 (offset 65)`,
		with(`[1,2,3]`, `[1,"2",3]`):                                   `inputs[0].data[1]: '"' where a number is expected (offset 65)`,
		with(`[1,2,3]`, `[1,null,3]`):                                  `inputs[0].data[1]: 'n' where a number is expected (offset 65)`,
		with(`[1,2,3]`, `[1,true,3]`):                                  `inputs[0].data[1]: 't' where a number is expected (offset 65)`,
		with(`[1,2,3]`, `[1,{},3]`):                                    `inputs[0].data[1]: '{' where a number is expected (offset 65)`,
		with(`[1,2,3]`, `[1,,3]`):                                      `inputs[0].data[1]: ',' where a number is expected (offset 65)`,
		with(`[1,2,3]`, `[1,2,3,]`):                                    `inputs[0].data[3]: ']' where a number is expected (offset 69)`,
		with(`[1,2,3]`, `[,1]`):                                        `inputs[0].data[0]: ',' where a number is expected (offset 63)`,
		with(`[1,2,3]`, `[[1,2,3`):                                     `inputs[0].data[2]: '}' where ',' or ']' is expected (offset 69)`,
		with(`[1,2,3]`, `[1 2 3]`):                                     `inputs[0].data[0]: '2' where ',' or ']' is expected (offset 65)`,
		with(`"data":[1,2,3]`, `"parameters":{"binary_data_size":12}`): `inputs[0].parameters.binary_data_size: unexpected size for input 'x', expecting 12 additional bytes (offset 88)`,
		`{"inputs":[{"data":[1,2,"3"],"name":"x","shape":[1,3],"datatype":"FP32"}]}`:           `inputs[0].data[2]: '"' where a number is expected (offset 24)`,
		`{"inputs":[{"data":[1,2,],"name":"x","shape":[1,3],"datatype":"FP32"}]}`:              `inputs[0].data: ']' where a value is expected (offset 24)`,
		`{"inputs":[` + inputX + `,{"name":"n","shape":[1],"datatype":"INT64","data":[7.0]}]}`: `inputs[1].data[0]: 7.0 is not written as an integer (offset 122)`,
	} {
		_, err := decode(body)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.200s: %v", body, err)
			continue
		}
		if e.Error() != want {
			t.Errorf("%.200s\n got %s\nwant %s", body, e, want)
		}
	}
}

func TestUnsupportedDataTypes(t *testing.T) {
	half := []inference.TensorInfo{tensor("h", inference.FP16, 1)}
	var r InferRequest
	err := r.Decode([]byte(`{"inputs":[{"name":"h","shape":[1],"datatype":"FP16","data":[1]}]}`), half, outputs)
	if want := `inputs[0].datatype: receiving FP16 data via JSON is not supported. Please use the binary data format for input h (offset 46)`; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	err = r.Decode([]byte(`{"inputs":[`+inputX+`]}`), inputs[:1], half)
	if want := `outputs: sending FP16 data via JSON is not supported. Please use the binary data format for output h`; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

func TestInferResponse(t *testing.T) {
	r, err := decode(`{"id":"\u0001\"\\\u007fé","outputs":[{"name":"scores"},{"name":"label"}],"inputs":[` + inputX + `,` + inputN + `]}`)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]inference.Tensor, 2)
	out[0].Name, out[1].Name = "label", "scores"
	if err := errors.Join(out[0].Reset(inference.Int64, []int64{1}), out[1].Reset(inference.FP32, []int64{1, 2})); err != nil {
		t.Fatal(err)
	}
	out[0].Int64s()[0] = math.MinInt64
	copy(out[1].Float32s(), []float32{0.1, -2})
	b, _, err := r.AppendResponse(nil, "m\n\xff", "1", out)
	want := `{"model_name":"m\u000a` + "\uFFFD" + `","model_version":"1","id":"\u0001\"\\` + "\x7f" + `é","outputs":[` +
		`{"name":"scores","datatype":"FP32","shape":[1,2],"data":[0.1,-2]},` +
		`{"name":"label","datatype":"INT64","shape":[1],"data":[-9223372036854775808]}]}`
	if err != nil || string(b) != want {
		t.Errorf("%v\n got %s\nwant %s", err, b, want)
	}
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		out[1].Float32s()[1] = float32(v)
		_, _, err := r.AppendResponse(nil, "m", "1", out)
		var e *OutputError
		if !errors.As(err, &e) || e.Error() != `output "scores": element 1 is not a finite number, which JSON cannot carry` {
			t.Errorf("%v: %v", v, err)
		}
	}
}

// TestRequestsLeaveNothingBehind decodes a good request after each bad one with the
// same memory.
func TestRequestsLeaveNothingBehind(t *testing.T) {
	var r InferRequest
	good := `{"inputs":[` + inputX + `,` + inputN + `]}`
	for i := range len(good) {
		if err := r.Decode([]byte(good[:i]), inputs, outputs); err == nil {
			t.Fatalf("%q is accepted", good[:i])
		}
		if err := r.Decode([]byte(good), inputs, outputs); err != nil {
			t.Fatalf("after %q: %v", good[:i], err)
		}
		if !slices.Equal(r.Inputs[0].Float32s(), []float32{1, 2, 3}) || r.HasID || len(r.Outputs) != 2 {
			t.Fatalf("after %q: %+v", good[:i], r)
		}
	}
}

// TestHugeShapesCostNothing: memory is laid out only for what the body can hold.
func TestHugeShapesCostNothing(t *testing.T) {
	body := []byte(fmt.Sprintf(`{"inputs":[{"name":"x","shape":[%d,3],"datatype":"FP32","data":[1,2,3]}]}`, inference.MaxElements/3))
	var r InferRequest
	if err := r.Decode(body, inputs, outputs); err == nil || !strings.Contains(err.Error(), "3 elements") {
		t.Error(err)
	}
	if len(r.Inputs[0].Raw()) != 0 {
		t.Errorf("%d bytes were laid out", len(r.Inputs[0].Raw()))
	}
}
