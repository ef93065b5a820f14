// Package admission decides who runs now, who waits and who is refused: it owns a worker's
// permits, each the right to read and run one request.
//
// Whoever finds none free waits in line, first come first served, for as long as it is
// willing to. A permit that comes back goes to the first in line and never past it. The
// line is bounded by number, bytes and by how long it is expected to take; who would wait
// longer than it is willing to is refused at once, since work that comes too late is lost
// to all. Permits are numbered, so that their holders may have a place of their own
// elsewhere.
//
// In the line stands, with the requests, whoever takes the next one from the queue that all
// workers have in common: so neither line waits for the end of the other.
//
// Called by worker/api, and for that queue by worker. It never looks at a request and knows no
// model: who claims a permit says what it will cost.
//
// All methods are safe for concurrent use. Acquire allocates nothing, and starts a
// timer only when it has to wait.
package admission
