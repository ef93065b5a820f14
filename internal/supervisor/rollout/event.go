package rollout

import (
	"fmt"
	"time"
)

// Gen is which of the two generations of a reload is meant.
type Gen uint8

// The generations.
const (
	Old Gen = iota // the one that serves when the reload begins
	New            // the one that shall replace it
)

// String returns "old" or "new".
func (g Gen) String() string { return [...]string{"old", "new"}[g] }

// Worker names a worker. A generation has at most one process in a slot at any time:
// Start is asked for only after the one before has Ended.
type Worker struct {
	Gen  Gen
	Slot int
}

// String returns the worker as histories and logs write it, as "new 0".
func (w Worker) String() string { return fmt.Sprintf("%s %d", w.Gen, w.Slot) }

// canary is the first worker of the new generation.
var canary = Worker{New, 0}

// Kind is what has happened.
type Kind uint8

// The kinds of events.
const (
	OnReady   Kind = iota // Worker is ready
	OnLost                // Worker can no longer be relied on and is being ended (Why); OnEnded follows
	OnEnded               // Worker has ended and has been reaped, or it could not be started (Why)
	OnPassed              // the self-test that was asked for passed
	OnFailed              // it failed, or was not answered in time (Why)
	OnClock               // the clock that was wound has run out
	OnCounted             // the counts that were asked for: Canary, Others
	OnAbort               // the operator wants the reload taken back (Why); after the commit it is too late
	OnStop                // the service stops; every process is the supervisor's to end
	OnTurn                // with Plan.Joint: the reload of this pool may begin
	OnAgreed              // with Plan.Joint: the new workers of every pool serve
	kinds
)

var kindNames = [kinds]string{"ready", "lost", "ended", "passed", "failed", "clock", "counted", "abort", "stop", "turn", "agreed"}

// String returns the kind's name.
func (k Kind) String() string { return kindNames[k] }

// Event is something that has happened. Which fields count depends on Kind.
type Event struct {
	Kind   Kind
	Pool   int // of a Joint: which of its plans it is about; OnAbort and OnStop are about all
	Worker Worker
	Why    string // as operators read it: "exit status 1", "no answer to model digits within 30s"
	Canary Tally  // its answers during the trial
	Others Tally  // those of the old workers in the same time
}

// Do is what the supervisor shall do.
type Do uint8

// The kinds of actions.
const (
	// Start starts Worker from the manifest of its generation, Held: it must not accept
	// until Accept. The supervisor may wait first where the slot's crashes ask for it.
	// Answered by OnReady, or by OnEnded.
	Start Do = iota
	// SelfTest makes the canary test every model once. Answered by OnPassed or OnFailed,
	// also when the canary says nothing: the limit is the supervisor's. Never two at once.
	SelfTest
	// Accept lets the canary accept.
	Accept
	// Share makes each old worker give one in Of of its idle connections to the canary.
	Share
	// Count asks for the answers since Accept. Answered by OnCounted.
	Count
	// Commit makes the new generation the one that crash replacements, and the
	// supervisor's successor, start from.
	Commit
	// Drain lets Worker finish what is in flight, hand over its connections and leave;
	// the drain clock is the supervisor's. Answered by OnEnded.
	Drain
	// Remove makes Worker, which serves nobody, leave at once; where it waits to be started,
	// it is not. Answered by OnEnded in both cases.
	Remove
	// SetClock winds the reload's only clock to Clock from now, in place of what it was
	// wound to; 0 stops it. When it runs out: OnClock.
	SetClock
	// Report tells those who wait that the reload is in Phase; Ready of Of new workers
	// are ready. In Undoing it has the Reason, which a dry run that passed does not have.
	Report
	// Release ends the reload of Pool, while those of others go on: from now on its workers
	// are the supervisor's own.
	Release
	// Finish ends the reload with Outcome and, where it failed, Reason. Nothing follows.
	Finish
	does
)

// Action is something to be done. Which fields count depends on Do.
type Action struct {
	Do      Do
	Pool    int // of a Joint: which of its plans it is about; of a Finish with a Reason, whose that is
	Worker  Worker
	Held    bool
	Clock   time.Duration
	Phase   Phase
	Ready   int
	Of      int
	Outcome Outcome
	Reason  string
}

var doNames = [does]string{
	"start", "self-test", "accept", "share", "count", "commit", "drain", "remove", "clock", "report", "release", "finish",
}

// String returns the kind's name.
func (d Do) String() string { return doNames[d] }

// String returns the action in one line, as histories write it.
func (a Action) String() string {
	switch a.Do {
	case Start:
		if a.Held {
			return fmt.Sprintf("start %s held", a.Worker)
		}
		return fmt.Sprintf("start %s", a.Worker)
	case SelfTest, Accept, Drain, Remove:
		return fmt.Sprintf("%s %s", a.Do, a.Worker)
	case Share:
		return fmt.Sprintf("share one in %d", a.Of)
	case SetClock:
		if a.Clock == 0 {
			return "clock off"
		}
		return fmt.Sprintf("clock %v", a.Clock)
	case Report:
		return fmt.Sprintf("report %s, %d of %d ready%s", a.Phase, a.Ready, a.Of, because(a.Reason))
	case Finish:
		return fmt.Sprintf("finish, %s%s", a.Outcome, because(a.Reason))
	}
	return a.Do.String()
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// Outcome is how a reload ended.
type Outcome uint8

// The outcomes.
const (
	Stopped    Outcome = iota // the service stopped before it was decided
	Committed                 // the new generation serves
	Rehearsed                 // a dry run: the canary passed its self-test and was taken away
	RolledBack                // the old generation serves, for the Reason given
	outcomes
)

var outcomeNames = [outcomes]string{"stopped", "committed", "dry run passed", "rolled back"}

// String returns the outcome, as operators read it.
func (o Outcome) String() string { return outcomeNames[o] }
