package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"preforkd/internal/inference"
)

// seeds are bodies that lead fuzzing to every part of the decoders; testdata/fuzz has
// those that it found by itself.
var seeds = []string{
	`{"inputs":[` + inputX + `,` + inputN + `]}`,
	`{"id":"\ud83d\ude00\n","parameters":{"a":1.5e-3},"outputs":[{"name":"label","parameters":{}}],"inputs":[{"data":[[1],[2,3]],"shape":[1,3],"datatype":"FP32","name":"x"},` + inputN + `]}`,
	`{"features":[1,2,3]}`, `{"features":[[1,-2.5,3e2],[0.1,5,6]]}`, `{"features":[[1,2,3],[4,5,[6]]],"x":[[],{}]}`,
	`{"features":[1,2,1.00000005960464477539062]}`, `{"features":[9007199254740993,1e-45,3.4028235e38]}`,
	`[{"a":"\u00e9é\\\/"},[true,false,null,-0,1.0E+5]]`, "\xef\xbb\xbf{}", `{"a":1} `, `{"a":"\ud800"}`, "{\"\xff\":0}",
}

func addSeeds(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
}

// FuzzSyntax compares what passes for JSON with encoding/json.
func FuzzSyntax(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		var s scanner
		ok := s.start(body) && s.skip(0) && s.end()
		if ok != (s.err == nil) {
			t.Fatalf("ok is %v with the error %v", ok, s.err)
		}
		if ok && !json.Valid(body) {
			t.Errorf("%q is accepted and is no JSON", body)
		}
		if !ok {
			checkError(t, body, s.err)
		}
		if !ok && json.Valid(body) && !stricter(body, s.err) {
			t.Errorf("%q is JSON and is refused: %v", body, s.err)
		}
	})
}

// checkError checks that err is fit to be sent.
func checkError(t *testing.T, body []byte, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Field == "" || e.Text == "" || e.Offset < -1 || e.Offset > len(body) {
		t.Errorf("%q: the error is %#v", body, err)
	}
	if answer := AppendError(nil, err.Error()); !json.Valid(answer) || !utf8.Valid(answer) {
		t.Errorf("%q: the answer is %q", body, answer)
	}
	if answer := AppendDetail(nil, body, e); !json.Valid(answer) || !utf8.Valid(answer) {
		t.Errorf("%q: the answer is %q", body, answer)
	}
}

var surrogate = regexp.MustCompile(`\\u[dD][89a-fA-F]`)

// stricter tells whether valid JSON is refused for a reason that doc.go lists.
func stricter(body []byte, err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch {
	case strings.Contains(e.Text, "invalid UTF-8"):
		return !utf8.Valid(body)
	case strings.Contains(e.Text, "surrogate"):
		return surrogate.Match(body[e.Offset:])
	case strings.Contains(e.Text, "hexadecimal"): // of the second half of a pair
		return surrogate.Match(body)
	case strings.Contains(e.Text, "nested deeper"):
		return depth(body) > maxDepth
	}
	return false
}

// depth is how many arrays and objects lie in one another.
func depth(body []byte) (deepest int) {
	d, open := json.NewDecoder(bytes.NewReader(body)), 0
	for {
		tok, err := d.Token()
		if err != nil {
			return deepest
		}
		switch tok {
		case json.Delim('['), json.Delim('{'):
			open++
			deepest = max(deepest, open)
		case json.Delim(']'), json.Delim('}'):
			open--
		}
	}
}

// flatten appends the numbers in a value of encoding/json; ok is false if there is
// anything else in it.
func flatten(list []json.Number, v any) (_ []json.Number, ok bool) {
	switch v := v.(type) {
	case json.Number:
		return append(list, v), true
	case []any:
		for _, e := range v {
			if list, ok = flatten(list, e); !ok {
				return list, false
			}
		}
		return list, true
	}
	return list, false
}

// sameNumbers compares a tensor with the texts that it was read from.
func sameNumbers(t *testing.T, body []byte, got *inference.Tensor, want []json.Number) {
	t.Helper()
	if count(got) != len(want) {
		t.Fatalf("%q: %d elements, want %d", body, count(got), len(want))
	}
	for i, text := range want {
		if got.DataType == inference.Int64 {
			if v, err := strconv.ParseInt(string(text), 10, 64); err != nil || v != got.Int64s()[i] {
				t.Errorf("%q: element %d is %d, the text says %s", body, i, got.Int64s()[i], text)
			}
			continue
		}
		v, err := strconv.ParseFloat(string(text), 32)
		if err != nil || math.Float32bits(float32(v)) != math.Float32bits(got.Float32s()[i]) {
			t.Errorf("%q: element %d is %g, the text says %s", body, i, got.Float32s()[i], text)
		}
	}
}

// unmarshal is encoding/json's view of an object, its numbers as texts. Keys that occur
// twice are counted, for encoding/json takes the last.
func unmarshal(body []byte) (object map[string]any, keys map[string]int, ok bool) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if d.Decode(&object) != nil || object == nil {
		return nil, nil, false
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, nil, false
	}
	keys = make(map[string]int)
	d = json.NewDecoder(bytes.NewReader(body))
	if _, err := d.Token(); err != nil {
		return nil, nil, false
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, nil, false
		}
		var skip json.RawMessage
		if d.Decode(&skip) != nil {
			return nil, nil, false
		}
		keys[key.(string)]++
	}
	return object, keys, true
}

// FuzzPredict compares the decoder of POST /predict with encoding/json and strconv:
// what is accepted, and every value.
func FuzzPredict(f *testing.F) {
	addSeeds(f)
	fixed, open := inputs[0], tensor("v", inference.Int64, -1, -1)
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, info := range []inference.TensorInfo{fixed, open} {
			row, err := info.Row()
			if err != nil {
				t.Fatal(err)
			}
			var r PredictRequest
			err = r.Decode(body, &info, row)
			object, keys, isObject := unmarshal(body)
			numbers, rows, good := wantRows(object["features"], row.Width, info.DataType)
			good = good && isObject && keys["features"] == 1
			switch {
			case err == nil && !good:
				t.Errorf("%q is accepted for %v", body, info.Shape)
			case err == nil:
				sameNumbers(t, body, &r.Inputs[0], numbers)
				if r.Rows != rows {
					t.Errorf("%q has %d rows, not %d", body, rows, r.Rows)
				}
			default:
				checkError(t, body, err)
				if good && !stricter(body, err) {
					t.Errorf("%q is refused for %v: %v", body, info.Shape, err)
				}
			}
		}
	})
}

// wantRows returns the numbers in features, and whether they are rows of width numbers
// (-1: of one length) that fit dt.
func wantRows(features any, width int, dt inference.DataType) (numbers []json.Number, rows int, ok bool) {
	list, _ := features.([]any)
	if len(list) == 0 {
		return nil, 0, false
	}
	if _, nested := list[0].([]any); !nested {
		list = []any{list}
	}
	for _, e := range list {
		r, _ := e.([]any)
		if width < 0 {
			width = len(r)
		}
		if len(r) != width || width == 0 {
			return nil, 0, false
		}
		for _, v := range r {
			text, isNumber := v.(json.Number)
			var err error
			if dt == inference.Int64 {
				_, err = strconv.ParseInt(string(text), 10, 64)
			} else {
				_, err = strconv.ParseFloat(string(text), 32)
			}
			if !isNumber || err != nil {
				return nil, 0, false
			}
			numbers = append(numbers, text)
		}
	}
	return numbers, len(list), true
}

// FuzzInfer checks that what is accepted is JSON, that every element is the one that
// encoding/json finds, and that the answer to it is JSON again.
func FuzzInfer(f *testing.F) {
	addSeeds(f)
	out := make([]inference.Tensor, 2)
	out[0].Name, out[1].Name = "label", "scores"
	if err := errors.Join(out[0].Reset(inference.Int64, []int64{1}), out[1].Reset(inference.FP32, []int64{1, 2})); err != nil {
		f.Fatal(err)
	}
	clear(out[0].Raw())
	clear(out[1].Raw())
	f.Fuzz(func(t *testing.T, body []byte) {
		var r InferRequest
		if err := r.Decode(body, inputs, outputs); err != nil {
			checkError(t, body, err)
			return
		}
		object, _, ok := unmarshal(body)
		if !ok {
			t.Fatalf("%q is accepted and is no object", body)
		}
		list, _ := object["inputs"].([]any)
		if len(list) != len(inputs) {
			t.Fatalf("%q is accepted with %d inputs", body, len(list))
		}
		for _, v := range list {
			in, _ := v.(map[string]any)
			got := &r.Inputs[0]
			if in["name"] == "n" {
				got = &r.Inputs[1]
			}
			want, ok := flatten(nil, in["data"])
			if in["data"] == nil { // binary data, of which there are none here
				ok = count(got) == 0
			}
			if !ok || in["datatype"] != got.DataType.String() || in["name"] != got.Name {
				t.Fatalf("%q is accepted with the input %v", body, in)
			}
			sameNumbers(t, body, got, want)
		}
		if id, _ := object["id"].(string); r.HasID != (object["id"] != nil) || id != string(r.ID) {
			t.Errorf("%q has the id %q", body, r.ID)
		}
		answer, header, err := r.AppendResponse(nil, "m", "1", out)
		if header > 0 {
			answer = answer[:header]
		}
		if err != nil || !json.Valid(answer) {
			t.Errorf("%q is answered with %q, %v", body, answer, err)
		}
	})
}

// FuzzString checks that any text survives in an answer.
func FuzzString(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var back string
		b := AppendString(nil, text)
		if err := json.Unmarshal(b, &back); err != nil || back != strings.ToValidUTF8(text, "\uFFFD") {
			t.Errorf("%q is written as %q and read as %q, %v", text, b, back, err)
		}
		s := scanner{b: b}
		if ours, ok := s.str(); !ok || string(ours) != back {
			t.Errorf("%q is written as %q and read as %q, %v", text, b, ours, s.err)
		}
	})
}
