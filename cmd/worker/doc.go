// Command preforkd-worker serves models over HTTP. preforkd starts it; by itself it
// only says so.
package main
