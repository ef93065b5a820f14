package worker

import (
	"github.com/cespare/xxhash/v2"

	"preforkd/internal/inference/repository"
	"preforkd/internal/ipc/scoreboard"
)

// entering says in this worker's row what is about to run, so that the supervisor knows
// of which model and which request the worker died, if it does. A self-test says nothing:
// the reload judges it. body is nil for several requests in one run.
func (w *worker) entering(m *repository.Model, body []byte) {
	digest := uint64(scoreboard.Several)
	if body != nil {
		digest = requestDigest(body)
	}
	w.row.Enter(m.Row, digest)
}

// refusal says why m must not run; empty: it may.
func (w *worker) refusal(m *repository.Model) string {
	row := w.board.Model(m.Row)
	if row == nil || !row.Quarantined() {
		return ""
	}
	return row.Why().Describe(m.Name, m.Version)
}

// digestedBytes is how much of a body is looked at: some microseconds' worth.
const digestedBytes = 64 << 10

// requestDigest tells requests apart: XXH64 of the body, as xxh64sum prints it. Of a body
// that is longer than digestedBytes it is that of the beginning, mixed with the length.
func requestDigest(body []byte) uint64 {
	if len(body) <= digestedBytes {
		return xxhash.Sum64(body)
	}
	return xxhash.Sum64(body[:digestedBytes]) ^ uint64(len(body))*0x9E3779B185EBCA87 // XXH64's first prime
}
