package codec

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"preforkd/internal/inference"
)

// TestDetail: what FastAPI with pydantic 2 answers, and our own text in ctx.
func TestDetail(t *testing.T) {
	whole := tensor("n", inference.Int64, -1, 2)
	const number, integer = "Input should be a valid number", "Input should be a valid integer"
	for _, c := range []struct {
		body  string
		input inference.TensorInfo
		want  string
	}{
		{``, inputs[0], `"type":"missing","loc":["body"],"msg":"Field required","input":null,"ctx":{"error":"body: empty, a JSON object is expected"}`},
		{`{"x":1}`, inputs[0], `"type":"missing","loc":["body","features"],"msg":"Field required","input":{"x":1},"ctx":{"error":"features: missing"}`},
		{`[1]`, inputs[0], `"type":"model_attributes_type","loc":["body"],"msg":"Input should be a valid dictionary or object to extract fields from","input":[1],"ctx":{"error":"body: '[' where '{' is expected (offset 0)"}`},
		{`{"features":[1,}`, inputs[0], `"type":"json_invalid","loc":["body",15],"msg":"JSON decode error","input":{},"ctx":{"error":"features[1]: '}' where a number is expected (offset 15)"}`},
		{`{"features":[1,NaN,3]}`, inputs[0], `"type":"json_invalid","loc":["body",15],"msg":"JSON decode error","input":{},"ctx":{"error":"features[1]: 'N' where a number is expected (offset 15)"}`},
		{`{"features":["a",2,3]`, inputs[0], `"type":"json_invalid","loc":["body",21],"msg":"JSON decode error","input":{},"ctx":{"error":"body: the text ends where ',' or '}' is expected (offset 21)"}`},
		{`{"features":5}`, inputs[0], `"type":"list_type","loc":["body","features"],"msg":"Input should be a valid list","input":5,"ctx":{"error":"features: '5' where an array of numbers is expected (offset 12)"}`},
		{`{"features":[[1,2,3], "x"]}`, inputs[0], `"type":"list_type","loc":["body","features",1],"msg":"Input should be a valid list","input":"x","ctx":{"error":"features[1]: '\"' where a row is expected (offset 22)"}`},
		{`{"features":[1,"a",3]}`, inputs[0], `"type":"float_parsing","loc":["body","features",1],"msg":"` + number + `, unable to parse string as a number","input":"a","ctx":{"error":"features[1]: '\"' where a number is expected (offset 15)"}`},
		{`{"features":[1,null,3]}`, inputs[0], `"type":"float_type","loc":["body","features",1],"msg":"` + number + `","input":null,"ctx":{"error":"features[1]: 'n' where a number is expected (offset 15)"}`},
		{`{"features":[[1,2,3],[1,2,[]]]}`, inputs[0], `"type":"float_type","loc":["body","features",1,2],"msg":"` + number + `","input":[],"ctx":{"error":"features[1][2]: '[' where a number is expected (offset 26)"}`},
		{`{"features":[1,1e39,3]}`, inputs[0], `"type":"finite_number","loc":["body","features",1],"msg":"Input should be a finite number","input":1e39,"ctx":{"error":"features[1]: 1e39 does not fit FP32 (offset 15)"}`},
		{`{"features":[1,"a"]}`, whole, `"type":"int_parsing","loc":["body","features",1],"msg":"` + integer + `, unable to parse string as an integer","input":"a","ctx":{"error":"features[1]: '\"' where an integer is expected (offset 15)"}`},
		{`{"features":[1,1.5]}`, whole, `"type":"int_from_float","loc":["body","features",1],"msg":"` + integer + `, got a number with a fractional part","input":1.5,"ctx":{"error":"features[1]: 1.5 is not written as an integer (offset 15)"}`},
		{`{"features":[1,9223372036854775808]}`, whole, `"type":"int_parsing_size","loc":["body","features",1],"msg":"Unable to parse input string as an integer, exceeded maximum size","input":9223372036854775808,"ctx":{"error":"features[1]: 9223372036854775808 does not fit INT64 (offset 15)"}`},
		{`{"features":[1,true]}`, whole, `"type":"int_type","loc":["body","features",1],"msg":"` + integer + `","input":true,"ctx":{"error":"features[1]: 't' where an integer is expected (offset 15)"}`},
		{`{"features":[1,2]}`, inputs[0], `"type":"too_short","loc":["body","features"],"msg":"List should have at least 3 items after validation, not 2","input":[1,2],"ctx":{"field_type":"List","min_length":3,"actual_length":2,"error":"features: 2 numbers, the model takes 3 (offset 12)"}`},
		{`{"features":[[1,2,3],[1,2,3,4]]}`, inputs[0], `"type":"too_long","loc":["body","features",1],"msg":"List should have at most 3 items after validation, not 4","input":[1,2,3,4],"ctx":{"field_type":"List","max_length":3,"actual_length":4,"error":"features[1]: 4 numbers, the model takes 3 (offset 21)"}`},
		{`{"features":[[1],[2]]}`, tensor("v", inference.FP32, 1, 1), `"type":"too_long","loc":["body","features"],"msg":"List should have at most 1 item after validation, not 2","input":[[1],[2]],"ctx":{"field_type":"List","max_length":1,"actual_length":2,"error":"features: 2 rows, the model takes 1 (offset 12)"}`},
		{`{"features":[1,2,3],"features":[1,2,3]}`, inputs[0], `"type":"value_error","loc":["body","features"],"msg":"Value error, given twice","input":[1,2,3],"ctx":{"error":"features: given twice (offset 31)"}`},
		{`{"x":` + strings.Repeat("[", 100_000), inputs[0], `"type":"json_invalid","loc":["body",68],"msg":"JSON decode error","input":{},"ctx":{"error":"x: nested deeper than 64 levels (offset 68)"}`},
	} {
		_, err := decodePredict(t, c.body, c.input)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.100s: %v", c.body, err)
			continue
		}
		if got := string(AppendDetail(nil, []byte(c.body), e)); got != `{"detail":[{`+c.want+`}]}` || !json.Valid([]byte(got)) {
			t.Errorf("%.100s\n got %s\nwant %s", c.body, got, c.want)
		}
	}
}

// TestDetailSendsNoLongValueBack: what a client sent is not sent back where it is long.
func TestDetailSendsNoLongValueBack(t *testing.T) {
	body := `{"features":[1,2,"` + strings.Repeat("x", 5000) + `"]}`
	_, err := decodePredict(t, body, inputs[0])
	var e *Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	if got := string(AppendDetail(nil, []byte(body), e)); len(got) > 500 || strings.Contains(got, `"input"`) || !json.Valid([]byte(got)) {
		t.Errorf("%s", got)
	}
}
