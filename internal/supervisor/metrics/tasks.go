package metrics

import "preforkd/internal/ipc/scoreboard"

var (
	tasksNow      = gauge("preforkd_tasks", "Background tasks by state: queued, running (or waiting to be tried again), dead.", "state")
	tasksOldest   = gauge("preforkd_tasks_oldest_seconds", "Age of the oldest background task that has not ended.")
	tasksSaid     = gauge("preforkd_tasks_said_seconds", "Time since a worker has asked the queue of background tasks.")
	tasksStore    = gauge("preforkd_tasks_store_bytes", "Bytes that the queue of background tasks has stored, and may store.", "kind")
	tasksFull     = gauge("preforkd_tasks_full", "1 while no background task is accepted for want of room.")
	tasksAccepted = counter("preforkd_tasks_accepted_total", "Background tasks that were accepted.")
	tasksRefused  = counter("preforkd_tasks_refused_total", "Background tasks that were refused, as the queue was full or did not answer.")
	tasksEnded    = counter("preforkd_tasks_ended_total", "Background tasks that have ended, by outcome.", "outcome")
	tasksAgain    = counter("preforkd_tasks_runs_again_total", "Runs of background tasks that another one followed, by why: failed, silent, crashed.", "reason")

	taskMetrics = []metric{tasksNow, tasksOldest, tasksSaid, tasksStore, tasksFull, tasksAccepted, tasksRefused, tasksEnded, tasksAgain}
)

// fromQueue puts what workers say of the queue of background tasks, if there is one.
func fromQueue(q *scoreboard.Queue, put func(metric, float64, ...string)) {
	age, said := q.Said.Age()
	if !said {
		return
	}
	put(tasksNow, float64(q.Depth.Load()), "queued")
	put(tasksNow, float64(q.Running.Load()), "running")
	put(tasksNow, float64(q.Dead.Load()), "dead")
	put(tasksOldest, float64(q.Oldest.Load())/1e3)
	put(tasksSaid, age.Seconds())
	put(tasksStore, float64(q.Used.Load()), "used")
	put(tasksStore, float64(q.Limit.Load()), "limit")
	put(tasksFull, float64(q.Full.Load()))
	put(tasksAccepted, float64(q.Accepted.Load()))
	put(tasksRefused, float64(q.Refused.Load()))
	put(tasksEnded, float64(q.Finished.Load()), "succeeded")
	put(tasksEnded, float64(q.Failed.Load()), "failed")
	put(tasksAgain, float64(q.Retried.Load()), "failed")
	put(tasksAgain, float64(q.Redelivered.Load()), "silent")
	put(tasksAgain, float64(q.Crashed.Load()), "crashed")
}
