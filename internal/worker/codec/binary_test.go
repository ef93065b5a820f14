package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"preforkd/internal/inference"
)

// mixed is a body of the protocol's own kind: an input as JSON, one in binary form.
func mixed(x string, n []byte, size int) (body []byte, header int) {
	text := fmt.Sprintf(`{"inputs":[{"name":"n","shape":[2],"datatype":"INT64","parameters":{"binary_data_size":%d}},%s],"outputs":[{"name":"scores","parameters":{"binary_data":true}},{"name":"label","parameters":{"binary_data":false}}]}`, size, x)
	return append([]byte(text), n...), len(text)
}

func TestMixedInputsAndOutputs(t *testing.T) {
	body, header := mixed(inputX, words(7, 8), 16)
	var r InferRequest
	if err := r.DecodeBinary(body, header, inputs, outputs); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.Inputs[0].Float32s(), []float32{1, 2, 3}) || !slices.Equal(r.Inputs[1].Int64s(), []int64{7, 8}) {
		t.Errorf("%v %v", r.Inputs[0].Float32s(), r.Inputs[1].Int64s())
	}
	label, scores := digitsOutputs(t)
	scores.Name = "scores"
	b, length, err := r.AppendResponse([]byte("before"), "m", "1", []inference.Tensor{*label, *scores})
	want := `{"model_name":"m","model_version":"1","outputs":[{"name":"scores","datatype":"FP32","shape":[1,10],"parameters":{"binary_data_size":40}},{"name":"label","datatype":"INT64","shape":[1],"data":[3]}]}`
	b = b[len("before"):]
	if err != nil || string(b[:length]) != want || !bytes.Equal(b[length:], scores.Raw()) {
		t.Errorf("%v\n got %q\nwant %q", err, b, want)
	}
}

// TestNothingBinaryIsJSON: outputs without elements leave no header behind.
func TestNothingBinaryIsJSON(t *testing.T) {
	info := []inference.TensorInfo{tensor("x", inference.FP32, -1)}
	var r InferRequest
	text := `{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":[0],"datatype":"FP32","parameters":{"binary_data_size":0}}]}`
	answer, length := echo(t, &r, []byte(text), len(text), info)
	if length != 0 || !strings.HasSuffix(string(answer), `"shape":[0],"parameters":{"binary_data_size":0}}]}`) {
		t.Errorf("%d %s", length, answer)
	}
}

// TestDefaultFormOfOutputs: an output's own parameter wins, wherever the request's stands.
func TestDefaultFormOfOutputs(t *testing.T) {
	for body, want := range map[string]string{
		`{"inputs":[` + inputX + `,` + inputN + `],"parameters":{"binary_data_output":true}}`:                                                                                   "BB",
		`{"inputs":[` + inputX + `,` + inputN + `],"parameters":{"binary_data_output":false}}`:                                                                                  "JJ",
		`{"outputs":[{"parameters":{"binary_data":false},"name":"label"},{"name":"scores"}],"inputs":[` + inputX + `,` + inputN + `],"parameters":{"binary_data_output":true}}`: "JB",
		`{"outputs":[{"name":"scores","parameters":{"binary_data":true}},{"name":"label"}],"inputs":[` + inputX + `,` + inputN + `]}`:                                           "BJ",
	} {
		r, err := decode(body)
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		got := ""
		for _, f := range r.forms {
			got += map[form]string{unsaid: "J", inJSON: "J", inBinary: "B"}[f]
		}
		if got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
}

func TestBinaryNamesWhatIsWrong(t *testing.T) {
	type request struct {
		body   []byte
		header int
		info   []inference.TensorInfo
	}
	texts := func(data string, shape ...int64) request {
		open := tensor("s", inference.Bytes, slices.Repeat([]int64{-1}, len(shape))...)
		list := strings.ReplaceAll(fmt.Sprint(shape), " ", ",")
		head := fmt.Sprintf(`{"inputs":[{"name":"s","shape":%s,"datatype":"BYTES","parameters":{"binary_data_size":%d}}]}`, list, len(data))
		return request{append([]byte(head), data...), len(head), []inference.TensorInfo{open}}
	}
	good, header := mixed(inputX, words(7, 8), 16)
	of := func(body []byte, header int) request { return request{body, header, inputs} }
	last := len(good)
	for want, c := range map[string]request{
		fmt.Sprintf("%s: inference header size should be in range (0, %d), got: -1", headerField, last):                                              of(good, -1),
		fmt.Sprintf("%s: inference header size should be in range (0, %d), got: %d", headerField, last, last+1):                                      of(good, last+1),
		`inputs[0].parameters.binary_data_size: unexpected size for input 'n', expecting 1 additional bytes (offset 87)`:                             of(good[:last-1], header),
		`inputs[0].parameters.binary_data_size: unexpected size for input 'n', expecting 16 additional bytes (offset 87)`:                            of(good[:header], header),
		fmt.Sprintf("body: unexpected additional input data: 1 bytes belong to no input (offset %d)", last):                                          of(append(slices.Clone(good), 0), header),
		fmt.Sprintf("outputs: the text ends where ',' or ']' is expected (offset %d)", header-2):                                                     of(good, header-2),
		fmt.Sprintf("body: text after the end of the JSON object (offset %d)", header):                                                               of(append(slices.Clone(good), "xx"...), header+1),
		`inputs[0].parameters.binary_data_size: 12 bytes, the shape [2] of INT64 has 16 (offset 87)`:                                                 of(mixed(inputX, words(7, 8), 12)),
		`inputs[0].parameters.binary_data_size: -1 is negative (offset 87)`:                                                                          of(mixed(inputX, words(7, 8), -1)),
		`inputs[1].data: given, and binary_data_size as well: an input is sent in one form (offset 92)`:                                              of(mixed(strings.Replace(inputX, `"data"`, `"parameters":{"binary_data_size":12},"data"`, 1), words(7, 8), 16)),
		`inputs[0].parameters.binary_data_size: 8 bytes cannot hold the 3 strings of the shape [3] (offset 87)`:                                      texts("\x00\x00\x00\x00\x00\x00\x00\x00", 3),
		`inputs[0].parameters.binary_data_size: 4 bytes cannot hold the 1152921504606846975 strings of the shape [1152921504606846975] (offset 105)`: texts("\x00\x00\x00\x00", 1152921504606846975),
		`inputs[0].parameters.binary_data_size: string 0 of input 's' is 5 bytes long, 1 are left (offset 92)`:                                       texts("\x05\x00\x00\x00a", 1),
		`inputs[0].parameters.binary_data_size: string 0 of input 's' is 4294967295 bytes long, 1 are left (offset 92)`:                              texts("\xff\xff\xff\xffa", 1),
		`inputs[0].parameters.binary_data_size: the data of input 's' ends before string 1 of 2 (offset 100)`:                                        texts("\x04\x00\x00\x00abcd", 2),
		`inputs[0].parameters.binary_data_size: 1 bytes of input 's' follow its last string (offset 96)`:                                             texts("\x00\x00\x00\x00x", 1),
		`inputs[0].shape: the number of elements overflows (offset 31)`:                                                                              texts("", 4294967296, 4294967296),
		headerField + `: 0 says that the whole body is the model's only input, but the model has more than one input`:                                of(words(1), 0),
	} {
		var r InferRequest
		err := r.DecodeBinary(c.body, c.header, c.info, outputs)
		var e *Error
		if !errors.As(err, &e) || e.Error() != want {
			t.Errorf("%.300q\n got %v\nwant %s", c.body, err, want)
		}
		if err := r.DecodeBinary(good, header, inputs, outputs); err != nil {
			t.Errorf("a good request afterwards: %v", err)
		}
	}
	for parameters, want := range map[string]string{
		`{"parameters":{"sequence_id":1}}`:                                         `parameters.sequence_id: sequences are not supported: send each request without it (offset 29)`,
		`{"parameters":{"sequence_start":true}}`:                                   `parameters.sequence_start: sequences are not supported: send each request without it (offset 32)`,
		`{"parameters":{"priority":-1}}`:                                           `parameters.priority: -1 is negative (offset 26)`,
		`{"parameters":{"priority":"a"}}`:                                          `parameters.priority: '"' where an integer is expected (offset 26)`,
		`{"parameters":{"timeout":1.5}}`:                                           `parameters.timeout: 1.5 is not written as an integer (offset 25)`,
		`{"parameters":{"binary_data_output":1}}`:                                  `parameters.binary_data_output: '1' where true or false is expected (offset 36)`,
		`{"parameters":{"binary_data_output":true,"binary_data_output":true}}`:     `parameters.binary_data_output: given twice (offset 62)`,
		`{"outputs":[{"name":"label","parameters":{"classification":3}}]}`:         `outputs[0].parameters.classification: classification is not supported: ask for the tensor and choose its largest values (offset 59)`,
		`{"outputs":[{"name":"label","parameters":{"shared_memory_region":"r"}}]}`: `outputs[0].parameters.shared_memory_region: shared memory is not supported: send the tensor's data (offset 65)`,
		`{"inputs":[{"name":"x","parameters":{"shared_memory_region":"r"}}]}`:      `inputs[0].parameters.shared_memory_region: shared memory is not supported: send the tensor's data (offset 60)`,
		`{"inputs":[` + strings.Repeat(`{"name":"x"},`, 10_000) + `]}`:             `inputs[0].shape: missing (offset 11)`,
		`{"inputs":[` + strings.Repeat(inputX+`,`, 10_000) + `]}`:                  `inputs[1].name: input "x" is given twice (offset 79)`,
	} {
		if _, err := decode(parameters); err == nil || err.Error() != want {
			t.Errorf("%.200s\n got %v\nwant %s", parameters, err, want)
		}
	}
}

// TestRawBody: the whole body is the only input, its shape follows from its length.
func TestRawBody(t *testing.T) {
	for _, c := range []struct {
		info  inference.TensorInfo
		bytes int
		want  []int64 // nil: refused
	}{
		{tensor("x", inference.FP32, -1, 3), 24, []int64{2, 3}},
		{tensor("x", inference.FP32, 1, 3), 12, []int64{1, 3}},
		{tensor("x", inference.FP32, 3), 12, []int64{3}},
		{tensor("x", inference.Uint8, -1, 2, -1), 8, []int64{1, 2, 4}},
		{tensor("x", inference.Uint8, 2, -1, 2), 8, []int64{2, 2, 2}},
		{tensor("x", inference.FP16), 2, []int64{}},
		{tensor("x", inference.FP32, -1, 3), 23, nil},
		{tensor("x", inference.FP32, -1, 3), 16, nil},
		{tensor("x", inference.FP32, 3), 16, nil},
		{tensor("x", inference.FP32, -1, -1, -1), 12, nil},
		{tensor("x", inference.FP32, 3, -1, -1), 12, nil},
		{tensor("x", inference.FP32, -1, 0), 12, nil},
		{tensor("x", inference.FP32, 1<<40, 1<<40), 12, nil},
		{inference.TensorInfo{Name: "x", DataType: inference.FP32, AnyShape: true}, 12, nil},
		{tensor("x", inference.Bytes, -1), 5, []int64{1}},
		{tensor("x", inference.Bytes, 1, 1), 5, []int64{1, 1}},
		{tensor("x", inference.Bytes, -1, -1), 5, []int64{1, 1}},
		{tensor("x", inference.Bytes, 2), 5, nil},
	} {
		body := bytes.Repeat([]byte("abcdefgh"), 10)[:c.bytes]
		var r InferRequest
		err := r.DecodeBinary(body, 0, []inference.TensorInfo{c.info, {Name: "o", DataType: inference.FP32, Optional: true}}, outputs)
		var e *Error
		switch {
		case c.want == nil && (!errors.As(err, &e) || e.Field != headerField):
			t.Errorf("%v %d: %v", c.info, c.bytes, err)
		case c.want == nil:
		case err != nil || !slices.Equal(r.Inputs[0].Shape, c.want) || len(r.Outputs) != 2 || r.forms[1] != inBinary:
			t.Errorf("%v %d: %v, %v, outputs %v", c.info, c.bytes, err, r.Inputs[0].Shape, r.Outputs)
		case c.info.DataType == inference.Bytes && string(r.Inputs[0].Text(0)) != string(body):
			t.Errorf("%q", r.Inputs[0].Text(0))
		case c.info.DataType != inference.Bytes && !bytes.Equal(r.Inputs[0].Raw(), body):
			t.Errorf("% x", r.Inputs[0].Raw())
		}
	}
	var r InferRequest
	if err := r.DecodeBinary(nil, 0, inputs[:1], outputs); err == nil || !strings.HasPrefix(err.Error(), "body: empty") {
		t.Errorf("an empty body: %v", err)
	}
}

// TestLargeInputsAreNotCopied, where they are aligned; and they are let go.
func TestLargeInputsAreNotCopied(t *testing.T) {
	info := []inference.TensorInfo{tensor("x", inference.FP32, -1)}
	for pad := range 4 {
		head := fmt.Sprintf(`{"inputs":[{"name":"x","shape":[%d],"datatype":"FP32","parameters":{"binary_data_size":%d}}]}`, borrowFrom/4, borrowFrom)
		head += strings.Repeat(" ", (pad+4-len(head)%4)%4)
		body := append([]byte(head), make([]byte, borrowFrom)...)
		var r InferRequest
		if err := r.DecodeBinary(body, len(head), info, info); err != nil {
			t.Fatal(err)
		}
		body[len(head)] = 7
		if got := r.Inputs[0].Raw()[0] == 7; got != (len(head)%4 == 0) {
			t.Errorf("after %d bytes of JSON: borrowed is %v", len(head), got)
		}
		r.Trim(1 << 20)
		if len(head)%4 == 0 && len(r.Inputs[0].Raw()) != 0 {
			t.Error("the body is kept")
		}
	}
}

// TestBinaryAllocatesNothing, nor do strings.
func TestBinaryAllocatesNothing(t *testing.T) {
	var r InferRequest
	var dst []byte
	for _, c := range every {
		info := []inference.TensorInfo{tensor("x", c.dt, -1)}
		head := fmt.Sprintf(`{"parameters":{"binary_data_output":true,"timeout":5},"inputs":[{"name":"x","shape":[%d],"datatype":"%s","parameters":{"binary_data_size":%d}}]}`, c.n, c.dt, len(c.binary))
		bodies := [][]byte{append([]byte(head), c.binary...)}
		headers := []int{len(head)}
		if c.json != "" && !strings.Contains(c.json, "e") && c.dt != inference.FP64 { // what strconv reads may cost
			text := fmt.Sprintf(`{"inputs":[{"name":"x","shape":[%d],"datatype":"%s","data":[%s]}]}`, c.n, c.dt, c.json)
			bodies, headers = append(bodies, []byte(text)), append(headers, len(text))
		}
		if n := testing.AllocsPerRun(100, func() {
			for i, body := range bodies {
				err := r.DecodeBinary(body, headers[i], info, info)
				if err == nil {
					dst, _, err = r.AppendResponse(dst[:0], "m", "1", r.Inputs)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", c.dt, n)
		}
	}
}

// FuzzBinary checks that whatever is accepted comes back as it was sent, for every type.
func FuzzBinary(f *testing.F) {
	for i, c := range every {
		head := fmt.Sprintf(`{"inputs":[{"name":"x","shape":[%d],"datatype":"%s","parameters":{"binary_data_size":%d}}]}`, c.n, c.dt, len(c.binary))
		f.Add(append([]byte(head), c.binary...), len(head), uint8(i))
		f.Add(c.binary, 0, uint8(i))
	}
	f.Fuzz(func(t *testing.T, body []byte, header int, which uint8) {
		dt := every[int(which)%len(every)].dt
		info := []inference.TensorInfo{tensor("x", dt, -1)}
		var r InferRequest
		if err := r.DecodeBinary(body, header, info, info); err != nil {
			checkError(t, body, err)
			return
		}
		n, err := inference.Elements(r.Inputs[0].Shape)
		if err != nil || int64(r.Inputs[0].Len()) != n {
			t.Fatalf("%q: %d elements of the shape %v, %v", body, r.Inputs[0].Len(), r.Inputs[0].Shape, err)
		}
		for i := range r.forms {
			r.forms[i] = inBinary
		}
		answer, length, err := r.AppendResponse(nil, "m", "1", r.Inputs)
		if err != nil {
			t.Fatal(err)
		}
		if length == 0 {
			length = len(answer)
		}
		if !json.Valid(answer[:length]) {
			t.Errorf("%q is answered with %q", body, answer)
		}
		sent := body[header:]
		if header == 0 && dt == inference.Bytes { // the bare string
			sent = appendBinary(nil, &r.Inputs[0])
		}
		if len(sent) > 0 && !bytes.Equal(answer[length:], sent) {
			t.Errorf("%q comes back as %q", sent, answer[length:])
		}
	})
}
