package handoff

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Kind says in which condition a connection is passed on.
type Kind uint16

// Idle: between two requests, or before the first. Nothing of the next one has been read.
const Idle Kind = 1

// Message is what travels with a connection.
type Message struct {
	Kind       Kind
	Generation uint64    // of the worker that gives it away
	Listener   int       // index of the listening socket that it came from
	Since      time.Time // when a worker first saw the connection; wall clock
	// Client is whom the connection's PROXY header, which has been read, names; the zero
	// value: there was none, or it named nobody.
	Client netip.AddrPort
}

// A message on the wire, little-endian. Workers of different builds share a queue, so
// fields are only ever appended, in the room that is zero today; version says which are
// set. A message of another size or magic is not ours.
//
//	0 magic u32 · 4 version u16 · 6 kind u16 · 8 id u64 · 16 generation u64
//	24 since i64, nanoseconds since 1970 · 32 listener i32
//	from version 2 on: 36 port of the client u16 · 38 bytes of its address, 0, 4 or 16, u16 · 40 address
//	56 zero
const (
	messageBytes = 64
	magic        = 0x4f484650 // "PFHO"
	version      = 2
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
	return w
}

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
	return m, true
}
