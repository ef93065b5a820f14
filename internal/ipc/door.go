package ipc

import "log/slog"

// The classes of paths that may ask for a token each, as settings and tokens name them.
const (
	ClassInfer   = "infer"
	ClassTasks   = "tasks"
	ClassControl = "control"
	ClassDocs    = "docs"
)

// Door is what a generation asks of those who connect, read once, before its first worker
// starts. It is secret: it is handed over in sealed memory and never printed.
type Door struct {
	Tokens Tokens `json:"tokens,omitempty"`
	// Certificates are those of the addresses with TLS, by the address as it is configured.
	Certificates map[string]Certificate `json:"certificates,omitempty"`
	// Seed is what all workers derive the keys of TLS session tickets from, so that each
	// resumes what another began. It changes with the certificates.
	Seed []byte `json:"seed,omitempty"`
}

// Tokens are the SHA-256 digests of the tokens of each class. Who is in no class has none.
type Tokens map[string][][]byte

// Certificate is a certificate with its chain, and its key, both in PEM.
type Certificate struct {
	Chain []byte `json:"chain"`
	Key   []byte `json:"key"`
}

// Socket says what is spoken on one listening socket of a pool.
type Socket struct {
	TLS   *Certificate `json:"tls,omitempty"`   // nil: no TLS
	Proxy bool         `json:"proxy,omitempty"` // each connection begins with a PROXY header
}

// String keeps secrets out of messages.
func (Door) String() string { return "(secret)" }

// LogValue keeps secrets out of the log.
func (Door) LogValue() slog.Value { return slog.StringValue("(secret)") }

// String keeps the key out of messages.
func (Certificate) String() string { return "(secret)" }

// LogValue keeps the key out of the log.
func (Certificate) LogValue() slog.Value { return slog.StringValue("(secret)") }

// String keeps digests, from which short tokens could be guessed, out of messages.
func (Tokens) String() string { return "(secret)" }

// LogValue keeps them out of the log.
func (Tokens) LogValue() slog.Value { return slog.StringValue("(secret)") }
