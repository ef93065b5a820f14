// Package supervisor is the supervising program: it binds the listening sockets, starts
// the workers that accept on them, replaces those that die, and stops them.
//
// One loop owns all state (Run). Events come in from processes, the notify socket and
// signals; package slot decides what they mean; effects.go acts. It never serves a
// request and never looks at one.
//
// Called by cmd/supervisor. Run may be called once.
package supervisor
