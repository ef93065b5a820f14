package rollout

// Phase is how far a reload has come.
type Phase uint8

// The phases, in their order; Undoing follows any of those before Draining. None is the
// zero value: no cell of the table leads there.
const (
	None     Phase = iota
	Waiting        // it is another pool's turn
	Booting        // the canary boots
	Testing        // it answers its first self-test
	Baking         // it answers one self-test after another, and accepts nothing
	Proving        // the bake is over, its last self-test is not
	Trying         // it accepts, with its share of the connections
	Judging        // its answers are compared with those of the old workers
	Filling        // the other new workers start
	Holding        // all new workers serve; other pools are not as far
	Draining       // committed: the old workers leave
	Undoing        // the new workers leave, old ones that have left come back
	Done
	phases
)

// input is an Event as the table knows it: judged by whom it concerns.
type input uint8

const (
	newReady  input = iota // a new worker is ready
	newLost                // a new worker failed that was not told to leave
	oldReady               // an old worker is ready
	oldLost                // an old worker failed that was not told to leave
	left                   // a worker that was told to leave has ended
	passed                 // the self-test passed
	rehearsed              // the self-test of a dry run passed
	failed                 // the self-test failed
	clock                  // the clock of the phase ran out
	good                   // enough answers, and they are as good as the old workers'
	bad                    // enough answers, and they are worse
	few                    // too few answers to tell
	complete               // nothing is left to do in this phase
	turn                   // it is this pool's turn
	filled                 // all new workers serve, and there are other pools
	agreed                 // every pool's new workers serve
	abort                  // the operator wants it taken back
	stop                   // the service stops
	inputs
)

// step is what an input makes the reload do. Each looks at all workers and does what is
// missing, so that doing it twice does no harm.
type step uint8

const (
	nothing step = iota
	boot         // start the canary
	test         // ask for a self-test
	bake         // ask for a self-test, wind the bake clock
	try          // let the canary accept, let the others share, wind the trial clock
	count        // ask for the counts of the trial
	fill         // start new workers while there is room, make room while that is allowed
	promote      // commit, and let the old workers leave
	restart      // start again what ended untold
	settle       // see whether the last old worker is gone
	undo         // take new workers away, bring old ones back
	finish       // report the outcome
	steps
)

type cell struct {
	phase Phase
	step  step
}

// table is a reload. An empty cell changes nothing.
var table = [phases][inputs]cell{
	Waiting: {
		turn: {Booting, boot}, filled: {Holding, nothing}, oldLost: {Waiting, restart},
		abort: {Undoing, undo}, stop: {Done, finish},
	},
	Booting: {
		newReady: {Testing, test}, newLost: {Undoing, undo}, oldLost: {Booting, restart},
		abort: {Undoing, undo}, stop: {Done, finish},
	},
	Testing: {
		newLost: {Undoing, undo}, oldLost: {Testing, restart},
		passed: {Baking, bake}, rehearsed: {Undoing, undo}, failed: {Undoing, undo},
		abort: {Undoing, undo}, stop: {Done, finish},
	},
	Baking: {
		newLost: {Undoing, undo}, oldLost: {Baking, restart},
		passed: {Baking, test}, failed: {Undoing, undo}, clock: {Proving, nothing},
		abort: {Undoing, undo}, stop: {Done, finish},
	},
	Proving: {
		newLost: {Undoing, undo}, oldLost: {Proving, restart},
		passed: {Trying, try}, failed: {Undoing, undo},
		abort: {Undoing, undo}, stop: {Done, finish},
	},
	Trying: {
		newLost: {Undoing, undo}, oldLost: {Trying, restart}, clock: {Judging, count},
		abort: {Undoing, undo}, stop: {Done, finish},
	},
	Judging: {
		newLost: {Undoing, undo}, oldLost: {Judging, restart},
		passed: {Filling, fill}, failed: {Undoing, undo},
		good: {Filling, fill}, bad: {Undoing, undo}, few: {Judging, test},
		abort: {Undoing, undo}, stop: {Done, finish},
	},
	Filling: {
		newReady: {Filling, fill}, newLost: {Undoing, undo},
		oldReady: {Filling, fill}, oldLost: {Filling, fill}, left: {Filling, fill},
		complete: {Draining, promote}, filled: {Holding, nothing},
		abort: {Undoing, undo}, stop: {Done, finish},
	},
	Holding: {
		newLost: {Undoing, undo}, oldLost: {Holding, restart}, agreed: {Draining, promote},
		abort: {Undoing, undo}, stop: {Done, finish},
	},
	// No way back: a new worker that ends is started again, from the new manifest.
	Draining: {
		newLost: {Draining, restart}, left: {Draining, settle},
		complete: {Done, finish}, stop: {Done, finish},
	},
	Undoing: {
		newLost: {Undoing, undo}, oldReady: {Undoing, undo}, oldLost: {Undoing, undo}, left: {Undoing, undo},
		complete: {Done, finish}, stop: {Done, finish},
	},
}

var phaseNames = [phases]string{
	"none", "turn", "canary", "self-test", "bake", "last self-test", "trial", "verdict", "rest", "others", "drain", "undo", "done",
}

// String returns the phase's name, as operators read it.
func (p Phase) String() string { return phaseNames[p] }

var inputNames = [inputs]string{
	"new ready", "new lost", "old ready", "old lost", "left", "passed", "rehearsed", "failed",
	"clock", "good", "bad", "few", "complete", "its turn", "filled", "agreed", "abort", "stop",
}

func (i input) String() string { return inputNames[i] }

var stepNames = [steps]string{
	"", "boot", "test", "bake", "try", "count", "fill", "commit", "restart", "settle", "undo", "finish",
}

func (s step) String() string { return stepNames[s] }
