// Package admission decides who runs now: it owns a worker's permits, each the right
// to run one request.
//
// Whoever finds none free waits in line, first come first served, for as long as it
// is willing to. A permit that comes back goes to the first in line and never past it.
// Permits are numbered, so that their holders may have a place of their own elsewhere.
//
// Called by worker/api. It never looks at a request and knows no model.
//
// All methods are safe for concurrent use. Acquire allocates nothing, and starts a
// timer only when it has to wait.
package admission
