package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"preforkd/internal/testkit"
	"preforkd/internal/testkit/digits"
)

// TestBinaryTensors sends all samples as clients of the reference server do: binary, in
// chunks, compressed, and with an answer that is binary in part. Every answer is what
// scikit-learn says.
func TestBinaryTensors(t *testing.T) {
	set := digits.Load(t)
	s := testkit.Start(t, testkit.Options{})
	var data []byte
	for _, row := range set.Pixels {
		for _, v := range row {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(v)))
		}
	}
	head := fmt.Sprintf(`{"id":"7","inputs":[{"name":"pixels","shape":[%d,64],"datatype":"FP32","parameters":{"binary_data_size":%d}}],`+
		`"outputs":[{"name":"probabilities","parameters":{"binary_data":true}},{"name":"label","parameters":{"binary_data":%%v}}]}`, len(set.Pixels), len(data))
	for name, c := range map[string]struct {
		allBinary, chunked, compressed bool
	}{
		"mixed":               {},
		"binary":              {allBinary: true},
		"chunked":             {chunked: true},
		"compressed":          {compressed: true, allBinary: true},
		"compressed, chunked": {compressed: true, chunked: true},
	} {
		t.Run(name, func(t *testing.T) {
			text := fmt.Sprintf(head, c.allBinary)
			sent := append([]byte(text), data...)
			if c.compressed {
				var b bytes.Buffer
				w := gzip.NewWriter(&b)
				if _, err := w.Write(sent); err != nil {
					t.Fatal(err)
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				sent = b.Bytes()
			}
			var body io.Reader = bytes.NewReader(sent)
			if c.chunked {
				body = io.MultiReader(body) // of no known length
			}
			req, err := http.NewRequest(http.MethodPost, s.URL+"/v2/models/digits/versions/1/infer?test_1=1", body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/octet-stream")
			req.Header.Set("Inference-Header-Content-Length", strconv.Itoa(len(text)))
			req.Header.Set("X-Request-Id", name)
			if c.compressed {
				req.Header.Set("Content-Encoding", "gzip") // net/http itself asks for compressed answers, and unpacks them
			}
			resp, err := fresh.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			answer, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != 200 || resp.Header.Get("X-Request-Id") != name || resp.Header.Get("Server-Timing") == "" || !resp.Uncompressed {
				t.Fatalf("%v: %d %v, unpacked: %v, %.200s", err, resp.StatusCode, resp.Header, resp.Uncompressed, answer)
			}
			length, err := strconv.Atoi(resp.Header.Get("Inference-Header-Content-Length"))
			if err != nil || length > len(answer) {
				t.Fatalf("%v: %d of %d bytes", err, length, len(answer))
			}
			checkBinary(t, set, answer[:length], answer[length:], c.allBinary)
		})
	}
}

// checkBinary checks the answer for all samples: probabilities in binary form, and labels
// after them or in the text.
func checkBinary(t *testing.T, set digits.Set, text, data []byte, allBinary bool) {
	t.Helper()
	n, want := len(set.Pixels), set.Answers["digits"]
	if !strings.Contains(string(text), fmt.Sprintf(`"id":"7","outputs":[{"name":"probabilities","datatype":"FP32","shape":[%d,10],"parameters":{"binary_data_size":%d}},{"name":"label"`, n, n*40)) {
		t.Fatalf("%.300s", text)
	}
	wantBytes := n * 40
	if allBinary {
		wantBytes += n * 8
	}
	if len(data) != wantBytes {
		t.Fatalf("%d bytes of data, want %d", len(data), wantBytes)
	}
	for i := range n {
		for k, p := range want.Probabilities[i] {
			if got := math.Float32frombits(binary.LittleEndian.Uint32(data[(i*10+k)*4:])); math.Abs(float64(got)-float64(p)) > tolerance {
				t.Fatalf("sample %d, class %d: %v, scikit-learn says %v", i, k, got, p)
			}
		}
		if allBinary {
			if got := int64(binary.LittleEndian.Uint64(data[n*40+i*8:])); got != want.Labels[i] {
				t.Fatalf("sample %d: %d, scikit-learn says %d", i, got, want.Labels[i])
			}
		}
	}
	var labels []string
	for _, l := range want.Labels {
		labels = append(labels, strconv.FormatInt(l, 10))
	}
	if !allBinary && !strings.Contains(string(text), `"data":[`+strings.Join(labels, ",")+`]`) {
		t.Errorf("other labels: %.300s", text)
	}
}
