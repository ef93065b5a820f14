package scoreboard

import (
	"sync/atomic"
	"unsafe"
)

// Offsets are part of the layout: these lines do not compile when one moves. New fields
// take the place of spare words.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(Fields{})-rowBytes]
	_ = [1]struct{}{}[unsafe.Sizeof(Fields{})%lineBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.claim)-0*lineBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.exit)-0*lineBytes-56]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.Ticked)-1*lineBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.BusySince)-1*lineBytes-8]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.model)-1*lineBytes-16]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.request)-1*lineBytes-24]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.InFlight)-2*lineBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.Idle)-2*lineBytes-16]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.Limit)-2*lineBytes-24]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.Requests)-3*lineBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.Responses)-3*lineBytes-8]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.Forsaken)-3*lineBytes-48]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.Accepted)-4*lineBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.HandoffRefused)-4*lineBytes-24]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.Queued)-4*lineBytes-32]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.Helped)-4*lineBytes-56]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.EngineCalls)-5*lineBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.EngineNs)-5*lineBytes-8]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.Refused)-5*lineBytes-16]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.Expired)-5*lineBytes-40]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.Lost)-6*lineBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.Exits)-6*lineBytes-8]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.PSS)-7*lineBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.Private)-7*lineBytes-8]
	_ = [1]struct{}{}[unsafe.Offsetof(Fields{}.Shared)-7*lineBytes-16]

	_ = [1]struct{}{}[unsafe.Sizeof(Histogram{})-histogramBytes]
	_ = [1]struct{}{}[unsafe.Sizeof(Histogram{})%lineBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(Histogram{}.buckets)-lineBytes]

	_ = [1]struct{}{}[unsafe.Sizeof(modelFields{})-modelBytes]
	_ = [1]struct{}{}[unsafe.Sizeof(modelFields{})%lineBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(modelFields{}.quarantined)-8]
	_ = [1]struct{}{}[unsafe.Offsetof(modelFields{}.Deaths)-16]
	_ = [1]struct{}{}[unsafe.Offsetof(modelFields{}.since)-48]
	_ = [1]struct{}{}[unsafe.Offsetof(modelFields{}.Served)-1*lineBytes]
	_ = [1]struct{}{}[unsafe.Sizeof(Served{})-lineBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(modelFields{}.Failures)-9*lineBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(modelFields{}.digest)-2*lineBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(modelFields{}.version)-2*lineBytes-32]
	_ = [1]struct{}{}[unsafe.Offsetof(modelFields{}.name)-3*lineBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(modelFields{}.cause)-7*lineBytes]

	_ = [1]struct{}{}[unsafe.Sizeof(tally{})-tallyBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(tally{}.count)-8]
	_ = [1]struct{}{}[unsafe.Offsetof(tally{}.name)-16]

	_ = [1]struct{}{}[unsafe.Sizeof(Layers{})-layersBytes]
	_ = [1]struct{}{}[unsafe.Sizeof(Running{})-runningBytes]
	_ = [1]struct{}{}[unsafe.Sizeof(Queue{})-queueBytes]
	_ = [1]struct{}{}[unsafe.Offsetof(LayerFields{}.Waiting)-8]
	_ = [1]struct{}{}[unsafe.Offsetof(LayerFields{}.Refused)-16]

	_ = [1]struct{}{}[unsafe.Sizeof(Stamp{})-unsafe.Sizeof(atomic.Uint64{})]
)

// The functions below point into a mapping, which is page-aligned and not the garbage
// collector's. The slice expressions panic where the check of the header did not.

func wordAt(mem []byte, offset uint64) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(mem[offset : offset+wordBytes])))
}

func fieldsAt(mem []byte, offset uint64) *Fields {
	return (*Fields)(unsafe.Pointer(unsafe.SliceData(mem[offset : offset+rowBytes])))
}

func histogramAt(mem []byte, offset uint64) *Histogram {
	return (*Histogram)(unsafe.Pointer(unsafe.SliceData(mem[offset : offset+histogramBytes])))
}

func modelAt(mem []byte, offset uint64) *modelFields {
	return (*modelFields)(unsafe.Pointer(unsafe.SliceData(mem[offset : offset+modelBytes])))
}

func tallyAt(mem []byte, offset uint64) *tally {
	return (*tally)(unsafe.Pointer(unsafe.SliceData(mem[offset : offset+tallyBytes])))
}

func runningAt(mem []byte, offset uint64) *Running {
	return (*Running)(unsafe.Pointer(unsafe.SliceData(mem[offset : offset+runningBytes])))
}

func queueAt(mem []byte, offset uint64) *Queue {
	return (*Queue)(unsafe.Pointer(unsafe.SliceData(mem[offset : offset+queueBytes])))
}

func layersAt(mem []byte, offset uint64) *Layers {
	return (*Layers)(unsafe.Pointer(unsafe.SliceData(mem[offset : offset+layersBytes])))
}

func stampOf(word *atomic.Uint64) *Stamp { return (*Stamp)(unsafe.Pointer(word)) }
