package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"preforkd/internal/inference"
)

// every has elements of each type: as JSON, as the client sends and gets it, and in binary
// form.
var every = []struct {
	dt     inference.DataType
	json   string
	n      int64
	binary []byte
}{
	{inference.Bool, "true,false", 2, []byte{1, 0}},
	{inference.Uint8, "0,255", 2, []byte{0, 255}},
	{inference.Uint16, "0,65535", 2, []byte{0, 0, 255, 255}},
	{inference.Uint32, "1,4294967295", 2, []byte{1, 0, 0, 0, 255, 255, 255, 255}},
	{inference.Uint64, "12345678,18446744073709551615,18446744073709551614", 3, words(12345678, math.MaxUint64, math.MaxUint64-1)},
	{inference.Int8, "-128,127,-0,5", 4, []byte{128, 127, 0, 5}},
	{inference.Int16, "-32768,32767", 2, []byte{0, 128, 255, 127}},
	{inference.Int32, "-2147483648,2147483647", 2, []byte{0, 0, 0, 128, 255, 255, 255, 127}},
	{inference.Int64, "-9223372036854775808,9223372036854775807", 2, words(1<<63, math.MaxInt64)},
	{inference.FP32, "0.1,-3.4028235e+38,1e-45", 3, []byte{0xcd, 0xcc, 0xcc, 0x3d, 0xff, 0xff, 0x7f, 0xff, 1, 0, 0, 0}},
	{inference.FP64, "0.1,-1.7976931348623157e+308,5e-324", 3, words(math.Float64bits(0.1), math.Float64bits(-math.MaxFloat64), 1)},
	{inference.Bytes, `"a","","h\u00e4\u0000\"😀"`, 3, []byte("\x01\x00\x00\x00a\x00\x00\x00\x00\x09\x00\x00\x00hä\x00\"😀")},
	{inference.FP16, "", 2, []byte{0, 0x3c, 0, 0xc0}},
	{inference.BF16, "", 2, []byte{0x80, 0x3f, 0, 0xc0}},
}

func words(v ...uint64) (b []byte) {
	for _, w := range v {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// echo decodes body for a model whose only output is its only input, and answers.
func echo(t *testing.T, r *InferRequest, body []byte, header int, info []inference.TensorInfo) (answer []byte, length int) {
	t.Helper()
	if err := r.DecodeBinary(body, header, info, info); err != nil {
		t.Fatalf("%.200q: %v", body, err)
	}
	answer, length, err := r.AppendResponse(nil, "m", "1", r.Inputs)
	if err != nil {
		t.Fatal(err)
	}
	return answer, length
}

// TestEveryTypeBothWays sends each type as JSON and in binary form, and asks for both.
func TestEveryTypeBothWays(t *testing.T) {
	var r InferRequest
	for _, c := range every {
		info := []inference.TensorInfo{tensor("x", c.dt, -1)}
		head := fmt.Sprintf(`{"model_name":"m","model_version":"1","outputs":[{"name":"x","datatype":"%s","shape":[%d],`, c.dt, c.n)
		wantJSON := head + `"data":[` + strings.NewReplacer("-0", "0", `\u00e4`, "ä").Replace(c.json) + `]}]}`
		wantHead := head + fmt.Sprintf(`"parameters":{"binary_data_size":%d}}]}`, len(c.binary))
		for _, asJSON := range []bool{true, false} {
			input := fmt.Sprintf(`"inputs":[{"name":"x","shape":[%d],"datatype":"%s","parameters":{"binary_data_size":%d}}]}`, c.n, c.dt, len(c.binary))
			data := c.binary
			if asJSON {
				input = fmt.Sprintf(`"inputs":[{"name":"x","shape":[%d],"datatype":"%s","data":[%s]}]}`, c.n, c.dt, c.json)
				data = nil
			}
			if asJSON && c.json == "" {
				err := r.Decode([]byte("{"+input), info, info)
				if want := fmt.Sprintf("receiving %s data via JSON is not supported. Please use the binary data format for input x", c.dt); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v", c.dt, err)
				}
				continue
			}
			for _, outputs := range []string{`"parameters":{"binary_data_output":true},`, `"outputs":[{"name":"x","parameters":{"binary_data":true}}],`} {
				request := "{" + outputs + input
				answer, length := echo(t, &r, append([]byte(request), data...), len(request), info)
				if string(answer[:length]) != wantHead || !bytes.Equal(answer[length:], c.binary) {
					t.Errorf("%s, JSON %v:\n got %q\nwant %q%q", c.dt, asJSON, answer, wantHead, c.binary)
				}
			}
			request := "{" + input
			if c.json == "" {
				err := r.DecodeBinary(append([]byte(request), data...), len(request), info, info)
				if want := fmt.Sprintf("sending %s data via JSON is not supported. Please use the binary data format for output x", c.dt); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v", c.dt, err)
				}
				continue
			}
			answer, length := echo(t, &r, append([]byte(request), data...), len(request), info)
			if string(answer) != wantJSON || length != 0 {
				t.Errorf("%s, JSON %v:\n got %q\nwant %q", c.dt, asJSON, answer, wantJSON)
			}
		}
	}
}

// TestElementsThatAreRefused names the element and the type.
func TestElementsThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		dt   inference.DataType
		data string
		want string
	}{
		{inference.Bool, "2", "2 is no BOOL: true, false, 1 and 0 are"},
		{inference.Bool, "-1", "-1 is no BOOL"},
		{inference.Bool, "1.0", "1.0 is no BOOL"},
		{inference.Bool, "tru", "'t' where a value is expected"},
		{inference.Bool, `"true"`, "'\"' where true or false is expected"},
		{inference.Uint8, "256", "256 does not fit UINT8"},
		{inference.Uint8, "-1", "-1 does not fit UINT8"},
		{inference.Uint8, "1.5", "1.5 is not written as an integer"},
		{inference.Uint16, "65536", "65536 does not fit UINT16"},
		{inference.Uint32, "4294967296", "4294967296 does not fit UINT32"},
		{inference.Uint64, "18446744073709551616", "18446744073709551616 does not fit UINT64"},
		{inference.Uint64, "99999999999999999999", "99999999999999999999 does not fit UINT64"},
		{inference.Uint64, "20000000000000000000", "20000000000000000000 does not fit UINT64"},
		{inference.Uint64, "36893488147419103232", "36893488147419103232 does not fit UINT64"},
		{inference.Uint64, "184467440737095516150", "184467440737095516150 does not fit UINT64"},
		{inference.Uint64, "-1", "-1 does not fit UINT64"},
		{inference.Int8, "128", "128 does not fit INT8"},
		{inference.Int8, "-129", "-129 does not fit INT8"},
		{inference.Int16, "-32769", "-32769 does not fit INT16"},
		{inference.Int32, "2147483648", "2147483648 does not fit INT32"},
		{inference.Int32, "1e2", "1e2 is not written as an integer"},
		{inference.Int64, "10000000000000000000", "10000000000000000000 does not fit INT64"},
		{inference.Int64, "12345678901234567890123", "does not fit INT64"},
		{inference.FP32, "true", "'t' where a number is expected"},
		{inference.FP64, "1e309", "1e309 does not fit FP64"},
		{inference.FP64, "NaN", "'N' where a number is expected"},
		{inference.Bytes, "1", "'1' where a string is expected"},
		{inference.Bytes, `"` + "\xff" + `"`, "invalid UTF-8 in a string"},
		{inference.Bytes, `"\ud800"`, "half of a surrogate pair"},
	} {
		// Where runs of plain numbers are read, and where they are not.
		for _, data := range []string{c.data, c.data + ",1", "[[" + c.data + "]]"} {
			var r InferRequest
			info := []inference.TensorInfo{tensor("x", c.dt, -1)}
			err := r.Decode([]byte(`{"inputs":[{"name":"x","shape":[1],"datatype":"`+c.dt.String()+`","data":[`+data+`]}]}`), info, info)
			if err == nil || !strings.HasPrefix(err.Error(), "inputs[0].data[0]: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s: %v; want %s", c.dt, data, err, c.want)
			}
		}
	}
}

// TestOutputsThatJSONCannotCarry says which element it is.
func TestOutputsThatJSONCannotCarry(t *testing.T) {
	for _, c := range []struct {
		dt   inference.DataType
		data []byte
		want string
	}{
		{inference.Bytes, []byte("\x01\x00\x00\x00a\x01\x00\x00\x00\xff"), `output "x": element 1 is not UTF-8, which JSON cannot carry: ask for binary_data`},
		{inference.FP64, words(0, math.Float64bits(math.NaN())), `output "x": element 1 is not a finite number, which JSON cannot carry`},
	} {
		var r InferRequest
		info := []inference.TensorInfo{tensor("x", c.dt, -1)}
		head := fmt.Sprintf(`{"inputs":[{"name":"x","shape":[2],"datatype":"%s","parameters":{"binary_data_size":%d}}]}`, c.dt, len(c.data))
		if err := r.DecodeBinary(append([]byte(head), c.data...), len(head), info, info); err != nil {
			t.Fatal(err)
		}
		var e *OutputError
		if _, _, err := r.AppendResponse(nil, "m", "1", r.Inputs); !errors.As(err, &e) || e.Error() != c.want {
			t.Errorf("%v; want %s", err, c.want)
		}
	}
}

// TestRunsEqualSingles: elements have the values that they have alone, however they are
// separated.
func TestRunsEqualSingles(t *testing.T) {
	numbers := []string{
		"0", "-0", "1", "-1", "0.5", "-12.25", "1e3", "1E-3", "123456789", "12345678", "1234567", "0.12345678", "0.123456789012345678",
		"9007199254740993", "1234567890123456789", "12345678901234567890", "0.00000000000000000001", "1.00000005960464477539062", "3.4e38", "16777217",
		"100000000.00000001", "1234567812345678.5", "0.30000000000000004",
	}
	for _, separator := range []string{",", ", ", " ,", ",\n  ", ",[", ", ["} {
		text, end := "", ""
		for i, n := range numbers {
			if i > 0 {
				text += separator
			}
			if text += n; strings.HasSuffix(separator, "[") && i > 0 {
				text += "]"
			}
		}
		for _, dt := range []inference.DataType{inference.FP32, inference.FP64} {
			var r InferRequest
			info := []inference.TensorInfo{tensor("x", dt, -1)}
			if err := r.Decode([]byte(fmt.Sprintf(`{"inputs":[{"name":"x","shape":[%d],"datatype":"%s","data":[%s%s]}]}`, len(numbers), dt, text, end)), info, info); err != nil {
				t.Errorf("%q: %v", separator, err)
				continue
			}
			for i, n := range numbers {
				s := scanner{b: []byte(n + "]")}
				if dt == inference.FP32 {
					if want, _ := s.float32(); math.Float32bits(want) != math.Float32bits(r.Inputs[0].Float32s()[i]) {
						t.Errorf("%q: %s is %v, want %v", separator, n, r.Inputs[0].Float32s()[i], want)
					}
				} else if want, _ := s.float64(); math.Float64bits(want) != math.Float64bits(inference.View[float64](&r.Inputs[0])[i]) {
					t.Errorf("%q: %s is %v, want %v", separator, n, inference.View[float64](&r.Inputs[0])[i], want)
				}
			}
		}
	}
}

// TestOptionalInputs: one that is left out has no type.
func TestOptionalInputs(t *testing.T) {
	info := slices.Clone(inputs)
	info[1].Optional = true
	var r InferRequest
	for range 2 {
		if err := r.Decode([]byte(`{"inputs":[`+inputX+`,`+inputN+`]}`), info, outputs); err != nil || r.Inputs[1].DataType != inference.Int64 {
			t.Errorf("given: %v, %v", err, r.Inputs[1].DataType)
		}
		if err := r.Decode([]byte(`{"inputs":[`+inputX+`]}`), info, outputs); err != nil || r.Inputs[1].DataType != inference.Invalid {
			t.Errorf("left out: %v, %v", err, r.Inputs[1].DataType)
		}
	}
	any := []inference.TensorInfo{{Name: "x", DataType: inference.FP32, AnyShape: true}}
	for _, shape := range []string{"[]", "[1]", "[1,1,1]"} {
		if err := r.Decode([]byte(`{"inputs":[{"name":"x","shape":`+shape+`,"datatype":"FP32","data":[1]}]}`), any, any); err != nil {
			t.Errorf("any shape, %s: %v", shape, err)
		}
	}
}
