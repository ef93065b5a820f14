// Package metrics is the operations listener: what Prometheus and load balancers ask of a
// service as a whole.
//
//	/metrics   all metrics, as text or protobuf (then with native histograms)
//	/livez     200 while the supervisor's loop works, also as /healthz
//	/readyz    200 while clients may be sent here
//
// Counters are sums over the rows of the scoreboard, which are never reset: they outlive
// workers and reloads. What the loop alone knows comes from Ask. No worker is asked
// anything, so this answers while every worker is busy or dead.
//
// Called by the supervisor, which runs the server beside its loop. It never changes
// anything. The board must stay open until Serve has returned.
//
// A Server is safe for concurrent use.
package metrics
