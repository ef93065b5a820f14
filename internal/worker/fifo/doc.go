// Package fifo is a line in which whoever came first comes first, and that whoever stands in
// it may leave from any place.
//
// An element holds its own place, so that joining and leaving allocate nothing.
//
// Called by worker/admission and inference/batch. Nothing is safe for concurrent use: the
// caller's lock guards the line and all places in it.
package fifo
