// Command preforkd-bench runs experiments with preforkd: `preforkd lab` becomes it.
package main
