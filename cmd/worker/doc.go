// Command preforkd-worker serves models over HTTP. preforkd starts it; by itself it
// only says so. Its command prepare writes what workers load in place of a model.
package main
