package task

import (
	"errors"
	"time"
)

// Status is where a task is in its life.
type Status string

// The states. A task without a record whose message waits is queued. The last five are terminal:
// the first of them that is written stays.
const (
	Queued    Status = "queued"
	Running   Status = "running"
	Retrying  Status = "retrying" // it has failed, or was given back, and will run again
	Succeeded Status = "succeeded"
	Failed    Status = "failed"
	Cancelled Status = "cancelled"
	Expired   Status = "expired" // its time was over before it ran
	Dead      Status = "dead"    // it has ended its workers
)

// Terminal tells whether nothing follows.
func (s Status) Terminal() bool {
	switch s {
	case Succeeded, Failed, Cancelled, Expired, Dead:
		return true
	}
	return false
}

// Errors of the queue.
var (
	ErrUnavailable = errors.New("background tasks are not available")
	ErrFull        = errors.New("as many tasks wait as may")
	ErrKeyReused   = errors.New("the idempotency key was used for another request")
	ErrUnknown     = errors.New("there is no such task")
	ErrGone        = errors.New("the result has expired")
	ErrDone        = errors.New("the task has ended")
)

// Record is what is known of a task beside its message.
type Record struct {
	Status   Status    `json:"status"`
	Attempt  int       `json:"attempt,omitempty"` // the number of the run, from 1 on; runs that were given back do not count
	Crashes  int       `json:"crashes,omitempty"` // workers that ended in it
	Lost     int       `json:"lost,omitempty"`    // runs that ended without a word, of which nobody knows how
	Owner    *Owner    `json:"owner,omitempty"`   // while it runs
	Cancel   bool      `json:"cancel,omitempty"`  // somebody has asked for that
	NextAt   time.Time `json:"next_at,omitzero"`  // while it is retrying
	Created  time.Time `json:"created,omitzero"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
	Error    string    `json:"error,omitempty"`
	Lines    []string  `json:"lines,omitempty"` // the last ones of the worker that it ended
	Hash     string    `json:"hash,omitempty"`  // of the request
	Result   *Result   `json:"result,omitempty"`
}

// Owner is who runs a task.
type Owner struct {
	Node string `json:"node"`
	PID  int    `json:"pid"`
	Ack  string `json:"ack"` // the subject by which its message is acknowledged
}

// Result is the answer that the direct call would have given.
type Result struct {
	Code   int               `json:"code"` // HTTP status
	Header map[string]string `json:"header,omitempty"`
	Body   []byte            `json:"body,omitempty"`   // unless it is an object
	Object string            `json:"object,omitempty"` // its name among the blobs
	Size   int               `json:"size"`
}

// meta is what a message says of its task, in a header.
type meta struct {
	Kind     string            `json:"kind"`
	Version  string            `json:"version,omitempty"`
	Header   map[string]string `json:"header,omitempty"`
	Created  time.Time         `json:"created"`
	Deadline time.Time         `json:"deadline"` // by which it has to have begun, and ended
	Hash     string            `json:"hash"`
	Object   string            `json:"object,omitempty"` // the body, if it is no part of the message
	Size     int               `json:"size"`
}

// View is a task as operators and clients see it.
type View struct {
	ID       ID
	Model    string
	Created  time.Time
	Deadline time.Time // zero: not known any more
	Record
}
