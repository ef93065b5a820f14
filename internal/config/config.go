package config

import "time"

// Config is every setting, resolved. It survives encoding/json unchanged, which is
// how a worker receives it.
type Config struct {
	// Listen are the addresses that clients connect to.
	Listen []Address `yaml:"listen" default:"127.0.0.1:8000" check:"nonempty"`
	// Workers is how many worker processes run.
	Workers Workers `yaml:"workers" default:"auto" check:"auto|1..1024"`
	Models  Models  `yaml:"models"`
	// User is whom the workers run as; empty: whom the supervisor does, unless that is root.
	User Account `yaml:"user"`
	// Group is their group; empty: the user's own.
	Group Account `yaml:"group"`
	// Groups are further ones, beside those that the user is a member of.
	Groups   []Account `yaml:"groups"`
	Predict  Predict   `yaml:"predict"`
	Worker   Worker    `yaml:"worker"`
	Timeouts Timeouts  `yaml:"timeouts"`
	Drain    Drain     `yaml:"drain"`
	// Concurrency is how many requests a worker reads and runs at once, Queue what waits.
	Concurrency Concurrency `yaml:"concurrency"`
	Queue       Queue       `yaml:"queue"`
	// Layers bound the requests of Routes, which are further paths that workers answer, by path.
	Layers Layers           `yaml:"layers"`
	Routes map[string]Route `yaml:"routes"`
	// Lab allows routes that only spend time.
	Lab       bool      `yaml:"lab" default:"false"`
	HTTP      HTTP      `yaml:"http"`
	Auth      Auth      `yaml:"auth"`
	Inference Inference `yaml:"inference"`
	Cache     Cache     `yaml:"cache"`
	Reload    Reload    `yaml:"reload"`
	Recycle   Recycle   `yaml:"recycle"`
	Memory    Memory    `yaml:"memory"`
	Tasks     Tasks     `yaml:"tasks"`
	// Pools are the pools beside main, by name; see ForPool.
	Pools map[string]Pool `yaml:"pools"`
	// Helpers are the pools of helpers that workers may ask, by name: those of Pools. It is no
	// setting; see ForPool.
	Helpers map[string]Helper
	// Admin is the path of the admin socket; "off": none; empty: see AdminSocket.
	Admin string `yaml:"admin" holds:"start"`
	Ops   Ops    `yaml:"ops"`
	Log   Log    `yaml:"log"`
}

// Models is the section of where models are from and who may change them; a directory alone
// stands for all of it.
type Models struct {
	// Dir is the directory of the models, relative to the working directory.
	Dir string `yaml:"dir" short:"text" default:"models" check:"nonempty"`
	// Control is who may load and unload models while the service runs: ControlNone,
	// ControlAdmin or ControlExplicit.
	Control string `yaml:"control" default:"none" check:"none|admin|explicit"`
	// Watch is how often Dir is looked at for models and versions that have appeared; 0: never.
	Watch time.Duration `yaml:"watch" default:"0s" check:"0s|100ms..24h"`
	// MaxUpload is how much an operator may send along with one load, in bytes.
	MaxUpload Bytes `yaml:"max_upload" default:"256MiB" check:"1KiB..64GiB"`
}

// Values of Models.Control: nobody, operators by the admin socket, and those as well as
// clients over HTTP.
const (
	ControlNone     = "none"
	ControlAdmin    = "admin"
	ControlExplicit = "explicit"
)

// Predict is the section of POST /predict.
type Predict struct {
	// Model answers; empty: the only model, or the first by name.
	Model string `yaml:"model"`
}

// Worker is the section of the worker processes.
type Worker struct {
	// Command starts a worker; empty: our own, beside the supervisor's binary, else on $PATH.
	Command []string `yaml:"command"`
	// Kind tells what Command is: our own worker, another program, or a helper that our workers
	// ask; KindAuto: see Other.
	Kind string `yaml:"kind" default:"auto" check:"auto|preforkd|other|helper"`
	// Dir is the working directory of another program; empty: the supervisor's.
	Dir string `yaml:"dir"`
	// Ready is how another program shows that it is; ReadyAuto: see ReadyBy.
	Ready string `yaml:"ready" default:"auto" check:"auto|notify|probe|delay"`
	// ReadyDelay is for ReadyDelay: how long it must have run.
	ReadyDelay time.Duration `yaml:"ready_delay" default:"1s" check:"0s..24h"`
	// Live is how another program shows that it still works; LiveAuto: see LiveBy.
	Live  string `yaml:"live" default:"auto" check:"auto|probe|watchdog|none"`
	Probe Probe  `yaml:"probe"`
	// StopSignal makes another program finish what is in flight and leave.
	StopSignal string `yaml:"stop_signal" default:"TERM" check:"TERM|INT|QUIT|HUP|USR1|USR2|WINCH"`
	// MaxCrashes within CrashWindow mark a slot as failed.
	MaxCrashes  int           `yaml:"max_crashes" default:"5" check:"1..1000"`
	CrashWindow time.Duration `yaml:"crash_window" default:"60s" check:"1ms..24h"`
	// QuarantineAfter so many workers that one model ends within CrashWindow its requests
	// are refused; 0: never.
	QuarantineAfter int `yaml:"quarantine_after" default:"3" check:"0..1000"`
	// MaxBackoff bounds the wait before the restart of a worker that keeps crashing.
	MaxBackoff time.Duration `yaml:"max_backoff" default:"10s" check:"1ms..24h"`
	// OOMScoreAdj is added to that of the main process: the higher, the sooner the kernel
	// kills a worker for want of memory.
	OOMScoreAdj int    `yaml:"oom_score_adj" default:"200" check:"0..1000"`
	Limits      Limits `yaml:"limits"`
}

// Limits is the section of a worker's resource limits (setrlimit(2)), soft and hard.
type Limits struct {
	NoFile  Limit `yaml:"nofile"`  // open files; empty: as many as the hard limit allows
	Core    Limit `yaml:"core"`    // size of a core file
	AS      Limit `yaml:"as"`      // address space
	NProc   Limit `yaml:"nproc"`   // processes and threads of the user
	MemLock Limit `yaml:"memlock"` // locked memory
	Stack   Limit `yaml:"stack"`   // of the main thread
}

// Probe is the section of the requests that tell whether another program is well.
type Probe struct {
	// Path is requested; a status from 200 to 399 is a good answer.
	Path string `yaml:"path" default:"/" check:"nonempty"`
	// Interval is the time between two probes of a ready worker.
	Interval time.Duration `yaml:"interval" default:"2s" check:"10ms..24h"`
	// Timeout is how long one answer may take.
	Timeout time.Duration `yaml:"timeout" default:"2s" check:"1ms..24h"`
	// Successes in a row make a worker ready.
	Successes int `yaml:"successes" default:"1" check:"1..100"`
	// Failures in a row make a ready worker count as hung.
	Failures int `yaml:"failures" default:"3" check:"1..100"`
}

// Timeouts are the four clocks of a worker.
type Timeouts struct {
	// Boot runs from a worker's start until it is ready.
	Boot time.Duration `yaml:"boot" default:"120s" check:"1ms..24h"`
	// Heartbeat is how long a ready worker may be silent.
	Heartbeat time.Duration `yaml:"heartbeat" default:"30s" check:"1ms..24h"`
	// Request is how long one request may take, waiting included.
	Request time.Duration `yaml:"request" default:"30s" check:"1ms..24h"`
	// Drain is how long a leaving worker may go on with what it has begun.
	Drain time.Duration `yaml:"drain" default:"30s" check:"1ms..24h"`
}

// Drain is the section of how the service stops.
type Drain struct {
	// Delay is how long it serves on after it was told to stop, and says that it is not
	// ready, before the workers drain.
	Delay time.Duration `yaml:"delay" default:"0s" check:"0s..1h"`
}

// Concurrency is the section of how many requests run.
type Concurrency struct {
	// Limit is how many requests a worker reads and runs at once; auto: one, and with models
	// that join requests (max_batch_size) what fills a batch while another one runs.
	Limit Workers `yaml:"limit" default:"auto" check:"auto|1..4096"`
}

// Queue is the section of the requests that wait for a worker.
type Queue struct {
	// Shared has the pool's workers let requests wait in one queue, from which whoever is free takes the
	// next; false: each has its own, of its connections.
	Shared bool `yaml:"shared" default:"true"`
	// MaxRequests is how many may wait; 0: no bound.
	MaxRequests int `yaml:"max_requests" default:"1000" check:"0..1000000"`
	// MaxBytes is how much their bodies may have together; 0: no bound.
	MaxBytes Bytes `yaml:"max_bytes" default:"256MiB" check:"0..1TiB"`
	// MaxWait is how long the last of them may expect to wait; 0: until timeouts.request.
	MaxWait time.Duration `yaml:"max_wait" default:"10s" check:"0s..24h"`
}

// HTTP is the section of the protocol that workers speak.
type HTTP struct {
	// MaxBody is the largest request body that is read, in bytes.
	MaxBody Bytes `yaml:"max_body" default:"16MiB" check:"1KiB..16GiB"`
	// KeepaliveTimeout closes an idle connection. 75s is longer than the idle time of
	// the usual load balancer (60s), so that the balancer closes first.
	KeepaliveTimeout time.Duration `yaml:"keepalive_timeout" default:"75s" check:"1ms..24h"`
	// HeaderTimeout is how long a client may take to send a request's header.
	HeaderTimeout time.Duration `yaml:"header_timeout" default:"10s" check:"1ms..24h"`
	// MaxConnections is the number of connections that one worker holds.
	MaxConnections int `yaml:"max_connections" default:"10000" check:"1..1000000"`
	// WorkerHeader adds the slot and process id of the worker to each response.
	WorkerHeader bool `yaml:"worker_header" default:"false"`
	// TrustedProxies are the peers that say whom they speak for.
	TrustedProxies []Proxy `yaml:"trusted_proxies"`
}

// Auth is the section of the tokens: the paths of files with those of each class of paths;
// empty: nobody is asked for one.
type Auth struct {
	Infer   string `yaml:"infer"`   // models: inference, descriptions, statistics
	Tasks   string `yaml:"tasks"`   // background tasks
	Control string `yaml:"control"` // what changes or lists what is loaded
	Docs    string `yaml:"docs"`    // pages and documents about the service
}

// Inference is the section of the engine.
type Inference struct {
	// Library is the path of libonnxruntime.so; empty: the one that came with preforkd.
	Library string `yaml:"library"`
	// CustomOps are the paths of shared libraries with operators that models use.
	CustomOps []string `yaml:"custom_ops"`
	// Prepare is which models are prepared, so that all workers share their weights: PrepareAuto,
	// PrepareAlways or PrepareOff.
	Prepare string `yaml:"prepare" default:"auto" check:"auto|always|off"`
}

// Values of inference.prepare.
const (
	PrepareAuto   = "auto"   // those whose weights are worth it, by their size
	PrepareAlways = "always" // all
	PrepareOff    = "off"    // none
)

// Cache is the section of the copies of models, and of what is prepared of them.
type Cache struct {
	// Dir holds them; empty: see CacheDir.
	Dir string `yaml:"dir"`
	// PreparedMax is how many bytes of prepared models are kept there, beside those that are in
	// use.
	PreparedMax Bytes `yaml:"prepared_max" default:"8GiB" check:"0..1024TiB"`
}

// Reload is the section of replacing a generation by the next one.
type Reload struct {
	// Bake is how long the first new worker proves itself before it accepts.
	Bake time.Duration `yaml:"bake" default:"2s" check:"0s..1h"`
	// Trial is how long it then serves its share before the others start.
	Trial time.Duration `yaml:"trial" default:"1s" check:"0s..1h"`
	// MaxSurge is how many workers may run beyond the size of the pool; Auto: as many as
	// memory allows.
	MaxSurge Workers `yaml:"max_surge" default:"auto" check:"auto|1..1024"`
}

// Recycle is the section of when a worker is replaced by a new one, which is ready first.
type Recycle struct {
	// Requests is after how many; 0: never.
	Requests int `yaml:"requests" default:"0" check:"0..1000000000"`
	// Age is how long after it became ready; 0: never.
	Age time.Duration `yaml:"age" default:"0s" check:"0s..8760h"`
	// Memory is the proportional share of resident memory (PSS) beyond which; 0: never.
	Memory Bytes `yaml:"memory" default:"0" check:"0..1TiB"`
	// Jitter is by how many percent each worker's Requests and Age are at most lower or
	// higher, drawn anew for each, so that they do not all come at once.
	Jitter int `yaml:"jitter" default:"10" check:"0..50"`
}

// Memory is the section of what the service does when memory is short.
type Memory struct {
	// Guard is GuardAuto or GuardOff.
	Guard string `yaml:"guard" default:"auto" check:"auto|off"`
}

// Values of memory.guard.
const (
	GuardAuto = "auto" // what adds workers is refused or taken back, and the largest worker is recycled
	GuardOff  = "off"  // it is said, and nothing is done
)

// Ops is the section of the operations listener: metrics and health of the whole service.
type Ops struct {
	// Listen is its address, host:port; "off": none; empty: see OpsAddress.
	Listen string `yaml:"listen" holds:"start"`
}

// Log is the section of the log.
type Log struct {
	Level  string `yaml:"level" default:"info" check:"debug|info|warn|error"`
	Format string `yaml:"format" default:"text" check:"text|json" holds:"start"`
	// File is appended to; empty: standard error.
	File string `yaml:"file" holds:"start"`
}

// AdminOff is the value of Config.Admin without an admin socket, OpsOff that of
// Ops.Listen without an operations listener.
const (
	AdminOff = "off"
	OpsOff   = "off"
)

// Default returns the settings that hold where no source says otherwise.
func Default() Config {
	var c Config
	setDefaults(reflectOf(&c), spec{})
	return c
}
