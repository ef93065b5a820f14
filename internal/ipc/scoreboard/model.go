package scoreboard

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// modelBytes is the size of modelFields; maxModels is how many rows a board may have of
// them, newModels how many a new one gets: a reload has two generations' models.
const (
	modelBytes = 640
	maxModels  = 1 << 16
	newModels  = 256
)

// Model is the place of one version of one model, by its content. Workers hold it as long
// as the generation lives that names it, and only read what is here.
type Model struct {
	*modelFields
	number int
}

// modelFields is a model's row as it lies in memory.
type modelFields struct {
	// The supervisor's. A worker reads quarantined in each request.
	claim       atomic.Uint64 // see modelFree
	quarantined atomic.Uint64 // 1: its requests are refused
	Deaths      Counter       // workers that ended in the middle of its requests; zeroed by ClaimModel
	request     atomic.Uint64 // digest of the request of the latest
	count       atomic.Uint64 // of the quarantine: deaths that led to it
	window      atomic.Uint64 // ns in which they were counted
	since       atomic.Uint64 // Unix time in nanoseconds
	_           uint64

	// What workers count of requests that were answered, all of them here. ClaimModel zeroes it.
	Served

	digest  [4]atomic.Uint64 // SHA-256, the binary form
	version [4]atomic.Uint64 // texts end with their first zero
	name    [32]atomic.Uint64
	cause   [16]atomic.Uint64 // of the quarantine: how the latest worker ended

	// The same of those that were not.
	Failures Counter
	FailedNs Counter // from their begin to the answer
	_        [6]uint64
}

// Served is what requests were answered with a model's outputs, and what that took.
type Served struct {
	Requests   Counter
	Inferences Counter // elements of their batches
	Executions Counter // of the engine
	last       atomic.Uint64
	QueueNs    Counter // waiting for their turn
	InputNs    Counter // reading tensors out of them
	EngineNs   Counter
	OutputNs   Counter // writing the answers
}

// Mark notes that a request has been answered now.
func (s *Served) Mark(now time.Time) { s.last.Store(uint64(now.UnixMilli())) }

// Last is when Mark was called last; false: never.
func (s *Served) Last() (time.Time, bool) {
	ms := s.last.Load()
	return time.UnixMilli(int64(ms)), ms > 0
}

// zero clears what is counted of a model.
func (m *modelFields) zero() {
	for _, w := range []*atomic.Uint64{
		&m.Deaths.v, &m.Requests.v, &m.Inferences.v, &m.Executions.v, &m.last, &m.QueueNs.v, &m.InputNs.v, &m.EngineNs.v, &m.OutputNs.v,
		&m.Failures.v, &m.FailedNs.v,
	} {
		w.Store(0)
	}
}

// claim: what the row is in bits 0 and 1, and how often it has been something else above.
const (
	modelFree     = 0
	modelClaiming = 1 // its identity is being written
	modelHeld     = 2
	modelLife     = 3
	modelTurn     = 4
)

// ModelKey is which model a row is of. The same name and version with other content is
// another model.
type ModelKey struct {
	Name    string
	Version string
	Digest  string // hexadecimal SHA-256 of its content
}

// ErrNoModelRow is returned by ClaimModel when every row is held, or when the board, which
// an earlier version has made, has none.
var ErrNoModelRow = errors.New("the scoreboard has no row left for a model")

// ClaimModel returns the row of a model: the one that it has, with all that is noted there,
// or a free one with nothing. Only supervisors call it. Two that claim the same model at
// once may get two rows; each then notes its own.
func (b *Board) ClaimModel(key ModelKey) (*Model, error) {
	digest, err := hex.DecodeString(key.Digest)
	switch {
	case err != nil || len(digest) != 8*len(modelFields{}.digest):
		return nil, fmt.Errorf("digest %q is no hexadecimal SHA-256", key.Digest)
	case !fits(key.Name, len(modelFields{}.name)) || !fits(key.Version, len(modelFields{}.version)):
		return nil, fmt.Errorf("name %q or version %q is too long for a row of the scoreboard", key.Name, key.Version)
	}
	for _, m := range b.models {
		if k, ok := m.Key(); ok && k == key {
			return m, nil
		}
	}
	for _, m := range b.models {
		old := m.claim.Load()
		if old&modelLife != modelFree || !m.claim.CompareAndSwap(old, old|modelClaiming) {
			continue
		}
		for _, w := range []*atomic.Uint64{&m.quarantined, &m.request, &m.count, &m.window, &m.since} {
			w.Store(0)
		}
		m.zero()
		storeText(m.digest[:], string(digest))
		storeText(m.version[:], key.Version)
		storeText(m.name[:], key.Name)
		storeText(m.cause[:], "")
		m.claim.Store(old | modelHeld)
		return m, nil
	}
	return nil, ErrNoModelRow
}

// FreeModels frees the rows that keep does not want. Only the supervisor in charge calls
// it, while nobody claims; no worker of the models that lose their row may be left.
func (b *Board) FreeModels(keep func(*Model) bool) {
	for _, m := range b.models {
		if old := m.claim.Load(); old&modelLife != modelFree && !keep(m) {
			m.claim.CompareAndSwap(old, old&^modelLife+modelTurn)
		}
	}
}

// Model returns the row with a number, as Number gives it; nil: there is none.
func (b *Board) Model(number int) *Model {
	if number < 1 || number > len(b.models) {
		return nil
	}
	return b.models[number-1]
}

// Number names the row in manifests and in workers' rows. It is from 1 on: 0 is no row.
func (m *Model) Number() int { return m.number }

// Key is which model the row is of; false: none.
func (m *Model) Key() (ModelKey, bool) {
	c := m.claim.Load()
	if c&modelLife != modelHeld {
		return ModelKey{}, false
	}
	k := ModelKey{Name: loadText(m.name[:]), Version: loadText(m.version[:]), Digest: hex.EncodeToString(loadBytes(m.digest[:]))}
	return k, m.claim.Load() == c
}

// Blame notes that a worker ended in the middle of a request with that digest.
func (m *Model) Blame(request uint64) {
	m.request.Store(request)
	m.Deaths.Add(1)
}

// Request is the digest of the request that Blame noted last.
func (m *Model) Request() uint64 { return m.request.Load() }

// Quarantine is why a model's requests are refused.
type Quarantine struct {
	Count   int           // workers that ended in the middle of its requests
	Window  time.Duration // within this time
	Cause   string        // how the last of them ended
	Request uint64        // digest of the last such request
	Since   time.Time
}

// Quarantine has workers refuse the model's requests from now on.
func (m *Model) Quarantine(q Quarantine) {
	m.count.Store(uint64(q.Count))
	m.window.Store(uint64(q.Window))
	m.since.Store(uint64(q.Since.UnixNano()))
	m.request.Store(q.Request)
	storeText(m.cause[:], q.Cause)
	m.quarantined.Store(1)
}

// Release ends the quarantine.
func (m *Model) Release() { m.quarantined.Store(0) }

// Quarantined tells whether the model's requests are refused.
func (m *Model) Quarantined() bool { return m.quarantined.Load() != 0 }

// Why returns what Quarantine said last. It belongs together unless a supervisor is
// writing it at this moment.
func (m *Model) Why() Quarantine {
	return Quarantine{
		Count: int(m.count.Load()), Window: time.Duration(m.window.Load()), Cause: loadText(m.cause[:]),
		Request: m.request.Load(), Since: time.Unix(0, int64(m.since.Load())),
	}
}

// Describe words q for clients and operators.
func (q Quarantine) Describe(name, version string) string {
	workers := "1 worker"
	if q.Count != 1 {
		workers = fmt.Sprintf("%d workers", q.Count)
	}
	return fmt.Sprintf("model %q version %s is quarantined: %s ended in the middle of its requests within %v (the last: %s; request %s); "+
		"to have it run again: preforkd models release %s, or reload another one",
		name, version, workers, q.Window, q.Cause, RequestText(q.Request), name)
}

// Several is the digest of requests that run together: any of them may be at fault.
const Several = 0

// RequestText is a request's digest as operators read it.
func RequestText(digest uint64) string {
	if digest == Several {
		return "several"
	}
	return fmt.Sprintf("%016x", digest)
}

// fits tells whether text ends within so many words.
func fits(text string, words int) bool {
	return text != "" && len(text) < 8*words && !strings.Contains(text, "\x00")
}

// storeText writes the beginning of text that fits, and zeros.
func storeText(words []atomic.Uint64, text string) {
	if room := 8 * len(words); len(text) > room {
		text = strings.ToValidUTF8(text[:room], "") // the cut may go through a character
	}
	var word [8]byte
	for i := range words {
		clear(word[:])
		if 8*i < len(text) {
			copy(word[:], text[8*i:])
		}
		words[i].Store(binary.NativeEndian.Uint64(word[:]))
	}
}

func loadText(words []atomic.Uint64) string {
	text, _, _ := strings.Cut(string(loadBytes(words)), "\x00")
	return text
}

func loadBytes(words []atomic.Uint64) []byte {
	b := make([]byte, 0, 8*len(words))
	for i := range words {
		b = binary.NativeEndian.AppendUint64(b, words[i].Load())
	}
	return b
}
