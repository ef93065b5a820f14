package store

// StateSubject is where a broker answers how it is, and says so when that changes.
const StateSubject = "preforkd.broker.state"

// State is how a broker is, as its clients hear it.
type State struct {
	// Full is why nothing new is taken: no room on the disk, or a write that does not end. What
	// is there can be fetched. Empty: there is room.
	Full string `json:"full,omitempty"`
	// Sync is when what was accepted is on the disk: "always" before the answer.
	Sync string `json:"sync"`
	// Used and Limit are bytes: of what is stored, and how much that may be.
	Used  uint64 `json:"used"`
	Limit uint64 `json:"limit"`
}
