package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"preforkd/internal/ipc"
)

// MaxMessage is the longest message, in bytes of JSON.
const MaxMessage = 64 << 10

// message is what one packet carries. Fields that a receiver does not know are ignored.
type message struct {
	Kind string `json:"kind"`
	// ID is the asker's number for a request, and in its reply the same. Each side
	// counts its own from 1. In a refusal 0 means the channel itself.
	ID   uint64          `json:"id"`
	Body json.RawMessage `json:"body,omitempty"`
	// WithinMS says in a request how long the asker will wait, in milliseconds; 0: as
	// long as it takes.
	WithinMS int64 `json:"within_ms,omitempty"`
}

// Kinds that are not requests.
const (
	kindReply   = "reply"   // Body is the handler's result
	kindRefusal = "refusal" // Body is a refusal
)

// refusal is the error of a request, or the reason to give the channel up.
type refusal struct {
	Text string `json:"text"`
	Why  string `json:"why,omitempty"` // one of the constants below, for what callers branch on
	// Failure is an ipc.Failure as ipc.EncodeFailure writes it.
	Failure string `json:"failure,omitempty"`
}

const (
	whyUnknown = "unknown kind"
	whyBusy    = "busy"
)

var (
	// ErrUnknownKind: the other side has no handler for the kind; it may be older.
	ErrUnknownKind = errors.New("the other side does not know this request")
	// ErrBusy: the other side already runs as many handlers as it may.
	ErrBusy = errors.New("the other side is busy with other requests")
)

// encode returns the packet of m.
func encode(m message) ([]byte, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(data) > MaxMessage {
		return nil, fmt.Errorf("the message has %d bytes, %d are possible", len(data), MaxMessage)
	}
	return data, nil
}

// decode reads a packet. Every error is the sender's fault, and the text says so.
func decode(data []byte) (message, error) {
	var m message
	if err := json.Unmarshal(data, &m); err != nil {
		return message{}, fmt.Errorf("the other side sent what is no message: %w", err)
	}
	if m.Kind == "" || m.WithinMS < 0 || (m.ID == 0 && m.Kind != kindRefusal) {
		return message{}, fmt.Errorf("the other side sent a message of kind %.40q with id %d and limit %d ms", m.Kind, m.ID, m.WithinMS)
	}
	return m, nil
}

// request returns the packet of a question.
func request(kind string, id uint64, body any, within time.Duration) ([]byte, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	m := message{Kind: kind, ID: id, Body: raw}
	if within > 0 {
		m.WithinMS = int64((within + time.Millisecond - 1) / time.Millisecond) // the asker gives up first
	}
	return encode(m)
}

// answer returns the packet that answers request id with a handler's result.
func answer(id uint64, result any, err error) []byte {
	if err != nil {
		return refuse(id, err)
	}
	raw, err := json.Marshal(result)
	if err == nil {
		var data []byte
		if data, err = encode(message{Kind: kindReply, ID: id, Body: raw}); err == nil {
			return data
		}
	}
	return refuse(id, fmt.Errorf("encode the reply: %w", err))
}

// refuse returns the packet that answers request id with err.
func refuse(id uint64, err error) []byte {
	r := refusal{Text: err.Error()}
	var f *ipc.Failure
	switch {
	case errors.As(err, &f):
		r.Failure = ipc.EncodeFailure(f)
	case errors.Is(err, ErrUnknownKind):
		r.Why = whyUnknown
	case errors.Is(err, ErrBusy):
		r.Why = whyBusy
	}
	for {
		raw, err := json.Marshal(r)
		if err != nil { // strings always encode
			panic(err)
		}
		data, err := encode(message{Kind: kindRefusal, ID: id, Body: raw})
		if err == nil {
			return data
		}
		r = shorten(r)
	}
}

// shorten cuts a refusal that fits no message: its end is lost, not the exit status.
func shorten(r refusal) refusal {
	const part = MaxMessage / 16 // a byte becomes up to 6 in JSON, and a Failure is encoded twice
	r.Text = r.Text[:min(len(r.Text), part)]
	if r.Failure == "" {
		return r
	}
	f, err := ipc.DecodeFailure(r.Failure)
	if err != nil { // one that no process could end with
		r.Failure = ""
		return r
	}
	r.Failure = ipc.EncodeFailure(&ipc.Failure{
		Exit: f.Exit, What: f.What[:min(len(f.What), part/2)], Try: f.Try[:min(len(f.Try), part/2)],
	})
	return r
}

// refused returns the error in the body of a refusal: the *ipc.Failure itself if it
// carries one.
func refused(body json.RawMessage) error {
	var r refusal
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("the other side refused, and its reason is no message: %w", err)
	}
	if r.Failure != "" {
		if f, err := ipc.DecodeFailure(r.Failure); err == nil {
			return f
		}
	}
	switch r.Why {
	case whyUnknown:
		return ErrUnknownKind
	case whyBusy:
		return ErrBusy
	}
	return errors.New(r.Text)
}
