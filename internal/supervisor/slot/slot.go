package slot

// State is where a worker process is in its life.
type State uint8

// The states. None is the zero value: no cell of the table leads there.
const (
	None     State = iota
	Starting       // the process exists and has not been heard of
	Loading        // it has spoken, and is not ready
	Ready          // it may take traffic
	Draining       // it was told to finish what is in flight and leave
	Killing        // it was told to leave at once
	Gone           // it ended as told
	Failed         // it ended untold
	states
)

// Event is what happens to a worker.
type Event uint8

// The events.
const (
	OnHello   Event = iota // its first message
	OnReady                // READY=1
	OnLeave                // it shall finish and leave
	OnQuit                 // it shall leave at once
	OnTimeout              // the clock of its state has run out
	OnExit                 // it has ended and has been reaped
	events
)

// Action is what the supervisor does on a change of state.
type Action uint8

// The actions.
const (
	Nothing Action = iota
	Drain          // ask it to finish and leave
	Stop           // TERM, or ABRT where its stacks are wanted
	Kill           // KILL
	Settle         // zero its gauges, charge the reason, choose a successor
)

type cell struct {
	state  State
	action Action
}

// table is a worker's life. An empty cell changes nothing.
var table = [states][events]cell{
	Starting: {
		OnHello: {Loading, Nothing}, OnLeave: {Draining, Drain}, OnQuit: {Killing, Stop},
		OnTimeout: {Killing, Stop}, OnExit: {Failed, Settle},
	},
	Loading: {
		OnReady: {Ready, Nothing}, OnLeave: {Draining, Drain}, OnQuit: {Killing, Stop},
		OnTimeout: {Killing, Stop}, OnExit: {Failed, Settle},
	},
	Ready: {
		OnLeave: {Draining, Drain}, OnQuit: {Killing, Stop},
		OnTimeout: {Killing, Stop}, OnExit: {Failed, Settle},
	},
	// A drain that takes too long was asked once already.
	Draining: {OnQuit: {Killing, Stop}, OnTimeout: {Killing, Kill}, OnExit: {Gone, Settle}},
	Killing:  {OnTimeout: {Killing, Kill}, OnExit: {Gone, Settle}},
}

// Next returns what follows when e happens in s. An empty cell changes nothing.
func Next(s State, e Event) (State, Action) {
	if cell := table[s][e]; cell.state != None {
		return cell.state, cell.action
	}
	return s, Nothing
}

var stateNames = [states]string{"none", "starting", "loading", "ready", "draining", "killing", "gone", "failed"}

// String returns the state's name, as operators read it.
func (s State) String() string { return stateNames[s] }

var eventNames = [events]string{"hello", "ready", "leave", "quit", "timeout", "exit"}

// String returns the event's name.
func (e Event) String() string { return eventNames[e] }

var actionNames = [...]string{"", "drain", "stop", "kill", "settle"}

// String returns the action's name, empty for Nothing.
func (a Action) String() string { return actionNames[a] }

// Alive returns the states of a process that has not ended.
func Alive() []State { return []State{Starting, Loading, Ready, Draining, Killing} }

// Ended tells whether the process is no more.
func (s State) Ended() bool { return s == Gone || s == Failed }

// Reason is why a worker leaves or has left, apart from its state.
type Reason uint8

// The reasons.
const (
	Asked   Reason = iota // an operator or a reload wanted it
	Crash                 // it ended untold
	Boot                  // it was not ready within the boot clock
	Hung                  // its heartbeat stopped
	Overdue               // its drain took too long
	Stuck                 // a call into native code outlasted the request clock
	Memory                // the kernel killed it for want of memory
)

var reasonNames = [...]string{"asked", "crash", "boot clock", "heartbeat clock", "drain clock", "request clock", "memory"}

// String returns the reason as operators read it.
func (r Reason) String() string { return reasonNames[r] }

var causeNames = [...]string{"asked", "crash", "boot", "hung", "drain", "stuck", "memory"}

// Cause returns the reason in one word, as metrics have it.
func (r Reason) Cause() string { return causeNames[r] }

// Reasons returns all of them.
func Reasons() []Reason { return []Reason{Asked, Crash, Boot, Hung, Overdue, Stuck, Memory} }

// Charged tells whether the reason counts against the crash budget of its slot.
func (r Reason) Charged() bool { return r != Asked && r != Overdue }
