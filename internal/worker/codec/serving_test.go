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

// Models of the tests, by their inputs.
var (
	oneInput  = []inference.TensorInfo{tensor("x", inference.FP32, -1, 3)}
	twoInputs = []inference.TensorInfo{tensor("x", inference.FP32, -1, 2), tensor("n", inference.Int64, -1)}
	anySize   = []inference.TensorInfo{tensor("v", inference.FP32, -1, -1, -1)}
	flat      = []inference.TensorInfo{tensor("v", inference.FP32, -1)}
	bare      = []inference.TensorInfo{tensor("v", inference.FP32)}
	fixed     = []inference.TensorInfo{tensor("v", inference.FP32, 2, 2)}
	three     = []inference.TensorInfo{tensor("v", inference.FP32, -1, 2, 2), tensor("n", inference.Int64, -1, 1)}
)

// shown is what was read, for a comparison.
func shown(r *ServingRequest) string {
	var b strings.Builder
	if fmt.Fprintf(&b, "%d", r.Rows); r.HasRows {
		b.WriteString(" rows")
	}
	for i := range r.Inputs {
		t := &r.Inputs[i]
		fmt.Fprintf(&b, "; %s %v ", t.Name, t.Shape)
		if t.DataType == inference.Int64 {
			fmt.Fprint(&b, t.Int64s())
		} else {
			fmt.Fprint(&b, t.Float32s())
		}
	}
	return b.String()
}

func TestServingDecodes(t *testing.T) {
	var r ServingRequest // one for all: nothing of a request stays for the next
	for _, c := range []struct {
		body string
		in   []inference.TensorInfo
		want string
	}{
		{`{"instances":[[1,2,3]]}`, oneInput, `1 rows; x [1 3] [1 2 3]`},
		{` { "signature_name" : "serving_default" , "instances" : [ [ 1 , 2.5 , -3e0 ] , [4,5,6] ] , "y" : { } } `, oneInput, `2 rows; x [2 3] [1 2.5 -3 4 5 6]`},
		{`{"signature_name":"","instances":[{"x":[1,2,3]},{"x":[4,5,6]}]}`, oneInput, `2 rows; x [2 3] [1 2 3 4 5 6]`},
		{`{"instances":[{"x":[1,2],"n":7},{"n":-8,"x":[3,4]}]}`, twoInputs, `2 rows; x [2 2] [1 2 3 4]; n [2] [7 -8]`},
		{`{"instances":[{"v":[[1,2],[3,4]],"n":[5]},{ "n" : [ 6 ] , "v":[[7,8],[9,10]]}]}`, three, `2 rows; v [2 2 2] [1 2 3 4 7 8 9 10]; n [2 1] [5 6]`},
		{`{"instances":[1,2,NaN,Infinity,-Infinity]}`, flat, `5 rows; v [5] [1 2 NaN +Inf -Inf]`},
		{`{"instances":[{"v":-Infinity},{"v":NaN},{"v":1e-3 }]}`, flat, `3 rows; v [3] [-Inf NaN 0.001]`},
		{`{"instances":[[[1,2,3],[4,5,6]]]}`, anySize, `1 rows; v [1 2 3] [1 2 3 4 5 6]`},
		{`{"inputs":[[1,2,3],[4,5,6]]}`, oneInput, `0; x [2 3] [1 2 3 4 5 6]`},
		{`{"inputs":{"x":[[1,2,3]]}}`, oneInput, `0; x [1 3] [1 2 3]`},
		{`{"inputs":{"n":[7,8],"x":[[1,2]]}}`, twoInputs, `0; x [1 2] [1 2]; n [2] [7 8]`},
		{`{"inputs":5.5}`, bare, `0; v [] [5.5]`},
		{`{"inputs":{"v":-Infinity}}`, bare, `0; v [] [-Inf]`},
		{`{"\u0069nputs":{"\u0078":[[1,2,3]]}}`, oneInput, `0; x [1 3] [1 2 3]`},
		{`{"inputs":[[1,2],[3,4]],"x":"\"]["}`, fixed, `0; v [2 2] [1 2 3 4]`},
	} {
		if err := r.Decode([]byte(c.body), c.in, nil); err != nil {
			t.Errorf("%s: %v", c.body, err)
		} else if got := shown(&r); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.body, got, c.want)
		}
	}
}

func TestServingNamesWhatIsWrong(t *testing.T) {
	deep := strings.Repeat("[", 100_000)
	strange := []inference.TensorInfo{tensor("v", inference.FP16, -1)}
	for _, c := range []struct {
		body string
		in   []inference.TensorInfo
		want string
	}{
		{``, oneInput, `body: empty, a JSON object is expected`},
		{`[[1,2,3]]`, oneInput, `body: '[' where '{' is expected (offset 0)`},
		{`{}`, oneInput, `body: neither "instances", a list of rows, nor "inputs", whole tensors`},
		{`{"instances":[[1,2,3]],"inputs":[[1,2,3]]}`, oneInput, `inputs: "instances" and "inputs" are two forms of a request, send one of them (offset 32)`},
		{`{"inputs":[[1,2,3]],"instances": []}`, oneInput, `instances: "instances" and "inputs" are two forms of a request, send one of them (offset 33)`},
		{`{"instances":[[1,2,3]],"instances":[[1,2,3]]}`, oneInput, `instances: given twice (offset 35)`},
		{`{"signature_name":"x","instances":[[1,2,3]]}`, oneInput, `signature_name: the model has no signature "x", only "serving_default" (offset 18)`},
		{`{"signature_name":1}`, oneInput, `signature_name: '1' where a string is expected (offset 18)`},
		{`{"instances":[[1,2,3]]`, oneInput, `body: the text ends where ',' or '}' is expected (offset 22)`},
		{`{"instances":[[1,2,3]]}}`, oneInput, `body: text after the end of the JSON object (offset 23)`},
		{`{"instances":[]}`, oneInput, `instances: empty, at least one instance is expected (offset 13)`},
		{`{"instances":{}}`, oneInput, `instances: '{' where a list of instances is expected (offset 13)`},
		{`{"instances":5}`, oneInput, `instances: '5' where a list of instances is expected (offset 13)`},
		{`{"instances":[[1,2,3],[4,5]]}`, oneInput, `instances[1]: 2 elements, the model takes 3 (offset 22)`},
		{`{"instances":[[1,2],[3,4]]}`, oneInput, `instances[0]: 2 elements, the model takes 3 (offset 14)`},
		{`{"instances":[1,2,3]}`, oneInput, `instances: the shape [3], the model takes [-1 3] (offset 13)`},
		{`{"instances":[[[1,2,3]]]}`, oneInput, `instances: more arrays in one another than in the shape [-1 3] that the model takes (offset 13)`},
		{`{"instances":[[1,2,3],4]}`, oneInput, `instances[1]: '4' where '[' is expected (offset 22)`},
		{`{"instances":[[1,2,3],{"x":[1,2,3]}]}`, oneInput, `instances[1]: '{' where '[' is expected (offset 22)`},
		{`{"instances":[{"x":[1,2,3]},[1,2,3]]}`, oneInput, `instances[1]: '[' where an object is expected (offset 28)`},
		{`{"instances":[[1,"2",3]]}`, oneInput, `instances[0][1]: '"' where a number is expected (offset 17)`},
		{`{"instances":[[1,{"b64":"AA=="},3]]}`, oneInput, `instances[0][1]: '{' where a number is expected (offset 17)`},
		{`{"instances":[[1,1e39,3]]}`, oneInput, `instances[0][1]: 1e39 does not fit FP32 (offset 17)`},
		{`{"instances":[[1,-Infinite,3]]}`, oneInput, `instances[0][1]: 'I' where a digit is expected (offset 18)`},
		{`{"instances":[[1,2,3],]}`, oneInput, `instances[1]: ']' where '[' is expected (offset 22)`},
		{`{"instances":[{"x":[1,2,3]},]}`, oneInput, `instances[1]: ']' where an object is expected (offset 28)`},
		{`{"instances":[{"y":[1,2,3]}]}`, oneInput, `instances[0].y: the model has no input "y", only "x" (offset 19)`},
		{`{"instances":[{"x":[1,2,3],"x":[1,2,3]}]}`, oneInput, `instances[0].x: given twice (offset 31)`},
		{`{"instances":[{"b64":[1,2,3]}]}`, oneInput, `instances: the shape [1], the model takes [-1 3] (offset 13)`},
		{`{"instances":[{"x":[1,2],"n":7},{"x":[1,2]}]}`, twoInputs, `instances[1].n: missing (offset 32)`},
		{`{"instances":[{"x":[1,2]},{"x":[1,2],"n":7}]}`, twoInputs, `instances[0].n: missing (offset 14)`},
		{`{"instances":[{"x":[1,2],"n":7},{"x":[1],"n":7}]}`, twoInputs, `instances[1].x: 1 elements, the model takes 2 (offset 37)`},
		{`{"instances":[{"x":[1,2],"n":7.5}]}`, twoInputs, `instances[0].n: 7.5 is not written as an integer (offset 29)`},
		{`{"instances":[{"x":[1,2],"n":NaN}]}`, twoInputs, `instances[0].n: 'N' where an integer is expected (offset 29)`},
		{`{"instances":[{"x":[1,2],"n":[7]}]}`, twoInputs, `instances[0].n: more arrays in one another than in the shape [-1] that the model takes (offset 29)`},
		{`{"instances":[{"x":[1,2],"n":7},{"x":[1,2],"n":[7]}]}`, twoInputs, `instances[1].n: '[' where an integer is expected (offset 47)`},
		{`{"instances":[{"x":[1,2],"n":}]}`, twoInputs, `instances[0].n: '}' where a value is expected (offset 29)`},
		{`{"instances":[[1,2]]}`, twoInputs, `instances[0]: the model has 2 inputs: each instance is an object with a value for "x", "n" (offset 14)`},
		{`{"instances":[{"b64":"AA=="}]}`, twoInputs, `instances[0]: the model has 2 inputs: each instance is an object with a value for "x", "n" (offset 14)`},
		{`{"inputs":[[1,2]]}`, twoInputs, `inputs: the model has 2 inputs: an object with a value for "x", "n" is expected (offset 10)`},
		{`{"inputs":{"x":[[1,2]]}}`, twoInputs, `inputs.n: missing (offset 10)`},
		{`{"inputs":{"x":[[1,2]],"z":1}}`, twoInputs, `inputs.z: the model has no input "z", only "x", "n" (offset 27)`},
		{`{"inputs":{"x":[[1,2],[3]],"n":[1]}}`, twoInputs, `inputs.x[1]: 1 elements, the model takes 2 (offset 22)`},
		{`{"inputs":[[1,2,3]`, oneInput, `inputs: the text ends where ',' or ']' is expected (offset 18)`},
		{`{"inputs":[]}`, oneInput, `inputs: the shape [0], the model takes [-1 3] (offset 10)`},
		{`{"inputs":[[]]}`, oneInput, `inputs: the shape [1 0], of which a size is 0 (offset 10)`},
		{`{"inputs":[1,2]}`, bare, `inputs: more arrays in one another than in the shape [] that the model takes (offset 10)`},
		{`{"inputs":"a"}`, bare, `inputs: '"' where a number is expected (offset 10)`},
		{`{"inputs":[[1,2],[3,4],[5,6]]}`, fixed, `inputs: 3 elements, the model takes 2 (offset 10)`},
		{`{"instances":[{"v":[1,2]}]}`, fixed, `instances[0].v: 1 instances, the model takes 2 (offset 19)`},
		{`{"inputs":[[[1],[2]],[[3],[4,5]]]}`, anySize, `inputs[1][1]: 2 elements, the first array beside it has 1 (offset 26)`},
		{`{"inputs":[[[1],[2]],[[3]]]}`, anySize, `inputs[1]: 1 elements, the first array beside it has 2 (offset 21)`},
		{`{"instances":` + deep, oneInput, `instances: more arrays in one another than in the shape [-1 3] that the model takes (offset 13)`},
		{`{"x":` + deep, oneInput, `x: nested deeper than 64 levels (offset 68)`},
		{`{"instances":[[` + strings.Repeat("1,", 1000) + `1],` + strings.Repeat("[],", 10_000) + `[]]}`, oneInput, `instances[0]: 1001 elements, the model takes 3 (offset 14)`},
		{"{\"instances\":[[1,\xff,3]]}", oneInput, `instances[0][1]: invalid UTF-8 where a number is expected (offset 17)`},
		{"{\"\xff\":1}", oneInput, `body: invalid UTF-8 in a string (offset 2)`},
		{`{"inputs":[1]}`, strange, `inputs: the model takes FP16 here, which is not supported in JSON (offset 10)`},
	} {
		var r ServingRequest
		err := r.Decode([]byte(c.body), c.in, nil)
		var e *Error
		if !errors.As(err, &e) || e.Error() != c.want {
			t.Errorf("%.100s\n got %v\nwant %s", c.body, err, c.want)
		}
	}
	var r ServingRequest
	if err := r.Decode([]byte(`{"inputs":[[1,2,3]]}`), oneInput, strange); err == nil || err.Error() != `body: output "v" has the datatype FP16, which is not supported in JSON` {
		t.Errorf("an output that cannot be sent: %v", err)
	}
}

// TestServingTakesNoMemoryInAdvance: a body whose first row is long and whose others are
// empty has not as many elements as rows times the first row's.
func TestServingTakesNoMemoryInAdvance(t *testing.T) {
	body := []byte(`{"instances":[[[` + strings.Repeat("1,", 20_000) + `1]],` + strings.Repeat("[],", 20_000) + `[]]}`)
	var r ServingRequest
	err := r.Decode(body, anySize, nil)
	if want := `instances[1]: 0 elements, the first array beside it has 1 (offset 40020)`; err == nil || err.Error() != want || len(r.Inputs[0].Raw()) != 0 {
		t.Errorf("%v, %d bytes", err, len(r.Inputs[0].Raw()))
	}
}

func TestServingManyInstances(t *testing.T) {
	var r ServingRequest
	rows := strings.Repeat("[1,2,3],", 10_000)
	if err := r.Decode([]byte(`{"instances":[`+rows[:len(rows)-1]+`]}`), oneInput, nil); err != nil || r.Rows != 10_000 || len(r.Inputs[0].Float32s()) != 30_000 {
		t.Errorf("%d rows, %v", r.Rows, err)
	}
}

func TestServingBytes(t *testing.T) {
	for text, want := range map[string]string{
		`{"b64":"aGk="}`: "hi", `{ "b64" : "\u0061Gk=" }`: "hi", `{"b64":""}`: "",
		`{"b64":"a"}`:             `b64: no base64 (RFC 4648, section 4): illegal base64 data at input byte 0 (offset 7)`,
		`{"b64":"!!!!"}`:          `b64: no base64 (RFC 4648, section 4): illegal base64 data at input byte 0 (offset 7)`,
		`{"b64":5}`:               `b64: '5' where a string is expected (offset 7)`,
		`{"b65":""}`:              `b65: unknown, only "b64" is known here (offset 7)`,
		`{"b64":"aGk=","b64":""}`: `body: ',' where '}' is expected (offset 13)`,
	} {
		r := ServingRequest{s: scanner{b: []byte(text)}}
		got, ok := r.bytes()
		if ok && string(got) != want || !ok && r.s.err.Error() != want {
			t.Errorf("%s: %q, %v", text, got, r.s.err)
		}
	}
}

func TestServingResponse(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	label, scores, one := floats("label", []int64{2}, 1, 2), floats("scores", []int64{2, 2}, 0.5, nan, inf, -inf), floats("y", []int64{}, 3)
	for _, c := range []struct {
		rows int
		out  []inference.Tensor
		want string
	}{
		{2, []inference.Tensor{label}, `{"predictions":[1,2]}`},
		{2, []inference.Tensor{scores}, `{"predictions":[[0.5,NaN],[Infinity,-Infinity]]}`},
		{2, []inference.Tensor{label, scores}, `{"predictions":[{"label":1,"scores":[0.5,NaN]},{"label":2,"scores":[Infinity,-Infinity]}]}`},
		{0, []inference.Tensor{label}, `{"outputs":[1,2]}`},
		{0, []inference.Tensor{one}, `{"outputs":3}`},
		{0, []inference.Tensor{scores, one}, `{"outputs":{"scores":[[0.5,NaN],[Infinity,-Infinity]],"y":3}}`},
		{0, []inference.Tensor{floats(`a"`, []int64{2, 0}), floats("v", []int64{1, 2, 2}, 1, 2, 3, 4)}, `{"outputs":{"a\"":[[],[]],"v":[[[1,2],[3,4]]]}}`},
		{3, []inference.Tensor{label}, `instances: output "label" has the shape [2], which is not a row for each of 3 instances; send "inputs" to get whole tensors`},
		{1, []inference.Tensor{one}, `instances: output "y" has the shape [], which is not a row for each of 1 instances; send "inputs" to get whole tensors`},
	} {
		r := ServingRequest{Rows: c.rows, HasRows: c.rows > 0}
		b, err := r.AppendResponse(nil, c.out)
		if err == nil && string(b) != c.want || err != nil && err.Error() != c.want {
			t.Errorf("%s, %v\nwant %s", b, err, c.want)
		}
	}
}

// floats returns a tensor.
func floats(name string, shape []int64, v ...float32) inference.Tensor {
	t := inference.Tensor{Name: name}
	if err := t.Reset(inference.FP32, shape); err != nil {
		panic(err)
	}
	copy(t.Float32s(), v)
	return t
}

// TestServingNoAllocations: with memory from an earlier request, neither a request nor its
// answer costs any.
func TestServingNoAllocations(t *testing.T) {
	var r ServingRequest
	var dst []byte
	out := []inference.Tensor{floats("label", []int64{2}, 1, 2), floats("scores", []int64{2, 2}, 1, 2, 3, 4)}
	for _, c := range []struct {
		body string
		in   []inference.TensorInfo
	}{
		{`{"instances":[[1,2,3],[4,NaN,0.25]]}`, oneInput},
		{`{"instances":[{"x":[1,2],"n":7},{"x":[3,4],"n":8}]}`, twoInputs},
		{`{"inputs":{"x":[[1,2],[3,4]],"n":[7]}}`, twoInputs},
	} {
		body := []byte(c.body)
		if n := testing.AllocsPerRun(100, func() {
			err := r.Decode(body, c.in, nil)
			if err == nil {
				dst, err = r.AppendResponse(dst[:0], out)
			}
			if err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", c.body, n)
		}
	}
}

// FuzzServing checks that what is accepted, and is JSON, has the values that encoding/json
// finds, in the shape of their nesting.
func FuzzServing(f *testing.F) {
	addSeeds(f)
	for _, s := range []string{
		`{"instances":[[1,2,3],[4,5,6]]}`, `{"inputs":[[1,2,3]]}`, `{"inputs":{"x":[[1,2]],"n":[7]},"signature_name":"serving_default"}`,
		`{"instances":[{"x":[1,-2.5],"n":7},{"n":9,"x":[NaN,3]}]}`, `{"instances":[{"b64":"aGk="}],"y":"]"}`, `{"inputs":[[[1,2],[3,4]]]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, in := range [][]inference.TensorInfo{oneInput, twoInputs, anySize, flat, bare} {
			var r ServingRequest
			if err := r.Decode(body, in, nil); err != nil {
				checkError(t, body, err)
				continue
			}
			object, _, ok := unmarshal(body)
			if !ok { // NaN, then
				if !strings.Contains(string(body), "NaN") && !strings.Contains(string(body), "Infinity") {
					t.Errorf("%q is accepted and is no JSON", body)
				}
				continue
			}
			for i := range in {
				checkColumn(t, body, &r, object, i, len(in))
			}
		}
	})
}

// checkColumn compares input i of count with what encoding/json read.
func checkColumn(t *testing.T, body []byte, r *ServingRequest, object map[string]any, i, count int) {
	t.Helper()
	got := &r.Inputs[i]
	var value any
	if r.HasRows {
		rows, _ := object["instances"].([]any)
		var list []any
		for _, row := range rows {
			if named, ok := row.(map[string]any); ok {
				row = named[got.Name]
			}
			list = append(list, row)
		}
		if value = list; len(list) != r.Rows {
			t.Fatalf("%q: %d rows, want %d", body, r.Rows, len(list))
		}
	} else if value = object["inputs"]; count > 1 || isNamed(value) {
		value = value.(map[string]any)[got.Name]
	}
	want, ok := flatten(nil, value)
	if !ok || !slices.Equal(nesting(value), got.Shape) {
		t.Fatalf("%q is accepted for %s with the shape %v", body, got.Name, got.Shape)
	}
	sameNumbers(t, body, got, want)
}

func isNamed(v any) bool {
	_, ok := v.(map[string]any)
	return ok
}

// nesting is the shape of a value, if it has one.
func nesting(v any) (shape []int64) {
	shape = []int64{}
	for {
		list, ok := v.([]any)
		if !ok {
			return shape
		}
		if shape = append(shape, int64(len(list))); len(list) == 0 {
			return shape
		}
		v = list[0]
	}
}
