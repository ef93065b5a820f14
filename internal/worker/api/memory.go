package api

import (
	"encoding/binary"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"

	"github.com/valyala/fasthttp"
)

// A large request needs a multiple of its size, for a moment. Left to itself the collector
// waits until there is twice as much as was in use when it last ran, and what requests leave
// behind one after the other adds up. So it runs before more memory is taken for the next
// large one, if it has not run meanwhile.
//
// Not more often: each run costs some milliseconds, most of them because memory goes back to
// the system that the next request asks for again.

// mostAbandoned is how many times http.max_body requests may leave behind.
const mostAbandoned = 2

// abandoned is what large requests have left behind since the collector ran.
type abandoned struct {
	sync.Mutex
	bytes int
	runs  uint64 // of the collector, when the first of them was
	any   bool   // since the last GiveBack
	read  [1]metrics.Sample
}

// settle forgets what the collector has found meanwhile. The lock is held.
func (a *abandoned) settle() {
	a.read[0].Name = "/gc/cycles/total:gc-cycles"
	metrics.Read(a.read[:])
	if n := a.read[0].Value.Uint64(); n != a.runs {
		a.runs, a.bytes = n, 0
	}
}

// abandon notes that n bytes are of no use once the request ends.
func (a *API) abandon(n int) {
	if n <= keepBytes {
		return
	}
	a.abandoned.Lock()
	defer a.abandoned.Unlock()
	a.abandoned.settle()
	a.abandoned.bytes += n
	a.abandoned.any = true
}

// tidy has the collector run, where that is due, before more memory is taken for a request
// with this body.
func (a *API) tidy(body []byte) {
	if cap(body) <= keepBytes {
		return
	}
	a.abandoned.Lock()
	defer a.abandoned.Unlock()
	a.abandoned.settle()
	if a.abandoned.bytes >= mostAbandoned*a.limits.MaxBody {
		runtime.GC()
		a.abandoned.bytes = 0
	}
}

// GiveBack returns to the system what large requests needed since the last call. It is
// called every few seconds.
func (a *API) GiveBack() {
	a.abandoned.Lock()
	due := a.abandoned.any
	a.abandoned.any = false
	a.abandoned.Unlock()
	if due {
		debug.FreeOSMemory()
	}
}

// plainBody takes what a compressed body holds. Its memory doubles, but not beyond limit.
type plainBody struct {
	b     []byte
	limit int
}

// expect makes room for so many bytes.
func (u *plainBody) expect(size int) { u.b = make([]byte, 0, min(size, u.limit)) }

// Write implements io.Writer.
func (u *plainBody) Write(p []byte) (int, error) {
	need := len(u.b) + len(p)
	if need > u.limit {
		return 0, fasthttp.ErrBodyTooLarge
	}
	if need > cap(u.b) {
		larger := make([]byte, len(u.b), min(max(need, 2*cap(u.b)), u.limit))
		copy(larger, u.b)
		u.b = larger
	}
	u.b = append(u.b, p...)
	return len(p), nil
}

// mostPacked is how many bytes one byte of gzip's format holds at most (zlib: Technical
// Details, "Maximum Compression Factor").
const mostPacked = 1032

// gzipSize returns how much a body compressed with gzip holds, as it says itself at its end
// (RFC 1952, section 2.3.1). It may say anything: but not more than can be.
func gzipSize(body []byte) int {
	if len(body) < 4 {
		return 0
	}
	return min(int(binary.LittleEndian.Uint32(body[len(body)-4:])), mostPacked*len(body))
}
