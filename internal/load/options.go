package load

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Options say what to send, where, how fast and for how long. Addr and one of Request
// and Each are needed; everything else may be zero.
type Options struct {
	// Addr is host:port or unix:/path.
	Addr string
	// Request is one whole request as it goes over the wire; see Get and Post.
	Request []byte
	// Each, instead of Request, appends to dst the n-th request (from 0) of a client
	// (from 0) and returns the result. Clients call it concurrently.
	Each func(dst []byte, client int, n uint64) []byte

	// Conns is how many clients, so how many connections, there are; 0: 1.
	Conns int
	// Keepalive sends requests over the same connection for as long as the service
	// keeps it; otherwise each request has its own, and says Connection: close.
	Keepalive bool
	// Think is the time between an answer and the same client's next request, in a
	// closed loop.
	Think time.Duration

	// Rate, if positive, makes the loop open: that many requests arrive each second.
	Rate float64
	// Poisson draws the times between arrivals from an exponential distribution;
	// otherwise they are all the same.
	Poisson bool
	// Seed of the Poisson schedule: the same one gives the same schedule.
	Seed uint64

	// Warmup precedes the measured time: the same load, counted apart.
	Warmup time.Duration
	// Duration is the measured time; 0: until Requests, Stop or the context's end.
	Duration time.Duration
	// Requests, if positive, is how many measured requests are sent.
	Requests uint64

	// Timeout bounds each request from the dial or the first byte written to the last
	// byte of its answer; 0: 10 s.
	Timeout time.Duration
	// Pause is what a client waits after a failed dial, so that a service that is
	// down is not stormed; 0: 10 ms, negative: none.
	Pause time.Duration

	// Status is the expected status; 0: any from 200 to 299.
	Status int
	// Check, if set, sees each answer of the expected status. An error is a Mismatch.
	// body is valid until it returns. Clients call it concurrently.
	Check func(status int, body []byte) error

	// Trace keeps when each measured answer came and how long it took: 16 bytes each.
	Trace bool

	// KeepFailures is how many failures, and how many idle closes, the report lists, the
	// first ones; 0: 1000, negative: none. All are counted.
	KeepFailures int
}

const (
	defaultTimeout  = 10 * time.Second
	defaultPause    = 10 * time.Millisecond
	defaultFailures = 1000
)

// complete returns o with its defaults filled in, or what is wrong with it.
func (o Options) complete() (Options, error) {
	network, address := o.target()
	switch {
	case address == "":
		return o, errors.New("load: no address")
	case network == "tcp" && !strings.Contains(address, ":"):
		return o, fmt.Errorf("load: address %q is neither host:port nor unix:/path", o.Addr)
	case (len(o.Request) == 0) == (o.Each == nil):
		return o, errors.New("load: one of Request and Each is needed")
	case o.Each == nil && endOfHead(o.Request) < 0:
		return o, errors.New("load: the request has no empty line after its header")
	case o.Conns < 0 || o.Rate < 0 || o.Think < 0 || o.Warmup < 0 || o.Duration < 0 || o.Timeout < 0:
		return o, errors.New("load: a negative number of connections, rate or time")
	case o.Rate > 0 && o.Think > 0:
		return o, errors.New("load: a think time has no meaning at a fixed rate")
	}
	o.Conns = max(o.Conns, 1)
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Pause == 0 {
		o.Pause = defaultPause
	}
	if o.KeepFailures == 0 {
		o.KeepFailures = defaultFailures
	}
	if !o.Keepalive && o.Each == nil {
		o.Request = sayClose(nil, o.Request)
	}
	return o, nil
}

// target returns the arguments of a dial to o.Addr.
func (o *Options) target() (network, address string) {
	if path, ok := strings.CutPrefix(o.Addr, "unix:"); ok {
		return "unix", path
	}
	return "tcp", o.Addr
}
