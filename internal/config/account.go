package config

import (
	"errors"
	"math"
	"strings"
	"unicode"
)

// Account is the name or the number of a user or a group; empty: not given. Whether it
// exists shows when workers are to run as it.
type Account string

// UnmarshalText reads a name or a number.
func (a *Account) UnmarshalText(text []byte) error {
	s := string(text)
	if _, number := Account(s).ID(); s != "" && strings.Trim(s, "0123456789") == "" && !number {
		return errors.New("is no number of a user or a group; write one from 0 to 4294967294")
	}
	bad := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune(":,/", r) }
	if strings.HasPrefix(s, "-") || strings.ContainsFunc(s, bad) { // what passwd(5) and its tools cannot hold
		return errors.New("is no name of a user or a group")
	}
	*a = Account(s)
	return nil
}

// ID returns the number, if it is one. (uid_t)-1 stands for no user in system calls.
func (a Account) ID() (id int, ok bool) {
	n, err := parseInt(string(a))
	if err != nil || n < 0 || n >= math.MaxUint32 {
		return 0, false
	}
	return int(n), true
}

// unlimited is the text of a limit that is none.
const unlimited = "unlimited"

// Limit is a resource limit as it was written; empty: not given.
type Limit string

// UnmarshalText reads a number, a size or unlimited.
func (l *Limit) UnmarshalText(text []byte) error {
	if s := string(text); s != "" && s != unlimited {
		var b Bytes
		if err := b.UnmarshalText(text); err != nil {
			return err
		}
		if b < 0 {
			return errors.New("is too small")
		}
	}
	*l = Limit(text)
	return nil
}

// Value returns the limit as setrlimit(2) has it, and whether it is given.
func (l Limit) Value() (n uint64, given bool) {
	if l == unlimited {
		return math.MaxUint64, true // RLIM_INFINITY
	}
	var b Bytes
	if l == "" || b.UnmarshalText([]byte(l)) != nil {
		return 0, false
	}
	return uint64(b), true
}
