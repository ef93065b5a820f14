package api

import (
	"bytes"
	"strings"
	"testing"
)

func TestRoutes(t *testing.T) {
	c := dial(t, serve(t, newAPI(t, Options{}), limits))
	const digits = `{"name":"digits","versions":["1","2"],"platform":"test_adder","inputs":[{"name":"pixels","datatype":"FP32","shape":[-1,64]}],` +
		`"outputs":[{"name":"label","datatype":"INT64","shape":[-1]},{"name":"probabilities","datatype":"FP32","shape":[-1,2]}]}`
	for _, x := range []struct {
		method, path string
		status       int
		want         string // all of a good body, a part of an error's text
	}{
		{"GET", "/v2", 200, `{"name":"preforkd","version":"1.2.3","extensions":["binary_tensor_data","model_configuration","model_repository","parameters","statistics"]}`},
		{"GET", "/v2/", 200, `{"name":"preforkd","version":"1.2.3","extensions":["binary_tensor_data","model_configuration","model_repository","parameters","statistics"]}`},
		{"GET", "/v2?x=/y#z", 200, `{"name":"preforkd","version":"1.2.3","extensions":["binary_tensor_data","model_configuration","model_repository","parameters","statistics"]}`},
		{"GET", "http://elsewhere/v2", 200, `{"name":"preforkd","version":"1.2.3","extensions":["binary_tensor_data","model_configuration","model_repository","parameters","statistics"]}`},
		{"GET", "/v2/models/digits", 200, digits},
		{"GET", "/v2/models/d%69gits?test_1=1&test_2=2", 200, digits},
		{"GET", "/v2/models/digits/versions/1", 200, strings.Replace(digits, `["1","2"]`, `["1"]`, 1)},
		{"GET", "/v2/models/digits/ready", 200, `{"name":"digits","ready":true}`},
		{"GET", "/v2/models/digits/versions/2/ready", 200, `{"name":"digits","ready":true}`},
		{"GET", "/v2/models/%3Cb%3E%22&amp;%3C%2Fb%3E/ready", 404, "no such path"}, // the name has a slash
		{"GET", "/v2/models/nobody", 404, "Request for unknown model: 'nobody' is not found"},
		{"GET", "/v2/models/nobody/ready", 404, "Request for unknown model: 'nobody' is not found"},
		{"GET", "/v2/models/digits/versions/3", 404, "Request for unknown model: 'digits' version 3 is not found"},
		{"GET", "/v2/models/%ff%00", 404, "is not found"},
		{"GET", "/nothing", 404, "no such path"},
		{"GET", "/v1", 404, "no such path"},
		{"GET", "/v1/models/", 404, "no such path"},
		{"GET", "/v1/models/a/b", 404, "no such path"},
		{"GET", "/v1/model/a", 404, "no such path"},
		{"GET", "/v1/models/a:b", 404, "Servable not found for request: Latest(a:b)"},
		{"GET", "/v1/models/digits:predict", 405, "method not allowed"},
		{"GET", "/v1/models/digits/versions/1:predict", 405, "method not allowed"},
		{"POST", "/v1/models", 405, "method not allowed"},
		{"GET", "/invocations", 405, "method not allowed"},
		{"GET", "//livez", 404, "no such path"},
		{"GET", "/livez/", 404, "no such path"},
		{"GET", "/./livez", 404, "no such path"},
		{"GET", "/x/../livez", 404, "no such path"},
		{"GET", "/v2/models/../../livez", 404, "no such path"},
		{"GET", "/x%2F..%2Flivez", 404, "no such path"},
		{"GET", "/%2e%2e/livez", 404, "no such path"},
		{"GET", "/v2/models/%2E", 404, "no such path"},
		{"GET", "/v2%2Fmodels%2Fdigits", 404, "no such path"},
		{"GET", "/v2\\models", 404, "no such path"},
		{"GET", "/v2/models/", 404, "no such path"},
		{"GET", "/v2/models", 404, "no such path"},
		{"GET", "/v2/models/digits/versions", 404, "no such path"},
		{"GET", "/v2/models/digits/versions/1/2/3/4", 404, "no such path"},
		{"GET", "/v2/models/digits/configs", 404, "no such path"},
		{"GET", "/v2/health", 404, "no such path"},
		{"GET", "/v2/health/x", 404, "no such path"},
		{"GET", "/x/y/z", 404, "no such path"},
		{"GET", "/v2/%zz", 404, "no such path"},
		{"OPTIONS", "*", 404, "no such path"},
		{"GET", "/predict", 405, "method not allowed"},
		{"HEAD", "/predict", 405, ""},
		{"OPTIONS", "/predict", 405, "method not allowed"},
		{"GET", "/predict/digits", 405, "method not allowed"},
		{"GET", "/v2/models/digits/infer", 405, "method not allowed"},
		{"POST", "/", 405, "method not allowed"},
		{"POST", "/livez", 405, "method not allowed"},
		{"DELETE", "/v2/models/digits", 405, "method not allowed"},
		{"PUT", "/v2/health/ready", 405, "method not allowed"},
	} {
		c.send(t, x.method+" "+x.path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		if x.method == "HEAD" {
			if line, err := c.r.ReadString('\n'); err != nil || !strings.Contains(line, "405") {
				t.Fatalf("HEAD: %s, %v", line, err)
			}
			for line := ""; line != "\r\n"; {
				line, _ = c.r.ReadString('\n')
			}
			continue
		}
		status, body, h := c.answer(t)
		if status != x.status || status == 200 && body != x.want || status != 200 && !strings.Contains(errorText(t, body), x.want) {
			t.Errorf("%s %s: %d %s", x.method, x.path, status, body)
		}
		allow := h.Get("Allow")
		if want := map[bool]string{true: "POST", false: "GET, HEAD"}[strings.Contains(x.path, "predict") || x.path == "/invocations" || strings.HasSuffix(x.path, "infer")]; (status == 405) != (allow != "") || status == 405 && allow != want {
			t.Errorf("%s %s: Allow is %q", x.method, x.path, allow)
		}
	}
}

func TestDefaultModel(t *testing.T) {
	for name, want := range map[string]int{"digits": 200, "nobody": 404} {
		c := dial(t, serve(t, newAPI(t, Options{Default: name}), limits))
		c.send(t, post("/predict", features))
		if status, body, _ := c.answer(t); status != want {
			t.Errorf("default %s: %d %s", name, status, body)
		}
	}
}

func FuzzLocate(f *testing.F) {
	for _, path := range []string{"/", "/v2/", "/v2/models/m/versions/1/infer", "/predict/%41", "/v1/models/m/versions/1:predict", "/v1/models/m/labels/l/metadata", "/v1/models/:explain", "/a/../b", "/%2e%2e", "*", "//"} {
		f.Add([]byte(path))
	}
	f.Fuzz(func(t *testing.T, path []byte) {
		before := bytes.Clone(path)
		x := locate(path)
		if !bytes.Equal(path, before) {
			t.Errorf("%q was changed to %q", before, path)
		}
		for _, part := range [][]byte{x.model, x.version, x.label, x.verb} {
			if bytes.IndexByte(part, '/') >= 0 || string(part) == "." || string(part) == ".." {
				t.Errorf("%q has the part %q", path, part)
			}
		}
		if x.endpoint == nowhere && (x.model != nil || x.version != nil || x.label != nil) || (x.endpoint == infer || x.endpoint == v1Predict) && len(x.model) == 0 {
			t.Errorf("%q is %+v", path, x)
		}
	})
}
