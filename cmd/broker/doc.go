// Command broker is preforkd-broker: the queue of background tasks, one a store. preforkd starts it.
package main
