package upstream

import (
	"bytes"
	"errors"
	"fmt"
)

// maxNamed is how many fields of a header Connection may name.
const maxNamed = 32

// hops are fields that are for one connection only, whether Connection names them or not
// (RFC 9110, section 7.6.1; the credentials of proxies are for the next one, section 11.7).
var hops = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
	"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Authentication-Info", "HTTP2-Settings",
}

// Hops are the fields of one header that are not passed on. The zero value is ready.
type Hops struct {
	named [][]byte
	most  bool // it named more than are kept
}

// Note looks at a field for what it says of others.
func (h *Hops) Note(name, value []byte) {
	if !fold(name, "Connection") {
		return
	}
	for option := range bytes.SplitSeq(value, []byte(",")) {
		option = bytes.Trim(option, " \t")
		if len(option) == 0 || fold(option, "close") || fold(option, "keep-alive") {
			continue
		}
		if len(h.named) == maxNamed {
			h.most = true
			return
		}
		h.named = append(h.named, option)
	}
}

// Has tells whether the field of that name is for one connection only.
func (h *Hops) Has(name []byte) bool {
	for _, hop := range hops {
		if fold(name, hop) {
			return true
		}
	}
	for _, named := range h.named {
		if bytes.EqualFold(named, name) {
			return true
		}
	}
	return false
}

func fold(name []byte, other string) bool {
	return len(name) == len(other) && bytes.EqualFold(name, []byte(other))
}

// Errors of Forward.
var (
	errLengths = errors.New("both Content-Length and Transfer-Encoding: what follows cannot be told (RFC 9112, section 6.3)")
	errTwice   = errors.New("Content-Length is there more than once")
	errFolded  = errors.New("a line of the header begins with a blank")
	errNamed   = fmt.Errorf("the header Connection names more than %d fields", maxNamed)
)

// Forward appends to dst the lines of a request's header that are passed on: those of raw, the
// lines as they came, less what is for one connection only, what says how long the body is, Host
// and Expect, and less those that drop returns true for. A header of which two readers may
// disagree is an error.
func Forward(dst, raw []byte, drop func(name []byte) bool) ([]byte, error) {
	var skip Hops
	if err := fields(raw, func(name, value []byte) { skip.Note(name, value) }); err != nil {
		return dst, err
	}
	if skip.most {
		return dst, errNamed
	}
	lengths, codings := 0, 0
	err := fields(raw, func(name, value []byte) {
		switch {
		case fold(name, "Content-Length"):
			lengths++
		case fold(name, "Transfer-Encoding"):
			codings++
		case fold(name, "Host"), fold(name, "Expect"), skip.Has(name), drop(name):
		default:
			dst = append(dst, name...)
			dst = append(dst, ": "...)
			dst = append(dst, value...)
			dst = append(dst, "\r\n"...)
		}
	})
	switch {
	case err != nil:
		return dst, err
	case lengths > 0 && codings > 0:
		return dst, errLengths
	case lengths > 1:
		return dst, errTwice
	}
	return dst, nil
}

// fields calls each with every field of a header's lines.
func fields(raw []byte, each func(name, value []byte)) error {
	for len(raw) > 0 {
		line, rest, _ := bytes.Cut(raw, []byte("\n"))
		raw = rest
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			continue
		}
		name, value, err := field(line)
		if err != nil {
			return err
		}
		each(name, value)
	}
	return nil
}

// field takes one line of a header apart (RFC 9112, section 5).
func field(line []byte) (name, value []byte, err error) {
	if line[0] == ' ' || line[0] == '\t' {
		return nil, nil, errFolded
	}
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || !token(name) {
		return nil, nil, fmt.Errorf("%.40q is no line of a header", line)
	}
	value = bytes.Trim(value, " \t")
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, nil, fmt.Errorf("the header %.40s has a control character", name)
		}
	}
	return name, value, nil
}

// token tells whether b may be the name of a field (RFC 9110, section 5.6.2).
func token(b []byte) bool {
	for _, c := range b {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) < 0 {
			return false
		}
	}
	return len(b) > 0
}
