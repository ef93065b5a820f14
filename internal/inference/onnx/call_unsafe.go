package onnx

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

// The binding's RunWithBinding passes no run options, without which a run cannot be
// stopped. So that one call is made here, through the table of functions that ONNX
// Runtime gives out. Entries are only ever appended to the table (onnxruntime_c_api.h,
// "struct OrtApi"); a test compares these places with the header.
enum { getErrorMessage = 2, releaseStatus = 93, runWithBinding = 133 };

typedef void *const *api;

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

static void *run(api table, void *session, void *options, void *binding) {
	return ((void *(*)(void *, void *, void *))table[runWithBinding])(session, options, binding);
}

static const char *message(api table, void *status) {
	return ((const char *(*)(void *))table[getErrorMessage])(status);
}

static void release(api table, void *status) {
	((void (*)(void *))table[releaseStatus])(status);
}
*/
import "C"

import (
	"errors"
	"reflect"
	"strings"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"
)

// apiVersion is the version of the table that the binding uses, too.
const apiVersion = 24

// calls is the table of functions of the library; nil: it was not found.
type calls struct{ table C.api }

// findCalls looks into the library that the binding has opened.
func findCalls(library string) calls {
	name := C.CString(library)
	defer C.free(unsafe.Pointer(name))
	return calls{C.findAPI(name, apiVersion)}
}

// native is an object of ONNX Runtime's.
type native = unsafe.Pointer

// The binding keeps these to itself. Each is nil if another version of it is built in,
// one without the field; a test demands that they are there.
func nativeSession(s *ort.DynamicAdvancedSession) native { return hidden(s, "s", "ortSession") }
func nativeBinding(b *ort.IoBinding) native              { return hidden(b, "o") }
func nativeOptions(o *ort.RunOptions) native             { return hidden(o, "o") }

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

// run is DynamicAdvancedSession.RunWithBinding with run options.
func (c calls) run(session, options, binding native) error {
	status := C.run(c.table, session, options, binding)
	if status == nil {
		return nil
	}
	text := strings.TrimSpace(C.GoString(C.message(c.table, status)))
	C.release(c.table, status)
	return errors.New(text)
}
