// Command preforkd-anchor is the main process of a service. preforkd serve becomes it.
package main
