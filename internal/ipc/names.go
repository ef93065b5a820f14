package ipc

// Environment variables that a worker inherits besides LISTEN_FDS, LISTEN_FDNAMES,
// LISTEN_PID (sd_listen_fds(3)) and NOTIFY_SOCKET (sd_notify(3)).
const (
	EnvPool       = "PREFORKD_POOL"
	EnvSlot       = "PREFORKD_SLOT"
	EnvGeneration = "PREFORKD_GENERATION"
	// EnvFDNames names the descriptors that follow the listening sockets, joined
	// by colons as in LISTEN_FDNAMES. They belong to our own worker; another
	// program never looks at them.
	EnvFDNames = "PREFORKD_FDNAMES"
)

// Names of descriptors in EnvFDNames.
const (
	FDManifest = "manifest" // sealed memfd: a Manifest in JSON
	FDLifeline = "lifeline" // read end of a pipe; end-of-file: the supervisor has died
)

// KeyFailure is the sd_notify key under which a worker that cannot start sends its
// Failure, encoded with EncodeFailure, before it ends.
const KeyFailure = "X_PREFORKD_FAILURE"
