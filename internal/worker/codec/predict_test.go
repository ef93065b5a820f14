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

func decodePredict(t *testing.T, body string, info inference.TensorInfo) (*PredictRequest, error) {
	t.Helper()
	row, err := info.Row()
	if err != nil {
		t.Fatal(err)
	}
	var r PredictRequest
	return &r, r.Decode([]byte(body), &info, row)
}

func TestPredictDecodes(t *testing.T) {
	for _, c := range []struct {
		body  string
		input inference.TensorInfo
		shape []int64
		want  []float32
	}{
		{`{"features":[1,2.5,-3e0]}`, inputs[0], []int64{1, 3}, []float32{1, 2.5, -3}},
		{`{"features":[[1,2.5,-3]]}`, inputs[0], []int64{1, 3}, []float32{1, 2.5, -3}},
		{` { "x" : [ "]" ] , "features" : [ [ 1 , 2 , 3 ] , [4,5,6] ] , "y" : { } } `, inputs[0], []int64{2, 3}, []float32{1, 2, 3, 4, 5, 6}},
		{`{"\u0066eatures":[1,2,3]}`, inputs[0], []int64{1, 3}, []float32{1, 2, 3}},
		{`{"features":[1,2]}`, tensor("v", inference.FP32, 2), []int64{2}, []float32{1, 2}},
		{`{"features":[[1,2]]}`, tensor("v", inference.FP32, 2), []int64{2}, []float32{1, 2}},
		{`{"features":[1,2,3,4,5]}`, tensor("v", inference.FP32, -1), []int64{5}, []float32{1, 2, 3, 4, 5}},
		{`{"features":[1,2]}`, tensor("v", inference.FP32, -1, -1), []int64{1, 2}, []float32{1, 2}},
		{`{"features":[[1,2],[3,4],[5,6]]}`, tensor("v", inference.FP32, -1, -1), []int64{3, 2}, []float32{1, 2, 3, 4, 5, 6}},
		{`{"features":[[1,2,3,4]]}`, tensor("v", inference.FP32, -1, 1, 2, 2), []int64{1, 1, 2, 2}, []float32{1, 2, 3, 4}},
		{`{"features":[[1],[2]]}`, tensor("v", inference.FP32, 2, 1), []int64{2, 1}, []float32{1, 2}},
	} {
		r, err := decodePredict(t, c.body, c.input)
		if err != nil {
			t.Errorf("%s: %v", c.body, err)
			continue
		}
		got := &r.Inputs[0]
		if !slices.Equal(got.Float32s(), c.want) || !slices.Equal(got.Shape, c.shape) || got.Name != c.input.Name || got.DataType != inference.FP32 {
			t.Errorf("%s: %+v", c.body, got)
		}
	}
	r, err := decodePredict(t, `{"features":[[1,-2],[3,4]]}`, tensor("n", inference.Int64, -1, 2))
	if err != nil || !slices.Equal(r.Inputs[0].Int64s(), []int64{1, -2, 3, 4}) || r.Rows != 2 {
		t.Errorf("%v, %v", r.Inputs[0].Int64s(), err)
	}
}

func TestPredictNamesWhatIsWrong(t *testing.T) {
	open := tensor("v", inference.FP32, -1, -1)
	for _, c := range []struct {
		body  string
		input inference.TensorInfo
		want  string
	}{
		{``, inputs[0], `body: empty, a JSON object is expected`},
		{`{}`, inputs[0], `features: missing`},
		{`{"Features":[1,2,3]}`, inputs[0], `features: missing`},
		{`{"features":[1,2,3]`, inputs[0], `body: the text ends where ',' or '}' is expected (offset 19)`},
		{`{"features":[1,2,3]}}`, inputs[0], `body: text after the end of the JSON object (offset 20)`},
		{`{"features":[1,2,3],"features":[1,2,3]}`, inputs[0], `features: given twice (offset 31)`},
		{`{"features":5}`, inputs[0], `features: '5' where an array of numbers is expected (offset 12)`},
		{`{"features":null}`, inputs[0], `features: 'n' where an array of numbers is expected (offset 12)`},
		{`{"features":{"0":1}}`, inputs[0], `features: '{' where an array of numbers is expected (offset 12)`},
		{`{"features":[]}`, inputs[0], `features: 0 numbers, the model takes 3 (offset 12)`},
		{`{"features":[[]]}`, inputs[0], `features[0]: 0 numbers, the model takes 3 (offset 13)`},
		{`{"features":[1,2]}`, inputs[0], `features: 2 numbers, the model takes 3 (offset 12)`},
		{`{"features":[1,2,3,4]}`, inputs[0], `features: 4 numbers, the model takes 3 (offset 12)`},
		{`{"features":[[1,2,3],[4,5]]}`, inputs[0], `features[1]: 2 numbers, the model takes 3 (offset 21)`},
		{`{"features":[[1,2,3],4]}`, inputs[0], `features[1]: '4' where a row is expected (offset 21)`},
		{`{"features":[1,[2,3]]}`, inputs[0], `features[1]: '[' where a number is expected (offset 15)`},
		{`{"features":[[[1,2,3]]]}`, inputs[0], `features[0][0]: '[' where a number is expected (offset 14)`},
		{`{"features":[1,"2",3]}`, inputs[0], `features[1]: '"' where a number is expected (offset 15)`},
		{`{"features":[1,null,3]}`, inputs[0], `features[1]: 'n' where a number is expected (offset 15)`},
		{`{"features":[1,NaN,3]}`, inputs[0], `features[1]: 'N' where a number is expected (offset 15)`},
		{`{"features":[[1,2,3],[4,-Infinity,6]]}`, inputs[0], `features[1][1]: 'I' where a digit is expected (offset 25)`},
		{`{"features":[1,1e39,3]}`, inputs[0], `features[1]: 1e39 does not fit FP32 (offset 15)`},
		{`{"features":[1,2,3,]}`, inputs[0], `features[3]: ']' where a number is expected (offset 19)`},
		{`{"features":[[1,2,3],]}`, inputs[0], `features[1]: ']' where a row is expected (offset 21)`},
		{`{"features":` + strings.Repeat("[", 100_000), inputs[0], `features[0][0]: '[' where a number is expected (offset 14)`},
		{`{"features":[1.5,2]}`, tensor("n", inference.Int64, -1, 2), `features[0]: 1.5 is not written as an integer (offset 13)`},
		{`{"features":[[1,2],[3,4]]}`, tensor("v", inference.FP32, 2), `features: 2 rows, the model takes 1 (offset 12)`},
		{`{"features":[1,2]}`, tensor("v", inference.FP32, 2, 2), `features: 1 rows, the model takes 2 (offset 12)`},
		{`{"features":[]}`, open, `features: 0 numbers, the model takes at least one (offset 12)`},
		{`{"features":[[],[1]]}`, open, `features[0]: 0 numbers, the model takes at least one (offset 13)`},
		{`{"features":[[1,2],[3]]}`, open, `features[1]: 1 numbers, the model takes rows of one length, the first has 2 (offset 19)`},
		{`{"features":[[1],[2,3]]}`, open, `features[1]: 2 numbers, the model takes rows of one length, the first has 1 (offset 17)`},
		{`{"features":[[1,"]",2]]}`, open, `features[0][1]: '"' where a number is expected (offset 16)`},
		{`{"features":[1]}`, tensor("v", inference.FP32, -1, 1<<40), `features: 1 numbers, the model takes 1099511627776 (offset 12)`},
	} {
		_, err := decodePredict(t, c.body, c.input)
		var e *Error
		if !errors.As(err, &e) || e.Error() != c.want {
			t.Errorf("%.100s\n got %v\nwant %s", c.body, err, c.want)
		}
	}
}

func TestPredictResponse(t *testing.T) {
	label := func(v ...int64) *inference.Tensor {
		out := &inference.Tensor{Name: "label"}
		if err := out.Reset(inference.Int64, []int64{int64(len(v))}); err != nil {
			t.Fatal(err)
		}
		copy(out.Int64s(), v)
		return out
	}
	scores := func(v ...float32) *inference.Tensor {
		out := &inference.Tensor{Name: "scores"}
		if err := out.Reset(inference.FP32, []int64{int64(len(v))}); err != nil {
			t.Fatal(err)
		}
		copy(out.Float32s(), v)
		return out
	}
	nan := float32(math.NaN())
	for _, c := range []struct {
		rows          int
		label, scores *inference.Tensor
		want, err     string
	}{
		{1, label(3), scores(0.25, 0.75), `{"prediction":3,"probabilities":[0.25,0.75],"model":"m\"","version":"1"}`, ""},
		{2, label(3, 4), scores(0, 1, 2, 3), `{"predictions":[3,4],"probabilities":[[0,1],[2,3]],"model":"m\"","version":"1"}`, ""},
		{1, label(3), nil, `{"prediction":3,"model":"m\"","version":"1"}`, ""},
		{1, scores(1.5), nil, `{"prediction":1.5,"model":"m\"","version":"1"}`, ""},
		{1, nil, scores(1.5), `{"prediction":1.5,"model":"m\"","version":"1"}`, ""},
		{2, nil, scores(1.5, -2), `{"predictions":[1.5,-2],"model":"m\"","version":"1"}`, ""},
		{1, nil, scores(1, 3, 3), `{"prediction":1,"probabilities":[1,3,3],"model":"m\"","version":"1"}`, ""},
		{2, nil, scores(1, 3, 4, -1), `{"predictions":[1,0],"probabilities":[[1,3],[4,-1]],"model":"m\"","version":"1"}`, ""},
		{2, label(3), nil, "", `output "label": 1 elements for 2 rows`},
		{2, nil, scores(1), "", `output "scores": 1 elements for 2 rows`},
		{2, nil, scores(1, 2, 3), "", `output "scores": 3 elements for 2 rows`},
		{2, label(1, 2), scores(1, 2, 3, nan), "", `output "scores": element 3 is not a finite number, which JSON cannot carry`},
		{1, scores(nan), nil, "", `output "scores": element 0 is not a finite number, which JSON cannot carry`},
	} {
		r := PredictRequest{Rows: c.rows}
		b, err := r.AppendResponse(nil, Prediction{Model: `m"`, Version: "1", Label: c.label, Probabilities: c.scores})
		var e *OutputError
		if c.err == "" && (err != nil || string(b) != c.want) || c.err != "" && (!errors.As(err, &e) || e.Error() != c.err) {
			t.Errorf("%d rows: %s, %v; want %s%s", c.rows, b, err, c.want, c.err)
		}
	}
}

func TestTrimFreesLargeRequests(t *testing.T) {
	var r InferRequest
	var p PredictRequest
	body := `{"id":"\n","inputs":[` + inputX + `,` + inputN + `]}`
	row, err := inputs[0].Row()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err := errors.Join(r.Decode([]byte(body), inputs, outputs), p.Decode([]byte(`{"\n":1,"features":[1,2,3]}`), &inputs[0], row))
		if err != nil {
			t.Fatal(err)
		}
		r.Trim(0)
		p.Trim(0)
		if left := fmt.Sprint(len(r.Inputs[0].Raw()), len(r.Inputs[1].Raw()), len(p.Inputs[0].Raw()), cap(r.s.scratch), cap(p.s.scratch)); left != "0 0 0 0 0" {
			t.Errorf("left: %s", left)
		}
	}
}
