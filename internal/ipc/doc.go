// Package ipc is what the supervisor and its workers agree on: exit statuses, the
// Failure that crosses the process boundary, the names of descriptors and
// environment variables, and the manifest that a generation of workers runs.
//
// Both columns import it; it imports nothing of ours and touches neither the
// kernel nor another process: its children (activation, notify, …) do.
//
// Values are plain data; nothing here is shared between goroutines.
package ipc
