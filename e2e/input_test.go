package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"preforkd/internal/testkit"
)

// TestBadInput sends what no client should: each is a 4xx that names the field, and the
// same worker answers afterwards.
func TestBadInput(t *testing.T) {
	s := testkit.Start(t, testkit.Options{Workers: 1, Set: []string{"http.max_body=1MiB", "http.worker_header=true"}})
	worker := s.Workers()
	infer := "/v2/models/digits/infer"
	tensor := func(shape, datatype, data string) string {
		return fmt.Sprintf(`{"inputs":[{"name":"pixels","shape":%s,"datatype":%q,"data":%s}]}`, shape, datatype, data)
	}
	ones := "[" + strings.TrimSuffix(strings.Repeat("1,", 64), ",") + "]"
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		names                    string
	}{
		{"truncated JSON", "POST", "/predict", `{"features":[1,2`, 422, "features"},
		{"nested JSON", "POST", "/predict", strings.Repeat("[", 100000), 422, "json_invalid"},
		{"nested features", "POST", "/predict", `{"features":` + strings.Repeat("[", 100000), 422, "nested deeper"},
		{"NaN", "POST", "/predict", `{"features":[NaN]}`, 422, "features[0]"},
		{"Infinity", "POST", infer, tensor("[1,64]", "FP32", "[-Infinity]"), 400, "inputs[0].data[0]"},
		{"too large for FP32", "POST", infer, tensor("[1,64]", "FP32", "[1e39]"), 400, "inputs[0].data[0]"},
		{"text for a number", "POST", "/predict", `{"features":["1"]}`, 422, `"features",0`},
		{"too few features", "POST", "/predict", `{"features":[1,2,3]}`, 422, "features"},
		{"no features", "POST", "/predict", `{}`, 422, "features"},
		{"empty body", "POST", "/predict", ``, 422, "body"},
		{"wrong datatype", "POST", infer, tensor("[1,64]", "INT64", ones), 400, "datatype"},
		{"unknown datatype", "POST", infer, tensor("[1,64]", "FLOAT", ones), 400, "datatype"},
		{"wrong shape", "POST", infer, tensor("[1,63]", "FP32", ones), 400, "shape"},
		{"negative shape", "POST", infer, tensor("[-1,64]", "FP32", ones), 400, "shape"},
		{"overflowing shape", "POST", infer, tensor("[9223372036854775807,64]", "FP32", ones), 400, "shape"},
		{"huge shape", "POST", infer, tensor("[1000000000000,64]", "FP32", ones), 400, "inputs[0]"},
		{"data and shape disagree", "POST", infer, tensor("[2,64]", "FP32", ones), 400, "inputs[0]"},
		{"unknown input", "POST", infer, `{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}`, 400, "inputs[0]"},
		{"unknown output", "POST", infer, `{"outputs":[{"name":"x"}],` + tensor("[1,64]", "FP32", ones)[1:], 400, "outputs[0]"},
		{"unknown model", "POST", "/v2/models/none/infer", tensor("[1,64]", "FP32", ones), 404, "none"},
		{"unknown version", "POST", "/v2/models/digits/versions/9/infer", tensor("[1,64]", "FP32", ones), 404, "9"},
		{"unknown route", "GET", "/v3", "", 404, "error"},
		{"wrong method", "GET", "/predict", "", 405, "method"},
		{"wrong method", "DELETE", infer, "", 405, "error"},
		{"large body", "POST", "/predict", strings.Repeat(" ", 2<<20), 413, "1048576"},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequest(c.method, s.URL+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := fresh.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			form := `{"error":"`
			if strings.HasPrefix(c.path, "/predict") {
				form = `{"detail":`
			}
			if err != nil || resp.StatusCode != c.status || !strings.Contains(string(text), c.names) || !strings.HasPrefix(string(text), form) {
				t.Errorf("%d, %v: %.300s; want %d naming %s", resp.StatusCode, err, text, c.status, c.names)
			}
		})
	}
	raw(t, s, "POST /predict HTTP/1.1\r\nHost: x\r\n\r\n", "400 ", "411 ") // neither length nor chunks
	raw(t, s, "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n{", "413 ")
	raw(t, s, "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "400 ")
	raw(t, s, "nonsense\r\n\r\n", "400 ")
	raw(t, s, "GET / HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("y", 100000)+"\r\n\r\n", "431 ")
	if status, body := post(t, s.URL+"/predict", string(sample[strings.Index(string(sample), "{"):])); status != 200 {
		t.Errorf("afterwards: %d %s", status, body)
	}
	if got := s.Workers(); len(got) != 1 || got[0] != worker[0] {
		t.Errorf("worker %v died, %v serves", worker, got)
	}
}

// raw sends bytes that no HTTP library would and expects one of the statuses.
func raw(t *testing.T, s *testkit.Service, text string, want ...string) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() { _, _ = io.WriteString(c, text) }() // the answer may come before it is all sent
	line, err := bufio.NewReader(c).ReadString('\n')
	for _, w := range want {
		if err == nil && strings.HasPrefix(line, "HTTP/1.1 "+w) {
			return
		}
	}
	t.Errorf("%.60q: %q, %v; want %q", text, line, err, want)
}
