package codec

import "bytes"

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
		ok = s.once(keyTimeout, "timeout") && s.size(&ignored)
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
