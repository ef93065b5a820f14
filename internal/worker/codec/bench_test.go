package codec

import (
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/inference"
)

// randomRow returns n random numbers in JSON, each written by one.
func randomRow(n int, one func(b []byte, v float64) []byte) []byte {
	rng := rand.New(rand.NewPCG(5, 6))
	b := []byte{'['}
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(b, rng.Float64())
	}
	return append(b, ']')
}

// The ways in which clients write numbers.
var forms = []struct {
	name string
	one  func(b []byte, v float64) []byte
}{
	{"whole", func(b []byte, v float64) []byte { return strconv.AppendInt(b, int64(v*256), 10) }},
	{"float32", func(b []byte, v float64) []byte { return strconv.AppendFloat(b, v, 'g', -1, 32) }},
	{"float64", func(b []byte, v float64) []byte { return strconv.AppendFloat(b, v, 'g', -1, 64) }},
}

func inferBody(row []byte, shape string) []byte {
	return []byte(`{"inputs":[{"name":"x","shape":` + shape + `,"datatype":"FP32","data":` + string(row) + `}]}`)
}

var image = []inference.TensorInfo{tensor("x", inference.FP32, -1, 224, 224, 3)}

func BenchmarkInferImage(b *testing.B) {
	for _, form := range forms {
		body := inferBody(randomRow(224*224*3, form.one), "[1,224,224,3]")
		b.Run(form.name, func(b *testing.B) {
			var r InferRequest
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			if err := r.Decode(body, image, nil); err != nil { // its memory is the next one's
				b.Fatal(err)
			}
			before := spent(b)
			for b.Loop() {
				if err := r.Decode(body, image, nil); err != nil {
					b.Fatal(err)
				}
			}
			cpu := spent(b) - before
			b.ReportMetric(float64(b.N)*float64(len(body))/1e6/cpu.Seconds(), "MB/CPU-s")
		})
	}
}

// spent is the CPU time of this process, which says more than the time that passes where other
// processes take turns with it.
func spent(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkInferImageEncodingJSON(b *testing.B) {
	body := inferBody(randomRow(224*224*3, forms[1].one), "[1,224,224,3]")
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		var r struct{ Inputs []struct{ Data []float32 } }
		if err := json.Unmarshal(body, &r); err != nil {
			b.Fatal(err)
		}
	}
}

var small = []inference.TensorInfo{tensor("x", inference.FP32, -1, 64)}

func BenchmarkInfer64(b *testing.B) {
	for _, form := range forms {
		body := inferBody(randomRow(64, form.one), "[1,64]")
		b.Run(form.name, func(b *testing.B) {
			var r InferRequest
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if err := r.Decode(body, small, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPredict64(b *testing.B) {
	for _, form := range forms {
		body := []byte(`{"features":` + string(randomRow(64, form.one)) + `}`)
		b.Run(form.name, func(b *testing.B) {
			var r PredictRequest
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if err := r.Decode(body, &small[0], inference.Row{Width: 64, Count: -1}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func digitsOutputs(t testing.TB) (label, probabilities *inference.Tensor) {
	label, probabilities = &inference.Tensor{Name: "label"}, &inference.Tensor{Name: "probabilities"}
	if label.Reset(inference.Int64, []int64{1}) != nil || probabilities.Reset(inference.FP32, []int64{1, 10}) != nil {
		t.Fatal("outputs")
	}
	label.Int64s()[0] = 3
	for i := range probabilities.Float32s() {
		probabilities.Float32s()[i] = 1 / float32(i+3)
	}
	return label, probabilities
}

func BenchmarkPredictResponse(b *testing.B) {
	label, probabilities := digitsOutputs(b)
	r := PredictRequest{Rows: 1}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = r.AppendResponse(dst[:0], Prediction{"digits", "1", label, probabilities}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestNoAllocations: with memory from an earlier request, neither a request nor its
// answer costs any.
func TestNoAllocations(t *testing.T) {
	label, probabilities := digitsOutputs(t)
	out := []inference.Tensor{*label, *probabilities}
	infos := []inference.TensorInfo{tensor("label", inference.Int64, -1), tensor("probabilities", inference.FP32, -1, 10)}
	var r InferRequest
	var p PredictRequest
	var dst []byte
	for _, form := range forms {
		row := string(randomRow(64, form.one))
		predict := []byte(`{"x":"\n","features":` + row + `}`)
		infer := []byte(`{"id":"\u0041","inputs":[{"name":"x","shape":[1,64],"datatype":"FP32","data":` + row + `}],"outputs":[{"name":"label"}]}`)
		turned := []byte(`{"parameters":{"a":1},"inputs":[{"data":[` + row + `],"shape":[1,64],"datatype":"FP32","name":"x"}]}`)
		rows := []byte(`{"features":[` + row + `,` + row + `]}`)
		if n := testing.AllocsPerRun(100, func() {
			var err error
			for _, body := range [][]byte{infer, turned} {
				if err = r.Decode(body, small, infos); err != nil {
					t.Fatal(err)
				}
				if dst, _, err = r.AppendResponse(dst[:0], "digits", "1", out); err != nil {
					t.Fatal(err)
				}
			}
			for _, body := range [][]byte{rows, predict} {
				if err = p.Decode(body, &small[0], inference.Row{Width: 64, Count: -1}); err != nil {
					t.Fatal(err)
				}
			}
			if dst, err = p.AppendResponse(dst[:0], Prediction{"digits", "1", label, probabilities}); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", form.name, n)
		}
	}
}
