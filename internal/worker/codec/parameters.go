package codec

import (
	"bytes"
	"time"
)

// parameters reads an object of parameters; member reads the value of a key. Those that
// nobody knows are checked and ignored.
func (s *scanner) parameters(member func(key []byte) bool) bool {
	_, ok := s.object("an object", member)
	return ok
}

// boolean reads true or false.
func (s *scanner) boolean(v *bool) bool {
	switch s.peek() {
	case 't':
		*v = true
		return s.literal("true")
	case 'f':
		*v = false
		return s.literal("false")
	}
	return s.unexpected("true or false")
}

// form reads whether outputs are sent in binary form.
func (s *scanner) form(f *form) bool {
	var binary bool
	if !s.boolean(&binary) {
		return false
	}
	*f = inJSON
	if binary {
		*f = inBinary
	}
	return true
}

// size reads an integer that is not negative.
func (s *scanner) size(v *int) bool {
	s.space()
	at := s.i
	n, ok := s.int64()
	if ok && n < 0 {
		return s.failf(at, "%d is negative", n)
	}
	*v = int(n)
	return ok
}

// MaxTimeout is the longest time that a client may say it waits.
const MaxTimeout = 24 * time.Hour

// timeout reads a number of microseconds.
func (s *scanner) timeout(v *time.Duration) bool {
	s.space()
	at, n := s.i, 0
	if !s.size(&n) {
		return false
	}
	if n > int(MaxTimeout/time.Microsecond) {
		return s.failf(at, "%d microseconds are more than %s", n, MaxTimeout)
	}
	*v = time.Duration(n) * time.Microsecond
	return true
}

// Timeout returns what Decode will make the Timeout of the request in body, which is all
// JSON, without reading its tensors; 0 where there is none or body is no good request.
func Timeout(body []byte) (v time.Duration) {
	if !bytes.Contains(body, []byte(`"timeout"`)) {
		return 0
	}
	var s scanner
	if !s.start(body) {
		return 0
	}
	_, _ = s.object("'{'", func(key []byte) bool {
		if string(key) != "parameters" {
			return s.skipUnknown(1)
		}
		return s.parameters(func(key []byte) bool {
			if string(key) != "timeout" {
				return s.skipUnknown(2)
			}
			if s.path.push(part{name: "timeout"}); !s.timeout(&v) {
				v = 0
			}
			return false // that is all
		})
	})
	return v
}

// refuse fails at the value of key, a parameter that asks for what there is not.
func (s *scanner) refuse(key []byte, text string) bool {
	s.path.push(part{key: key})
	s.space()
	return s.fail(s.i, text)
}

// Why some parameters are refused rather than ignored: an answer without what they ask
// for would be a wrong one.
const (
	noSequences      = "sequences are not supported: send each request without it"
	noSharedMemory   = "shared memory is not supported: send the tensor's data"
	noClassification = "classification is not supported: ask for the tensor and choose its largest values"
	reserved         = "parameters that begin with triton_ are reserved"
)

// parameter reads one of the request's parameters.
func (r *InferRequest) parameter(key []byte) bool {
	s, ok, ignored := &r.s, true, 0
	switch string(key) {
	case "binary_data_output":
		ok = s.once(keyBinary, "binary_data_output") && s.form(&r.form)
	case "priority":
		ok = s.once(keyPriority, "priority") && s.size(&ignored)
	case "timeout":
		ok = s.once(keyTimeout, "timeout") && s.timeout(&r.Timeout)
	case "sequence_id", "sequence_start", "sequence_end":
		return s.refuse(key, noSequences)
	default:
		if bytes.HasPrefix(key, []byte("triton_")) {
			return s.refuse(key, reserved)
		}
		return s.skipUnknown(2)
	}
	if ok {
		s.path.pop()
	}
	return ok
}

// inputParameter reads one of an input's parameters.
func (r *InferRequest) inputParameter(key []byte) bool {
	s, in := &r.s, &r.input
	switch string(key) {
	case "binary_data_size":
		if !s.once(keyBinary, "binary_data_size") {
			return false
		}
		s.space()
		in.binaryAt = s.i
		if !s.size(&in.binary) {
			return false
		}
		s.path.pop()
		return true
	case "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset":
		return s.refuse(key, noSharedMemory)
	case "content_type":
		if r.answer {
			return r.contentType()
		}
	}
	return s.skipUnknown(4)
}

// outputParameter reads one of an output's parameters.
func (r *InferRequest) outputParameter(key []byte) bool {
	s := &r.s
	switch string(key) {
	case "binary_data":
		if !s.once(keyBinary, "binary_data") || !s.form(&r.wanted) {
			return false
		}
		s.path.pop()
		return true
	case "classification":
		return s.refuse(key, noClassification)
	case "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset":
		return s.refuse(key, noSharedMemory)
	}
	return s.skipUnknown(4)
}
