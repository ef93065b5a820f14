// Package box gives tests a real systemd and real containers.
//
// Systemd runs a script in a container that systemd has booted; Start and the functions beside
// it run images with podman. Both need root, a few of Debian's packages and cgroups that may be
// written to. Where one is missing the test is skipped, with the reason. The work is done by the
// scripts in this directory, which can be run by hand; their headers say how.
//
// The root file system that both are made of is built by the first who needs it, which takes
// about 100 s, and kept in the user's cache directory. Test processes that want it at the same
// time wait for each other.
//
// It serves tests only; every function may be called from the test's goroutine, by several tests
// at once. It never touches containers, images or cgroups that it did not make.
package box
