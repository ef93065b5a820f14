package ipc

import "time"

// TaskQueue is how the queue of background tasks is reached, and what this worker does with it.
type TaskQueue struct {
	URL      string `json:"url"`
	Token    string `json:"token,omitempty"`
	Embedded bool   `json:"embedded,omitempty"` // it is this machine's broker
	// Runs says that this worker runs tasks; Only, that it does nothing else.
	Runs bool `json:"runs,omitempty"`
	Only bool `json:"only,omitempty"`
	// Apart says that others do nothing else: what is suspect is theirs.
	Apart bool `json:"apart,omitempty"`
}

// TaskReturn is a task whose worker has ended in the middle of it.
type TaskReturn struct {
	ID    string   `json:"id"`
	Ack   string   `json:"ack"`             // the subject by which its message is acknowledged
	Why   string   `json:"why"`             // how the worker ended
	Lines []string `json:"lines,omitempty"` // the last ones that it wrote
	Blame bool     `json:"blame,omitempty"` // by what it did
}

// What an operator may want of tasks.
const (
	TaskList   = "list"
	TaskShow   = "show"
	TaskCancel = "cancel"
	TaskRetry  = "retry"
	TaskDead   = "dead"
)

// TaskOrder is what an operator wants of tasks.
type TaskOrder struct {
	Do    string `json:"do"`
	ID    string `json:"id,omitempty"`
	Model string `json:"model,omitempty"` // of those that are listed; empty: all
	Most  int    `json:"most,omitempty"`
}

// TaskState is a task as operators and clients see it.
type TaskState struct {
	ID       string     `json:"task_id"`
	Status   string     `json:"status"`
	Model    string     `json:"model"`
	Attempts int        `json:"attempts"`
	Crashes  int        `json:"crashes,omitempty"`
	Created  *time.Time `json:"created_at,omitempty"`
	Started  *time.Time `json:"started_at,omitempty"`
	Finished *time.Time `json:"finished_at,omitempty"`
	NextAt   *time.Time `json:"next_attempt_at,omitempty"`
	Error    string     `json:"error,omitempty"`
	Lines    []string   `json:"last_lines,omitempty"` // of the worker that it ended
}

// TaskAnswer is what came of a TaskOrder.
type TaskAnswer struct {
	Tasks   []TaskState `json:"tasks"`
	Message string      `json:"message,omitempty"`
	Failure *Failure    `json:"failure,omitempty"`
}
