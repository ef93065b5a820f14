package onnx

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"preforkd/internal/inference"
	"preforkd/internal/ipc"
)

// twice is a library with one operator, test.Twice, which doubles floats.
const twice = `
#include "onnxruntime_c_api.h"
static const OrtApi *api;
static void *create(const OrtCustomOp *op, const OrtApi *a, const OrtKernelInfo *info) { return (void *)op; }
static const char *name(const OrtCustomOp *op) { return "Twice"; }
static const char *provider(const OrtCustomOp *op) { return 0; }
static ONNXTensorElementDataType type(const OrtCustomOp *op, size_t i) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; }
static size_t one(const OrtCustomOp *op) { return 1; }
static OrtCustomOpInputOutputCharacteristic required(const OrtCustomOp *op, size_t i) { return INPUT_OUTPUT_REQUIRED; }
static OrtMemType place(const OrtCustomOp *op, size_t i) { return OrtMemTypeDefault; }
static void destroy(void *kernel) {}
static void compute(void *kernel, OrtKernelContext *context) {
	const OrtValue *x; OrtValue *y; OrtTensorTypeAndShapeInfo *info; float *from, *to; size_t rank, n; int64_t dims[8];
	api->KernelContext_GetInput(context, 0, &x);
	api->GetTensorTypeAndShape(x, &info);
	api->GetDimensionsCount(info, &rank);
	api->GetDimensions(info, dims, rank);
	api->GetTensorShapeElementCount(info, &n);
	api->ReleaseTensorTypeAndShapeInfo(info);
	api->KernelContext_GetOutput(context, 0, dims, rank, &y);
	api->GetTensorMutableData((OrtValue *)x, (void **)&from);
	api->GetTensorMutableData(y, (void **)&to);
	for (size_t i = 0; i < n; i++) to[i] = 2 * from[i];
}
static OrtCustomOp op = {
	.version = 10, .CreateKernel = create, .GetName = name, .GetExecutionProviderType = provider,
	.GetInputType = type, .GetInputTypeCount = one, .GetOutputType = type, .GetOutputTypeCount = one,
	.KernelCompute = compute, .KernelDestroy = destroy,
	.GetInputCharacteristic = required, .GetOutputCharacteristic = required, .GetInputMemoryType = place,
};
OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
	api = base->GetApi(16);
#ifdef REFUSE
	return api->CreateStatus(ORT_FAIL, "no licence");
#endif
	OrtCustomOpDomain *domain;
	OrtStatus *s = api->CreateCustomOpDomain("test", &domain);
	if (s == 0) s = api->CustomOpDomain_Add(domain, &op);
	return s == 0 ? api->AddCustomOpDomain(options, domain) : s;
}`

// headers is the flag with which C finds ONNX Runtime's header: the binding's.
func headers(t *testing.T) string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/yalue/onnxruntime_go").Output()
	if err != nil {
		t.Fatal(err)
	}
	return "-I" + strings.TrimSpace(string(dir))
}

func TestCustomOperators(t *testing.T) {
	path := graph{
		nodes:   []node{{op: "Twice", in: []string{"x"}, out: []string{"y"}, domain: "test"}},
		inputs:  []value{{"x", float, rows4}},
		outputs: []value{{"y", float, rows4}},
	}.write(t)
	good := compile(t, twice, headers(t))
	for range 2 { // also after it was closed once
		e, err := OpenAs(library(t), "onnxruntime", []string{good})
		if err != nil {
			t.Fatal(err)
		}
		m, err := e.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		out := make([]inference.Tensor, 1)
		if err := m.Run([]inference.Tensor{floats(t, []int64{1, 4}, 1, 2, 3, 4)}, out); err != nil || out[0].Float32s()[3] != 8 {
			t.Errorf("%v, %v", err, out[0].Float32s())
		}
		if err := errors.Join(m.Close(), e.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for bad, why := range map[string]string{
		filepath.Join(t.TempDir(), "none.so"):     "no such file or directory",
		compile(t, "int other;"):                  "undefined symbol: RegisterCustomOps",
		compile(t, twice, headers(t), "-DREFUSE"): "no licence",
	} {
		_, err := OpenAs(library(t), "onnxruntime", []string{good, bad})
		var f *ipc.Failure
		if !errors.As(err, &f) || f.Exit != ipc.ExitUnavailable || f.Try == "" || !strings.HasPrefix(f.What, "load custom operators from "+bad+": ") || !strings.Contains(f.What, why) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := open(t).Load(path); err == nil || !strings.Contains(err.Error(), "Twice") { // none of them is in the way
		t.Errorf("without the library: %v", err)
	}
}
