// Package process starts one worker process, delivers its output line by line, signals
// it and reaps it.
//
// A worker is started in two steps. The child first runs this program again under the
// name StepName (RunStep): there it has its own pid, which LISTEN_PID must hold
// (sd_listen_fds(3)), and sets what belongs to the process alone: limits, umask,
// oom_score_adj. Then it execs the worker, which keeps pid and descriptors.
//
// Called by the supervisor. It decides nothing: no restarts, no clocks.
//
// Start starts two goroutines per process; both have ended when Done is closed.
// Signal is safe for concurrent use.
package process
