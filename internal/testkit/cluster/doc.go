// Package cluster runs an external queue of background tasks for tests: three NATS servers with
// JetStream, in the test's own process, that keep everything three times.
package cluster
