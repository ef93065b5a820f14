package archtest

// column is the process that a package belongs to. Columns meet only in shared packages.
type column string

const (
	shared  column = "shared" // every process
	super   column = "supervisor"
	workers column = "worker"
	anchors column = "anchor"
	benches column = "bench"
	brokers column = "broker"
	tests   column = "tests"
)

// room is a package's place on the map: imports point from higher levels to lower ones.
type room struct {
	level  int
	column column
	pure   bool // no system, no clock, no chance
}

// rooms is the map, by path below the module.
var rooms = map[string]room{
	"cmd/supervisor": {5, super, false},
	"cmd/worker":     {5, workers, false},
	"cmd/anchor":     {5, anchors, false},
	"cmd/bench":      {5, benches, false},
	"cmd/broker":     {5, brokers, false},

	"internal/supervisor": {4, super, false},
	"internal/worker":     {4, workers, false},
	"internal/anchor":     {4, anchors, false},
	"internal/bench":      {4, benches, false},
	"internal/broker":     {4, brokers, false},

	"internal/supervisor/admin":   {3, super, false},
	"internal/supervisor/metrics": {3, super, false},
	"internal/supervisor/plan":    {3, super, true},
	"internal/worker/api":         {3, workers, false},

	"internal/supervisor/slot":      {2, super, true},
	"internal/supervisor/rollout":   {2, super, true},
	"internal/supervisor/sizing":    {2, super, true},
	"internal/supervisor/guard":     {2, super, true},
	"internal/worker/accept":        {2, workers, false},
	"internal/worker/admission":     {2, workers, false},
	"internal/worker/codec":         {2, workers, true},
	"internal/worker/helper":        {2, workers, false},
	"internal/worker/task":          {2, workers, false},
	"internal/inference/repository": {2, workers, false},
	"internal/inference/batch":      {2, workers, false},
	"internal/load":                 {2, shared, false},

	"internal/inference/onnx":     {1, workers, false},
	"internal/worker/peer":        {1, workers, false},
	"internal/worker/fifo":        {1, workers, true},
	"internal/worker/lab":         {1, workers, false},
	"internal/worker/upstream":    {1, workers, false},
	"internal/supervisor/process": {1, super, false},
	"internal/supervisor/machine": {1, super, false},
	"internal/supervisor/cache":   {1, super, false},
	"internal/supervisor/pbtxt":   {1, super, true},
	"internal/supervisor/probe":   {1, super, false},
	"internal/supervisor/upgrade": {1, super, false},
	"internal/supervisor/door":    {1, super, false},
	"internal/ipc/activation":     {1, shared, false},
	"internal/ipc/handoff":        {1, shared, false},
	"internal/ipc/notify":         {1, shared, false},
	"internal/ipc/control":        {1, shared, false},
	"internal/ipc/scoreboard":     {1, shared, false},
	"internal/ipc/store":          {1, shared, false},

	"internal/ipc":       {0, shared, false},
	"internal/config":    {0, shared, false},
	"internal/inference": {0, shared, false},

	"internal/archtest":       {6, tests, false},
	"internal/testkit":        {6, tests, false},
	"internal/testkit/box":    {6, tests, false},
	"internal/testkit/digits": {6, tests, false},

	"internal/testkit/cluster": {6, tests, false},
	"e2e":                      {7, tests, false},
}

// outside are folders of programs that stand beside the map: they may use any of its
// rooms, and no room uses them.
var outside = []string{"bench"}

// configReaders are the levels that may see settings; the others get options.
var configReaders = map[int]bool{4: true, 5: true}

// fences name modules that only some rooms may touch.
var fences = []struct {
	path string
	in   []string
}{
	{"github.com/valyala/fasthttp", []string{"internal/worker", "internal/worker/api", "internal/worker/helper", "internal/load"}},
	{"github.com/yalue/onnxruntime_go", []string{"internal/inference/onnx"}},
	{"github.com/cloudflare/tableflip", []string{"internal/supervisor/upgrade"}},
	{"github.com/urfave/cli/v2", []string{"cmd/supervisor", "cmd/worker", "cmd/bench"}},
	{"github.com/shirou/gopsutil/v3", []string{"internal/supervisor/machine"}},
	{"github.com/goccy/go-yaml", []string{"internal/config"}},
	{"github.com/alecthomas/participle/v2", []string{"internal/supervisor/pbtxt"}},
	{"github.com/prometheus", []string{"internal/supervisor/metrics"}},
	{"github.com/nats-io", []string{"internal/broker", "internal/worker/task", "internal/testkit/cluster"}},
	{"k8s.io", nil}, // tests only
	{"sigs.k8s.io", nil},
	{"github.com/getkin/kin-openapi", nil},
}

// impure are packages that a pure room does not import.
var impure = []string{"os", "net", "sync", "context", "log", "math/rand", "syscall", "golang.org/x/sys"}

// A program's binary must not link these.
var linked = []struct {
	program string
	without []string
}{
	{"./cmd/supervisor", []string{"github.com/nats-io", "github.com/valyala/fasthttp", "github.com/yalue/onnxruntime_go", "k8s.io", "preforkd/internal/inference", "preforkd/internal/worker"}},
	{"./cmd/anchor", []string{"github.com", "k8s.io", "preforkd/internal/config", "preforkd/internal/supervisor", "preforkd/internal/worker", "net/http"}},
	{"./cmd/bench", []string{"github.com/valyala/fasthttp", "github.com/yalue/onnxruntime_go", "github.com/prometheus", "k8s.io", "preforkd/internal/config", "preforkd/internal/supervisor", "preforkd/internal/worker"}},
	{"./cmd/broker", []string{"github.com/valyala/fasthttp", "github.com/yalue/onnxruntime_go", "github.com/prometheus", "k8s.io", "github.com/urfave/cli", "preforkd/internal/config", "preforkd/internal/supervisor", "preforkd/internal/worker"}},
	{"./cmd/worker", []string{"github.com/nats-io/nats-server", "github.com/cloudflare/tableflip", "github.com/shirou/gopsutil", "github.com/urfave/cli", "github.com/prometheus", "k8s.io", "github.com/getkin", "preforkd/internal/supervisor"}},
}

const (
	maxFileLines     = 500
	maxFunctionLines = 70
)

// mayTouchTheKernel are the packages above level 1 that import x/sys/unix.
var mayTouchTheKernel = map[string]bool{
	"internal/worker/accept": true, // looks into the accept queue
	"internal/anchor":        true, // does little else
}
