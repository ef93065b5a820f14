package onnx

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// What the binding lacks is called here, through the table of functions that ONNX Runtime
// gives out: runs of what is bound that can be stopped, values over memory of ours of any
// type and shape, strings of any content, results that are copied once, types of inputs
// and outputs in full, libraries of operators. Entries are only ever appended to the table
// (onnxruntime_c_api.h, "struct OrtApi"); a test compares these places with the header.
enum {
	getErrorMessage = 2,
	sessionGetInputCount = 30,
	sessionGetOutputCount = 31,
	sessionGetOverridableInitializerCount = 32,
	sessionGetInputTypeInfo = 33,
	sessionGetOutputTypeInfo = 34,
	sessionGetOverridableInitializerTypeInfo = 35,
	sessionGetInputName = 36,
	sessionGetOutputName = 37,
	sessionGetOverridableInitializerName = 38,
	createTensorAsOrtValue = 48,
	createTensorWithDataAsOrtValue = 49,
	getTensorMutableData = 51,
	getStringTensorDataLength = 53,
	getStringTensorContent = 54,
	castTypeInfoToTensorInfo = 55,
	getOnnxTypeFromTypeInfo = 56,
	getTensorElementType = 60,
	getDimensionsCount = 61,
	getDimensions = 62,
	getTensorTypeAndShape = 65,
	createCpuMemoryInfo = 69,
	allocatorFree = 76,
	getAllocatorWithDefaultOptions = 78,
	releaseStatus = 93,
	releaseMemoryInfo = 94,
	releaseValue = 96,
	releaseTypeInfo = 98,
	releaseTensorTypeAndShapeInfo = 99,
	castTypeInfoToSequenceTypeInfo = 104,
	getSequenceElementType = 107,
	runWithBinding = 133,
	bindInput = 136,
	bindOutput = 137,
	bindOutputToDevice = 138,
	getBoundOutputValues = 140,
	registerCustomOpsLibrary_V2 = 228,
	getResizedStringTensorElementBuffer = 252,
	tensorTypeAndShape_HasShape = 390,
};

typedef void *const *api;
typedef void *status; // NULL: no error
typedef status (*one)(void *, void *);
typedef status (*two)(void *, void *, void *);
typedef status (*out)(const void *, size_t, void **);
typedef void (*release)(void *);

struct base { api (*get)(uint32_t version); };

// findAPI returns the table of a library that is open already, or NULL.
static api findAPI(const char *library, uint32_t version) {
	void *handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
	if (handle == NULL) return NULL;
	const struct base *(*base)(void) = (const struct base *(*)(void))dlsym(handle, "OrtGetApiBase");
	api table = base == NULL ? NULL : base()->get(version);
	dlclose(handle); // one of two references: the binding has the other
	return table;
}

static const char *message(api t, status s) { return ((const char *(*)(status))t[getErrorMessage])(s); }
static void drop(api t, int place, void *object) { ((release)t[place])(object); }

static status run(api t, void *session, void *options, void *binding) {
	return ((two)t[runWithBinding])(session, options, binding);
}

static status fetch(api t, int place, void **object) { return ((status (*)(void **))t[place])(object); }

static status memory(api t, void **info) {
	return ((status (*)(int, int, void **))t[createCpuMemoryInfo])(0, 0, info); // OrtDeviceAllocator, OrtMemTypeDefault
}

static status tensorOver(api t, void *info, void *data, size_t size, const int64_t *shape, size_t rank, int type, void **value) {
	return ((status (*)(void *, void *, size_t, const int64_t *, size_t, int, void **))t[createTensorWithDataAsOrtValue])(
		info, data, size, shape, rank, type, value);
}

static status tensorOf(api t, void *allocator, const int64_t *shape, size_t rank, int type, void **value) {
	return ((status (*)(void *, const int64_t *, size_t, int, void **))t[createTensorAsOrtValue])(allocator, shape, rank, type, value);
}

static status bind(api t, int place, void *binding, char *name, void *object) { return ((two)t[place])(binding, name, object); }

static status results(api t, void *binding, void *allocator, void ***values, size_t *count) {
	return ((status (*)(void *, void *, void ***, size_t *))t[getBoundOutputValues])(binding, allocator, values, count);
}

static status freeBy(api t, void *allocator, void *p) { return ((one)t[allocatorFree])(allocator, p); }
static void *at(void **values, size_t i) { return values[i]; }
static status contents(api t, void *value, void **data) { return ((one)t[getTensorMutableData])(value, data); }

// shapeOf writes the dimensions of a tensor to dims, which has room for max of them; rank
// is how many there are.
static status shapeOf(api t, void *value, int64_t *dims, size_t max, size_t *rank) {
	void *info = NULL;
	status s = ((one)t[getTensorTypeAndShape])(value, &info);
	if (s != NULL) return s;
	s = ((one)t[getDimensionsCount])(info, rank);
	if (s == NULL && *rank <= max) s = ((status (*)(void *, int64_t *, size_t))t[getDimensions])(info, dims, *rank);
	drop(t, releaseTensorTypeAndShapeInfo, info);
	return s;
}

// putTexts writes count strings to a tensor of strings; each ends where the next begins.
static status putTexts(api t, void *value, const char *text, size_t size, const uint64_t *starts, size_t count) {
	for (size_t i = 0; i < count; i++) {
		size_t length = (i + 1 < count ? starts[i + 1] : size) - starts[i];
		char *buffer = NULL;
		status s = ((status (*)(void *, size_t, size_t, char **))t[getResizedStringTensorElementBuffer])(value, i, length, &buffer);
		if (s != NULL) return s;
		if (length > 0) memcpy(buffer, text + starts[i], length);
	}
	return NULL;
}

static status textLength(api t, void *value, size_t *size) { return ((one)t[getStringTensorDataLength])(value, size); }

static status getTexts(api t, void *value, char *text, size_t size, size_t *starts, size_t count) {
	return ((status (*)(void *, void *, size_t, size_t *, size_t))t[getStringTensorContent])(value, text, size, starts, count);
}

// about is the type of an input or output; numbers are those of ONNXType and
// ONNXTensorElementDataType.
enum { maxRank = 64 };
struct about {
	int kind, inner; // inner: of a sequence's elements
	int element;
	int shaped; // its number of dimensions is known
	size_t rank;
	int64_t dims[maxRank];
};

static status aboutTensor(api t, void *type, struct about *a) {
	void *info = NULL;
	status s = ((one)t[castTypeInfoToTensorInfo])(type, &info); // is the type's own: not released
	if (s == NULL) s = ((one)t[getTensorElementType])(info, &a->element);
	if (s == NULL) s = ((one)t[getDimensionsCount])(info, &a->rank);
	if (s != NULL) return s;
	a->shaped = ((_Bool (*)(const void *))t[tensorTypeAndShape_HasShape])(info);
	if (a->rank > maxRank) return NULL;
	return ((status (*)(void *, int64_t *, size_t))t[getDimensions])(info, a->dims, a->rank);
}

static status aboutSequence(api t, void *type, struct about *a) {
	void *sequence = NULL, *element = NULL;
	status s = ((one)t[castTypeInfoToSequenceTypeInfo])(type, &sequence); // as above
	if (s == NULL) s = ((one)t[getSequenceElementType])(sequence, &element);
	if (s != NULL) return s;
	s = ((one)t[getOnnxTypeFromTypeInfo])(element, &a->inner);
	drop(t, releaseTypeInfo, element);
	return s;
}

// describe fills in a for the thing with index i that place tells the type of.
static status describe(api t, int place, void *session, size_t i, struct about *a) {
	void *type = NULL;
	memset(a, 0, sizeof *a);
	status s = ((out)t[place])(session, i, &type);
	if (s != NULL) return s;
	s = ((one)t[getOnnxTypeFromTypeInfo])(type, &a->kind);
	if (s == NULL && a->kind == 1) s = aboutTensor(t, type, a);
	if (s == NULL && a->kind == 2) s = aboutSequence(t, type, a);
	drop(t, releaseTypeInfo, type);
	return s;
}

static status count(api t, int place, void *session, size_t *n) { return ((one)t[place])(session, n); }

static status name(api t, int place, void *session, size_t i, void *allocator, char **text) {
	return ((status (*)(void *, size_t, void *, char **))t[place])(session, i, allocator, text);
}

static status registerOperators(api t, void *options, char *path) { return ((one)t[registerCustomOpsLibrary_V2])(options, path); }
*/
import "C"

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"

	"preforkd/internal/inference"
)

// apiVersion is the version of the table that the binding uses, too.
const apiVersion = 24

// native is an object of ONNX Runtime's.
type native = unsafe.Pointer

// calls is the table of functions of the library, and what many of them take.
type calls struct {
	table     C.api
	allocator native // ONNX Runtime's own, which nobody releases
	memory    native // says that memory is the processor's
}

// findCalls looks into the library that the binding has opened.
func findCalls(library string) (c calls, err error) {
	path := C.CString(library)
	defer C.free(unsafe.Pointer(path))
	if c.table = C.findAPI(path, apiVersion); c.table == nil {
		return c, errors.New("it has no functions of version 1.24")
	}
	return c, errors.Join(
		c.check(C.fetch(c.table, C.getAllocatorWithDefaultOptions, &c.allocator)),
		c.check(C.memory(c.table, &c.memory)),
	)
}

func (c *calls) close() { C.drop(c.table, C.releaseMemoryInfo, c.memory) }

// check returns the error that s is, and frees it.
func (c *calls) check(s C.status) error {
	if s == nil {
		return nil
	}
	text := strings.TrimSpace(C.GoString(C.message(c.table, s)))
	C.drop(c.table, C.releaseStatus, unsafe.Pointer(s))
	return errors.New(text)
}

// The binding keeps these to itself. Each is nil if another version of it is built in,
// one without the field; a test demands that they are there.
func nativeSession(s *ort.DynamicAdvancedSession) native { return hidden(s, "s", "ortSession") }
func nativeBinding(b *ort.IoBinding) native              { return hidden(b, "o") }
func nativeOptions(o *ort.RunOptions) native             { return hidden(o, "o") }
func nativeSettings(o *ort.SessionOptions) native        { return hidden(o, "o") }

// hidden follows pointers in the fields of these names.
func hidden(object any, fields ...string) native {
	v := reflect.ValueOf(object)
	for _, name := range fields {
		if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
			return nil
		}
		v = v.Elem().FieldByName(name)
	}
	if v.Kind() != reflect.Pointer {
		return nil
	}
	return v.UnsafePointer()
}

// run is DynamicAdvancedSession.RunWithBinding with run options; nil: none.
func (c *calls) run(session, options, binding native) error {
	return c.check(C.run(c.table, session, options, binding))
}

// registerOperators adds the operators of a library to a session's options.
func (c *calls) registerOperators(options native, path string) error {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	return c.check(C.registerOperators(c.table, options, name))
}

// places are where the table tells of inputs, outputs and initializers that may be given.
type places struct{ count, name, about C.int }

var (
	ofInputs       = places{C.sessionGetInputCount, C.sessionGetInputName, C.sessionGetInputTypeInfo}
	ofOutputs      = places{C.sessionGetOutputCount, C.sessionGetOutputName, C.sessionGetOutputTypeInfo}
	ofInitializers = places{C.sessionGetOverridableInitializerCount, C.sessionGetOverridableInitializerName, C.sessionGetOverridableInitializerTypeInfo}
)

// described is an input or output as ONNX Runtime tells of it: ONNXType and element type.
type described struct {
	name        string
	kind, inner int
	element     ort.TensorElementDataType
	shape       []int64
	anyShape    bool
}

// describe tells of all that p is about.
func (c *calls) describe(session native, p places) ([]described, error) {
	var n C.size_t
	if err := c.check(C.count(c.table, p.count, session, &n)); err != nil {
		return nil, err
	}
	list := make([]described, n)
	for i := range list {
		var text *C.char
		if err := c.check(C.name(c.table, p.name, session, C.size_t(i), c.allocator, &text)); err != nil {
			return nil, err
		}
		list[i].name = C.GoString(text)
		if err := c.check(C.freeBy(c.table, c.allocator, unsafe.Pointer(text))); err != nil {
			return nil, err
		}
		var a C.struct_about
		if err := c.check(C.describe(c.table, p.about, session, C.size_t(i), &a)); err != nil {
			return nil, err
		}
		if a.rank > C.maxRank {
			return nil, fmt.Errorf("%q has %d dimensions, %d are supported", list[i].name, a.rank, C.maxRank)
		}
		list[i].kind, list[i].inner, list[i].element = int(a.kind), int(a.inner), ort.TensorElementDataType(a.element)
		list[i].anyShape = a.kind == 1 && a.shaped == 0
		for _, d := range a.dims[:a.rank] {
			list[i].shape = append(list[i].shape, int64(d))
		}
	}
	return list, nil
}

// tensorOver makes a value of the shape over memory, which outlives it and is pinned.
func (c *calls) tensorOver(dt inference.DataType, shape []int64, memory []byte, value *native) error {
	return c.check(C.tensorOver(c.table, c.memory, unsafe.Pointer(unsafe.SliceData(memory)), C.size_t(len(memory)),
		(*C.int64_t)(unsafe.SliceData(shape)), C.size_t(len(shape)), C.int(elements[dt]), value))
}

// tensorOf returns a value of the shape that has memory of its own.
func (c *calls) tensorOf(dt inference.DataType, shape []int64) (value native, err error) {
	err = c.check(C.tensorOf(c.table, c.allocator, (*C.int64_t)(unsafe.SliceData(shape)), C.size_t(len(shape)), C.int(elements[dt]), &value))
	return value, err
}

func (c *calls) release(value native) { C.drop(c.table, C.releaseValue, value) }

// cName is a name as the table takes it. It is freed with free.
type cName = *C.char

func newName(s string) cName { return C.CString(s) }
func freeName(n cName)       { C.free(unsafe.Pointer(n)) }

func (c *calls) bindInput(binding native, name cName, value native) error {
	return c.check(C.bind(c.table, C.bindInput, binding, name, value))
}

// bindOutput has a run write the output to value; nil: ONNX Runtime allocates it.
func (c *calls) bindOutput(binding native, name cName, value native) error {
	if value == nil {
		return c.check(C.bind(c.table, C.bindOutputToDevice, binding, name, c.memory))
	}
	return c.check(C.bind(c.table, C.bindOutput, binding, name, value))
}

// putTexts writes the strings of t to value.
func (c *calls) putTexts(value native, t *inference.Tensor) error {
	text, starts := t.Texts()
	return c.check(C.putTexts(c.table, value, (*C.char)(unsafe.Pointer(unsafe.SliceData(text))), C.size_t(len(text)),
		(*C.uint64_t)(unsafe.SliceData(starts)), C.size_t(len(starts))))
}

// results are the values of a run's outputs, in the order in which they were bound.
type results struct {
	values *unsafe.Pointer
	count  C.size_t
	// What the calls write to. Here, since a variable of its own would be allocated
	// for each call.
	rank, size C.size_t
	dims       [C.maxRank]C.int64_t
	data       unsafe.Pointer
}

func (c *calls) results(binding native, r *results) error {
	return c.check(C.results(c.table, binding, c.allocator, &r.values, &r.count))
}

// free gives the values back.
func (c *calls) free(r *results) {
	for i := range r.count {
		C.drop(c.table, C.releaseValue, C.at(r.values, i))
	}
	_ = c.check(C.freeBy(c.table, c.allocator, unsafe.Pointer(r.values)))
	r.values, r.count = nil, 0
}

// take copies value i, whose elements are of type dt, to t.
func (c *calls) take(r *results, i int, dt inference.DataType, t *inference.Tensor) error {
	value := C.at(r.values, C.size_t(i))
	if err := c.check(C.shapeOf(c.table, value, &r.dims[0], C.maxRank, &r.rank)); err != nil {
		return err
	}
	if r.rank > C.maxRank {
		return fmt.Errorf("it has %d dimensions, %d are supported", r.rank, C.maxRank)
	}
	shape := unsafe.Slice((*int64)(&r.dims[0]), r.rank)
	if err := t.Reset(dt, shape); err != nil {
		return err
	}
	if dt == inference.Bytes {
		return c.takeTexts(r, value, t)
	}
	if len(t.Raw()) == 0 {
		return nil
	}
	if err := c.check(C.contents(c.table, value, &r.data)); err != nil {
		return err
	}
	copy(t.Raw(), unsafe.Slice((*byte)(r.data), len(t.Raw())))
	return nil
}

func (c *calls) takeTexts(r *results, value native, t *inference.Tensor) error {
	n, err := inference.Elements(t.Shape)
	if err != nil || n == 0 {
		return err
	}
	if err := c.check(C.textLength(c.table, value, &r.size)); err != nil {
		return err
	}
	text, starts := t.LayText(int(n), int(r.size))
	return c.check(C.getTexts(c.table, value, (*C.char)(unsafe.Pointer(unsafe.SliceData(text))), C.size_t(len(text)),
		(*C.size_t)(unsafe.Pointer(unsafe.SliceData(starts))), C.size_t(len(starts))))
}
