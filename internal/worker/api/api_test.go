package api

import (
	"testing"
)

func TestGoodRequests(t *testing.T) {
	address := serve(t, newAPI(t, Options{WorkerHeader: "main/0/7"}), limits)
	c := dial(t, address)
	rows := `[` + row + `,` + row + `]`
	for _, x := range []struct{ path, body, want string }{
		{"/predict", features, `{"prediction":3,"probabilities":[3,0],"model":"digits","version":"2"}`},
		{"/predict?test_1=1", `{"features":[` + row + `]}`, `{"prediction":3,"probabilities":[3,0],"model":"digits","version":"2"}`},
		{"/predict/digits", `{"features":` + rows + `}`, `{"predictions":[3,3],"probabilities":[[3,0],[3,0]],"model":"digits","version":"2"}`},
		{
			"/v2/models/digits/infer", `{"id":"a\"b","inputs":[{"name":"pixels","shape":[1,64],"datatype":"FP32","data":` + row + `}]}`,
			`{"model_name":"digits","model_version":"2","id":"a\"b","outputs":[{"name":"label","datatype":"INT64","shape":[1],"data":[3]},{"name":"probabilities","datatype":"FP32","shape":[1,2],"data":[3,0]}]}`,
		},
		{
			"/v2/models/digits/versions/1/infer", `{"outputs":[{"name":"label"}],"inputs":[{"data":` + rows + `,"datatype":"FP32","shape":[2,64],"name":"pixels"}]}`,
			`{"model_name":"digits","model_version":"1","outputs":[{"name":"label","datatype":"INT64","shape":[2],"data":[3,3]}]}`,
		},
		{
			"/v2/models/two/infer", `{"inputs":[{"name":"b","shape":[1],"datatype":"FP32","data":[0.5]},{"name":"a","shape":[1,2],"datatype":"INT64","data":[[1,-2]]}]}`,
			`{"model_name":"two","model_version":"1","outputs":[{"name":"sum","datatype":"FP32","shape":[1],"data":[-0.5]}]}`,
		},
	} {
		c.send(t, post(x.path, x.body))
		status, body, h := c.answer(t)
		if status != 200 || body != x.want || h.Get("Content-Type") != "application/json" || h.Get("X-Preforkd-Worker") != "main/0/7" {
			t.Errorf("%s: %d %s\n%v", x.path, status, body, h)
		}
	}
}
