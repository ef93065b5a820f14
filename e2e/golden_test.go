package e2e

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"preforkd/internal/testkit"
)

// simpleModel is the reference server's example model "simple", as a graph: OUTPUT0 is the sum of
// INPUT0 and INPUT1, OUTPUT1 their difference.
func simpleModel() []byte {
	tensor := func(name string) []byte { return tensorOf(name, onnxInt32, 1, 16) }
	return graphOf(nil, [][]byte{tensor("INPUT0"), tensor("INPUT1")}, [][]byte{tensor("OUTPUT0"), tensor("OUTPUT1")},
		operator("Add", "OUTPUT0", "INPUT0", "INPUT1"), operator("Sub", "OUTPUT1", "INPUT0", "INPUT1"))
}

// simpleAnswer is the JSON text of the answer to testdata/triton-simple.request. After it follow the
// 64 bytes of OUTPUT0.
const simpleAnswer = `{"model_name":"simple","model_version":"1","outputs":[` +
	`{"name":"OUTPUT0","datatype":"INT32","shape":[1,16],"parameters":{"binary_data_size":64}},` +
	`{"name":"OUTPUT1","datatype":"INT32","shape":[1,16],"data":[-1,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14]}]}`

// TestGoldenExchange sends, byte for byte, what Python's tritonclient sends to the example model
// "simple": one input as JSON and one in binary form, and one output in each.
func TestGoldenExchange(t *testing.T) {
	request, err := os.ReadFile("testdata/triton-simple.request")
	if err != nil {
		t.Fatal(err)
	}
	models := filepath.Join(t.TempDir(), "models")
	dir := filepath.Join(models, "simple", "1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "model.onnx"), string(simpleModel()))
	s := testkit.Start(t, testkit.Options{Models: models})
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for range 3 { // the client keeps its connection
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		checkSimple(t, r)
	}
}

// checkSimple reads one answer from r and checks its headers and bytes.
func checkSimple(t *testing.T, r *bufio.Reader) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	// Any other status, 202 and 204 too, is an error to the client.
	if resp.StatusCode != http.StatusOK || resp.Close || resp.ContentLength != int64(len(body)) || resp.Header.Get("Content-Encoding") != "" {
		t.Errorf("%s, close: %v, length %d of %d, %v", resp.Status, resp.Close, resp.ContentLength, len(body), resp.Header)
	}
	want := binary.LittleEndian.AppendUint32([]byte(simpleAnswer), 1)
	for i := range uint32(15) {
		want = binary.LittleEndian.AppendUint32(want, i+2)
	}
	if string(body) != string(want) {
		t.Errorf("%q\nwant %q", body, want)
	}
	walkSimple(t, resp.Header, body)
}

// walkSimple reads the answer as the client does: the JSON text is as long as the header says,
// and the outputs with a binary_data_size cover every byte after it, in their order.
func walkSimple(t *testing.T, header http.Header, body []byte) {
	t.Helper()
	if got := header["Inference-Header-Content-Length"]; !slices.Equal(got, []string{strconv.Itoa(len(simpleAnswer))}) || header.Get("Content-Type") != "application/octet-stream" {
		t.Fatalf("%v", header)
	}
	var answer struct {
		Outputs []struct {
			Name       string
			Data       []int32
			Parameters struct {
				Size int `json:"binary_data_size"`
			}
		}
	}
	rest := body[len(simpleAnswer):]
	if err := json.Unmarshal(body[:len(simpleAnswer)], &answer); err != nil {
		t.Fatal(err)
	}
	got := map[string][]int32{}
	for _, o := range answer.Outputs {
		got[o.Name] = o.Data
		if n := o.Parameters.Size; n > 0 {
			got[o.Name] = make([]int32, n/4)
			if _, err := binary.Decode(rest[:n], binary.LittleEndian, got[o.Name]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
	}
	for i := range int32(16) {
		if len(got["OUTPUT0"]) != 16 || len(got["OUTPUT1"]) != 16 || got["OUTPUT0"][i] != i+1 || got["OUTPUT1"][i] != i-1 {
			t.Fatalf("%v", got)
		}
	}
	if len(rest) > 0 {
		t.Errorf("%d bytes belong to no output", len(rest))
	}
}
