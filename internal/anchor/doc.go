// Package anchor is the main process: the one that systemd, a container's runtime or a
// shell has started, and whose process id never changes.
//
// It starts the supervisor and starts it again when it has died, keeps the descriptors that
// outlive a supervisor (vault), forwards signals, reaps orphans, and is the service
// manager's client. Everything else is the supervisor's, so that this program hardly ever
// changes: it knows no configuration, no model and no worker.
//
// It allocates little and owns no listening socket of Go's: the vault's descriptors are bare
// numbers, which nobody polls, so that a connection that arrives wakes it not at all.
//
// docs/internals/process-tree.md has the tree, who holds what, and the races.
package anchor
