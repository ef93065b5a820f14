// Package door reads what guards a service: the files of tokens, and certificates with their
// keys.
//
// It owns which files are fit: whom they are readable for, that they hold what they should, that
// a certificate and its key belong together and that today is within its dates. What it has
// read are digests and bytes for the manifest; errors name the file and never its content.
//
// The supervisor calls it before a generation's first worker starts, and to check a
// configuration: workers, which may be somebody else's, need not be able to read the files. It
// keeps nothing and starts nothing; all functions are safe for concurrent use.
package door
