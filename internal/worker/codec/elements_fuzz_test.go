package codec

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"testing"

	"preforkd/internal/inference"
)

// FuzzElements compares what is read as the data of each type with encoding/json and
// strconv: what is accepted, and every value.
func FuzzElements(f *testing.F) {
	for i, c := range every {
		if c.json != "" {
			f.Add([]byte("["+c.json+"]"), uint8(i))
			f.Add([]byte("[["+c.json+"], [ ], "+c.json+"]"), uint8(i))
		}
	}
	f.Add([]byte("[1,2, 3,0.5,-1e3,12345678.12345678,1]"), uint8(9))
	f.Fuzz(func(t *testing.T, data []byte, which uint8) {
		dt := every[int(which)%len(every)].dt
		if dt == inference.FP16 || dt == inference.BF16 {
			return
		}
		var v any
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		isJSON := json.Valid(data) && d.Decode(&v) == nil
		list, isList := v.([]any)
		want, n, good := wantElements(nil, 0, list, dt)
		good = good && isJSON && isList
		info := []inference.TensorInfo{tensor("x", dt, -1)}
		body := fmt.Appendf(nil, `{"inputs":[{"name":"x","shape":[%d],"datatype":"%s","data":%s}]}`, n, dt, data)
		var r InferRequest
		err := r.Decode(body, info, info)
		switch {
		case err == nil && !good:
			t.Errorf("%s: %q is accepted", dt, data)
		case err == nil:
			if got := appendBinary(nil, &r.Inputs[0]); !bytes.Equal(got, want) {
				t.Errorf("%s: %q is read as % x, want % x", dt, data, got, want)
			}
		default:
			checkError(t, body, err)
			if good && !stricter(body, err) {
				t.Errorf("%s: %q is refused: %v", dt, data, err)
			}
		}
	})
}

// wantElements appends the elements in list in binary form, and counts them.
func wantElements(b []byte, n int, list []any, dt inference.DataType) ([]byte, int, bool) {
	for _, v := range list {
		if inner, nested := v.([]any); nested {
			var ok bool
			if b, n, ok = wantElements(b, n, inner, dt); !ok {
				return b, n, false
			}
			continue
		}
		n++
		var err error
		switch v := v.(type) {
		case bool:
			if dt != inference.Bool {
				return b, n, false
			}
			b, err = binary.Append(b, binary.LittleEndian, v)
		case string:
			if dt != inference.Bytes {
				return b, n, false
			}
			b = append(binary.LittleEndian.AppendUint32(b, uint32(len(v))), v...)
		case json.Number:
			b, err = wantNumber(b, string(v), dt)
		default:
			return b, n, false
		}
		if err != nil {
			return b, n, false
		}
	}
	return b, n, true
}

func wantNumber(b []byte, text string, dt inference.DataType) ([]byte, error) {
	bits := 8 * dt.Size()
	switch dt {
	case inference.Bytes:
		return b, strconv.ErrSyntax
	case inference.Bool:
		if text != "0" && text != "1" {
			return b, strconv.ErrSyntax
		}
		return append(b, text[0]-'0'), nil
	case inference.FP32:
		v, err := strconv.ParseFloat(text, 32)
		return binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(v))), err
	case inference.FP64:
		v, err := strconv.ParseFloat(text, 64)
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(v)), err
	case inference.Uint8, inference.Uint16, inference.Uint32, inference.Uint64:
		if text == "-0" {
			text = "0"
		}
		v, err := strconv.ParseUint(text, 10, bits)
		return append(b, binary.LittleEndian.AppendUint64(nil, v)[:dt.Size()]...), err
	}
	v, err := strconv.ParseInt(text, 10, bits)
	return append(b, binary.LittleEndian.AppendUint64(nil, uint64(v))[:dt.Size()]...), err
}
