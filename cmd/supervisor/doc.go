// Command preforkd supervises workers that serve models: it is what operators run.
package main
