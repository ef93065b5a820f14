// Bench measures preforkd against other servers on the machine that it runs on.
//
//	go run ./bench [--rounds N] [--duration D] [--only serve,reload] [--peers bare] [--short]
//
// Each scenario of scenario.go starts what it measures, on ports of 127.0.0.1 of the
// kernel's choice, ends all of it, also at Ctrl-C, and leaves a table and its raw data
// in bench/out. How it measures is in bench/README.md.
//
// A goal that is missed is printed and is no error; a server that answers wrongly is.
package main
