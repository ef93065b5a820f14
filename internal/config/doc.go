// Package config owns preforkd's settings: what they are called, their defaults,
// how they are written, which values are allowed, and where each one came from.
//
// A setting is one field of Config (or of a section below it) with its tags; the
// key in the file, the variable PREFORKD_…, the default, the checks and the printed
// form derive from them:
//
//	yaml:"boot"         the key; sections nest, so this is timeouts.boot, PREFORKD_TIMEOUTS_BOOT
//	default:"120s"      as an operator would write it; lists by commas
//	check:"1ms..24h"    what is allowed, alternatives joined by |, ranges inclusive; or nonempty
//	holds:"start"       a reload does not change it; it takes effect when the service starts
//	secret:"true"       a string that is never written inline: it is read from the file that
//	                    <key>_file names, or from $CREDENTIALS_DIRECTORY/<key>, unless it is a route's
//	print:"set"         a section that is printed only where it says something
//
// A later source wins: default, file, PORT and the like, PREFORKD_…, flag. Every
// problem of every source is reported at once, with the file's line where there is one.
//
// The supervisor, the worker and the commands call it; every other package is handed
// its own options. It reads the configuration file and the files of secrets, nothing
// else; it never looks at the machine, creates nothing, and logs nothing.
//
// Nothing here is shared: all functions are safe for concurrent use, and a Loaded is
// its caller's.
package config
