package handoff

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Kind says in which condition a connection is passed on.
type Kind uint16

const (
	// Idle: between two requests, or before the first. Nothing of the next one has been read.
	Idle Kind = 1
	// Waiting: likewise, and all of the next one is in the kernel, for whoever has a permit.
	Waiting Kind = 2
)

// Message is what travels with a connection.
type Message struct {
	Kind       Kind
	Generation uint64    // of the worker that gives it away
	Listener   int       // index of the listening socket that it came from
	Since      time.Time // when a worker first saw the connection; wall clock
	// Client is whom the connection's PROXY header, which has been read, names; the zero
	// value: there was none, or it named nobody.
	Client netip.AddrPort
	// Of a Waiting one, when its request was seen, by Clock, and how long that may take at
	// most; 0: as long as any. They travel in microseconds and hundredths of a second.
	Seen  time.Duration
	Limit time.Duration
}

// Clock is CLOCK_MONOTONIC, which all processes of a machine share and nobody sets.
func Clock() time.Duration { return origin.kernel + time.Since(origin.here) }

// origin joins Go's monotonic clock, which is the kernel's without its origin, to that.
var origin = func() (o struct {
	here   time.Time
	kernel time.Duration
},
) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // POSIX clock, in every kernel since 2.6
	}
	o.here, o.kernel = time.Now(), time.Duration(ts.Nano())
	return o
}()

// A message on the wire, little-endian. Workers of different builds share a queue, so
// fields are only ever appended, in the room that is zero today; version says which are
// set. A message of another size or magic is not ours.
//
//	0 magic u32 · 4 version u16 · 6 kind u16 · 8 id u64 · 16 generation u64
//	24 since i64, nanoseconds since 1970 · 32 listener i32
//	from version 2 on: 36 port of the client u16 · 38 bytes of its address, 0, 4 or 16, u16 · 40 address
//	from version 3 on: 56 seen u48, microseconds of CLOCK_MONOTONIC · 62 limit u16, hundredths of a second
const (
	messageBytes = 64
	magic        = 0x4f484650 // "PFHO"
	version      = 3
)

// wire is an encoded message. id is unique in the queue's life, so that two equal wires
// are one message.
type wire [messageBytes]byte

func (m Message) encode(id uint64) (w wire) {
	binary.LittleEndian.PutUint32(w[0:], magic)
	binary.LittleEndian.PutUint16(w[4:], version)
	binary.LittleEndian.PutUint16(w[6:], uint16(m.Kind))
	binary.LittleEndian.PutUint64(w[8:], id)
	binary.LittleEndian.PutUint64(w[16:], m.Generation)
	binary.LittleEndian.PutUint64(w[24:], uint64(m.Since.UnixNano()))
	binary.LittleEndian.PutUint32(w[32:], uint32(int32(m.Listener)))
	if m.Client.IsValid() {
		address := m.Client.Addr().AsSlice() // a zone means nothing to another process
		binary.LittleEndian.PutUint16(w[36:], m.Client.Port())
		binary.LittleEndian.PutUint16(w[38:], uint16(len(address)))
		copy(w[40:], address)
	}
	seen := uint64(max(m.Seen, 0) / time.Microsecond)
	limit := (max(m.Limit, 0) + limitUnit - 1) / limitUnit
	if limit > math.MaxUint16 {
		limit = 0
	}
	binary.LittleEndian.PutUint64(w[56:], seen&(1<<48-1)|uint64(limit)<<48)
	return w
}

const limitUnit = 10 * time.Millisecond

// decode returns false for what no Put has written.
func (w *wire) decode() (Message, bool) {
	if binary.LittleEndian.Uint32(w[0:]) != magic || binary.LittleEndian.Uint16(w[4:]) == 0 {
		return Message{}, false
	}
	m := Message{
		Kind:       Kind(binary.LittleEndian.Uint16(w[6:])),
		Generation: binary.LittleEndian.Uint64(w[16:]),
		Since:      time.Unix(0, int64(binary.LittleEndian.Uint64(w[24:]))),
		Listener:   int(int32(binary.LittleEndian.Uint32(w[32:]))),
	}
	if n := binary.LittleEndian.Uint16(w[38:]); binary.LittleEndian.Uint16(w[4:]) >= 2 && (n == 4 || n == 16) {
		address, _ := netip.AddrFromSlice(w[40 : 40+n])
		m.Client = netip.AddrPortFrom(address, binary.LittleEndian.Uint16(w[36:]))
	}
	if binary.LittleEndian.Uint16(w[4:]) >= 3 {
		word := binary.LittleEndian.Uint64(w[56:])
		m.Seen = time.Duration(word&(1<<48-1)) * time.Microsecond
		m.Limit = time.Duration(word>>48) * limitUnit
	}
	return m, true
}
