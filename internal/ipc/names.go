package ipc

import (
	"strconv"
	"time"
)

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
	// EnvRow is the ticket of the worker's row on the scoreboard.
	EnvRow = "PREFORKD_ROW"
	// EnvVault is, for a supervisor, the descriptor of its end of the channel to the main
	// process; after a comma, if there is one, that by which it was executed.
	EnvVault = "PREFORKD_VAULT"
	// EnvProgram is, for a supervisor, the path of its program as the operator means it.
	EnvProgram = "PREFORKD_PROGRAM"
	// EnvFallen, if set, tells a supervisor that takes a service over to return to the
	// generation before: the program of the one in charge keeps dying.
	EnvFallen = "PREFORKD_FALLEN"
	// EnvReturn tells a successor which generation it shall return to; without it it makes one
	// of what the configuration says.
	EnvReturn = "PREFORKD_RETURN"
	// EnvHeld, if set, tells a worker not to accept before ControlAccept.
	EnvHeld = "PREFORKD_HELD"
	// EnvProves, if set, tells a worker that its generation serves nobody yet: it is ready only when
	// its helpers are, and what they take and give fits.
	EnvProves = "PREFORKD_PROVES"
)

// Names of descriptors in EnvFDNames.
const (
	FDManifest = "manifest" // sealed memfd: a Manifest in JSON
	FDLifeline = "lifeline" // read end of a pipe; end-of-file: the main process has died
	FDBoard    = "board"    // the scoreboard
	FDControl  = "control"  // this worker's end of its control channel
	FDAdoptIn  = "adopt-r"  // the queue of connections that leaving workers give away
	FDAdoptOut = "adopt-w"
	FDWaitIn   = "wait-r" // the queue of connections whose request, unread, waits for any worker's permit
	FDWaitOut  = "wait-w"
	FDHelpers  = "helpers" // the directory of the sockets of helpers, O_PATH; absent: there are none
	FDLibrary  = "library" // the engine's library, for dlopen(3) by /proc/self/fd; absent: by Manifest.Library
)

// Names of what the main process keeps, beside FDBoard and FDLifeline. After a prefix comes
// what makes the name unique.
const (
	KeptNotify     = "notify"
	KeptStderr     = "stderr"  // the main process's own
	KeptSums       = "sums"    // sealed memory: what a supervisor that has left had counted
	KeptService    = "service" // sealed memory: what the next start of the service goes on with
	KeptAdmin      = "admin"
	KeptHelpers    = "helpers" // the directory of the sockets of helpers
	KeptOps        = "ops"
	KeptInherited  = "inherited/"  // a number and the name of a socket of the service manager
	KeptSocket     = "socket/"     // a listening socket
	KeptQueue      = "queue/"      // one end of a queue of connections
	KeptOutput     = "output/"     // one end of the pipe of a row
	KeptGeneration = "generation/" // sealed memory: what a generation runs; then its files
)

// FDHelper is what a helper's socket is called in LISTEN_FDNAMES.
const FDHelper = "helper"

// StateReady is the state of a row of the scoreboard whose process may be asked.
const StateReady = 3

// HelperSocket is the name of the socket of the helper of that pool and generation whose claim
// of a row has that ticket, in the directory FDHelpers.
func HelperSocket(generation uint64, ticket, pool string) string {
	return strconv.FormatUint(generation, 10) + "." + ticket + "." + pool
}

// PrepareCommand is the first argument of a worker's program that shall prepare a model
// instead of serving; worker.Prepare reads the others.
const PrepareCommand = "prepare"

// PreparedGraph is the file among those of a prepared model whose bytes are not shared.
const PreparedGraph = "model.onnx"

// What a supervisor asks of a worker over the control channel.
const (
	ControlAccept   = "accept"    // a held worker may accept; body and reply are null
	ControlSelfTest = "self-test" // run every model once; the reply is null, or a Failure
	ControlShare    = "share"     // give away a share of the idle connections; the body is a Share
	ControlCount    = "count"     // the reply is a Count
	ControlLevel    = "level"     // give away connections beyond a level; the body is a Level
	ControlSettle   = "settle"    // end what share and level have begun; the body is a Settle

	// Two phases of a change of models; the body of each is a ModelChange.
	ControlPrepare = "models-prepare" // load beside what serves, and try it
	ControlCommit  = "models-commit"  // serve what was prepared
	ControlDrop    = "models-drop"    // forget it

	ControlTaskReturn = "task-return" // give a task of a worker that has ended back to the queue; the body is a TaskReturn
	ControlTasks      = "tasks"       // what an operator wants of tasks; the body is a TaskOrder, the reply its answer
)

// What a worker asks of the supervisor over the control channel.
const (
	ControlModel  = "model"  // load or unload a model in the whole service; the body is a ModelOrder
	ControlMemory = "memory" // take notice of what models take; the body is a MemoryReport
)

// Share is how many of its connections a worker gives away, each between two requests:
// one in Of. Meanwhile it takes none. That holds for the round: until it has given them, or
// Settle names it.
type Share struct {
	Of    int    `json:"of"`
	Round uint64 `json:"round"`
}

// Count is how many connections a worker has.
type Count struct {
	Connections int `json:"connections"`
}

// Level is what makes the workers of a pool have the same number of connections: each gives
// away those beyond the level, and takes only while it is below. That holds for the round:
// until Settle names it, or LevelLimit has passed.
type Level struct {
	Connections int    `json:"connections"`
	Round       uint64 `json:"round"`
}

// Settle ends a round and those before it, also such as have yet to be heard of: every
// worker takes, and none gives, so that one that leaves finds takers for all it has.
type Settle struct {
	Round uint64 `json:"round"`
}

// LevelLimit ends a round whose end nobody says: what a worker gives must find a taker.
const LevelLimit = 30 * time.Second

// KeyProgram is the key under which a supervisor that is in charge tells the main process
// its program's path, as the operator means it.
const KeyProgram = "X_PREFORKD_PROGRAM"

// Keys by which supervisor and main process agree on what outlives both, in the store of the
// service manager (FileDescriptorStoreMax= in systemd.service(5)).
const (
	// KeyOutlives, with FDSTORE=1, asks to have the descriptor kept there as well.
	KeyOutlives = "X_PREFORKD_OUTLIVES"
	// KeyStore tells whoever fetches that there is such a store.
	KeyStore = "X_PREFORKD_STORE"
	// KeyRestored tells whoever fetches that what there is comes from it: no process of the
	// service that left it is there any more.
	KeyRestored = "X_PREFORKD_RESTORED"
)

// KeyFailure is the sd_notify key under which a worker that cannot start sends its
// Failure, encoded with EncodeFailure, before it ends.
const KeyFailure = "X_PREFORKD_FAILURE"
