package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// Address is where the service listens. Addresses are comparable with ==.
type Address struct {
	// Network is "tcp" or "unix", as net.Listen knows them, or "fd": a socket that
	// was inherited.
	Network string
	// Addr is host:port (the host may be empty or a name, the port 0: the kernel
	// chooses one), the absolute path of a unix socket, or the name of a descriptor
	// in LISTEN_FDNAMES.
	Addr string
	// Mode is the permissions of a unix socket, at most 0777; 0: not given.
	Mode fs.FileMode
	// Owner and Group of a unix socket, names or numbers; empty: not given.
	Owner, Group string
	// Cert and Key are the files of a certificate: TLS is spoken here; empty: it is not.
	Cert, Key string
	// Proxy says that each connection begins with a header of the PROXY protocol.
	Proxy bool
}

// maxUnixPath is the length of sun_path less the final zero, unix(7).
const maxUnixPath = 107

// ParseAddress reads one of
//
//	127.0.0.1:8000  [::]:8000  :8000  localhost:8000
//	unix:/path  unix:/path?mode=0660&owner=www-data:www-data
//	fd:NAME
//	ADDRESS?cert=/path&key=/path  ADDRESS?proxy_protocol=true
//
// A path ends at its first question mark; in the paths of cert and key %XX stands for a byte
// that would end them. Abstract unix sockets (unix:@name) are
// refused: they have no permissions, so every process on the machine could connect.
func ParseAddress(s string) (Address, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\ufffd' }) {
		return Address{}, errors.New("contains a space or a control character")
	}
	s, query, _ := strings.Cut(s, "?")
	parse := parseTCP
	if rest, ok := strings.CutPrefix(s, "unix:"); ok {
		parse, s = parseUnix, rest
	} else if name, ok := strings.CutPrefix(s, "fd:"); ok {
		parse, s = parseFD, name
	}
	a, err := parse(s)
	if err == nil {
		err = a.setAll(query)
	}
	if err != nil {
		return Address{}, err
	}
	return a, nil
}

// Bound returns what of the address is the socket's: not what is spoken there.
func (a Address) Bound() Address {
	a.Cert, a.Key, a.Proxy = "", "", false
	return a
}

// Plain returns the address without any options, as messages name it.
func (a Address) Plain() string { return Address{Network: a.Network, Addr: a.Addr}.String() }

// String returns a text from which ParseAddress makes the same Address.
func (a Address) String() string {
	switch a.Network {
	case "unix":
		return "unix:" + a.Addr + a.options()
	case "fd":
		return "fd:" + a.Addr + a.options()
	}
	return a.Addr + a.options()
}

// MarshalText returns what String does.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what ParseAddress does.
func (a *Address) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAddress(string(text))
	return err
}

// options returns the query, or nothing.
func (a Address) options() string {
	var q []string
	if a.Mode != 0 {
		q = append(q, fmt.Sprintf("mode=%04o", uint32(a.Mode)))
	}
	if a.Owner != "" && a.Group != "" {
		q = append(q, "owner="+a.Owner+":"+a.Group)
	} else if a.Owner != "" {
		q = append(q, "owner="+a.Owner)
	}
	if a.Cert != "" {
		q = append(q, "cert="+escaped(a.Cert))
	}
	if a.Key != "" {
		q = append(q, "key="+escaped(a.Key))
	}
	if a.Proxy {
		q = append(q, "proxy_protocol=true")
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + strings.Join(q, "&")
}

// same returns what two addresses have in common that cannot both be bound: the
// options of a unix socket and the spelling of an IP address do not count.
func (a Address) same() string {
	switch a.Network {
	case "unix":
		return "unix:" + path.Clean(a.Addr)
	case "fd":
		return a.Plain()
	}
	host, port, _ := net.SplitHostPort(a.Addr)
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	if host == "" { // net.Listen takes both for every interface
		host = "::"
	}
	return net.JoinHostPort(strings.ToLower(host), port)
}

func parseTCP(s string) (Address, error) {
	if s == "" {
		return Address{}, errors.New("is empty")
	}
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		return Address{}, fmt.Errorf("is a URL (%s); leave out the scheme, as in %s", scheme, strings.TrimRight(rest, "/"))
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return Address{}, explainHostPort(s)
	}
	if n, err := parseInt(port); err != nil || n < 0 || n > 65535 {
		return Address{}, fmt.Errorf("has the port %q, which is not a number from 0 to 65535", port)
	}
	if strings.Contains(host, ":") {
		if ip, err := netip.ParseAddr(host); err != nil || strings.Contains(ip.Zone(), "]") {
			return Address{}, fmt.Errorf("has brackets around %q, which is not an IPv6 address", host)
		}
	} else if !validHost(host) {
		return Address{}, fmt.Errorf("has the host %q, which is neither an IP address nor a name", host)
	}
	return Address{Network: "tcp", Addr: net.JoinHostPort(host, port)}, nil
}

// explainHostPort says why s is not host:port, better than net does.
func explainHostPort(s string) error {
	if _, err := strconv.Atoi(s); err == nil {
		return fmt.Errorf("is a port without a host; write 127.0.0.1:%s, or :%s for every interface", s, s)
	}
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return fmt.Errorf("has no port; write %s", net.JoinHostPort(strings.Trim(s, "[]"), "8000"))
	}
	if i := strings.LastIndex(s, ":"); i >= 0 {
		if _, err := netip.ParseAddr(s[:i]); err == nil {
			return fmt.Errorf("is an IPv6 address without brackets; write [%s]%s", s[:i], s[i:])
		}
		return errors.New("is not an address")
	}
	if strings.HasPrefix(s, "/") {
		return fmt.Errorf("is a path; write unix:%s", s)
	}
	return errors.New("has no port")
}

// validHost says whether host may be looked up; empty is every interface. The
// letters are those of RFC 1123 and the underscore that container networks use.
func validHost(host string) bool {
	if len(host) > 253 {
		return false
	}
	for i, r := range host {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		case i > 0 && (r == '-' || r == '.' || r == '_'):
		default:
			return false
		}
	}
	// What looks like an IPv4 address must be one: the resolver reads 127.1 and 0300.0.0.1
	// in ways nobody expects.
	if strings.Trim(host, "0123456789.") == "" && host != "" {
		ip, err := netip.ParseAddr(host)
		return err == nil && ip.Is4()
	}
	return true
}

func parseFD(name string) (Address, error) {
	// What FileDescriptorName= of systemd.socket(5) allows.
	if name == "" || len(name) > 255 || strings.Contains(name, ":") {
		return Address{}, errors.New("needs a name after fd:, of 1 to 255 characters without a colon")
	}
	return Address{Network: "fd", Addr: name}, nil
}

func parseUnix(p string) (Address, error) {
	switch {
	case strings.HasPrefix(p, "@"):
		return Address{}, errors.New("is an abstract socket, which has no permissions; write unix: and a path")
	case !strings.HasPrefix(p, "/"):
		return Address{}, errors.New("has a relative path; write unix: and a path that begins with /")
	case strings.HasSuffix(p, "/"):
		return Address{}, errors.New("names a directory; write the path of a socket in it")
	case len(p) > maxUnixPath:
		return Address{}, fmt.Errorf("has a path of %d bytes; the kernel allows %d", len(p), maxUnixPath)
	}
	return Address{Network: "unix", Addr: p}, nil
}

// setAll takes the options of a query.
func (a *Address) setAll(query string) error {
	if query == "" {
		return nil
	}
	seen := map[string]bool{}
	for option := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(option, "=")
		if seen[name] {
			return fmt.Errorf("has the option %q twice", name)
		}
		seen[name] = true
		if err := a.set(name, value); err != nil {
			return err
		}
	}
	if (a.Cert == "") != (a.Key == "") {
		return errors.New("has one of cert and key; TLS needs both")
	}
	return nil
}

// set takes one option.
func (a *Address) set(name, value string) (err error) {
	unix := a.Network == "unix"
	switch {
	case name == "mode" && unix:
		n, err := strconv.ParseUint(value, 8, 32)
		if err != nil || n == 0 || n > 0o777 {
			return fmt.Errorf("has the mode %q, which is not an octal number from 1 to 0777", value)
		}
		a.Mode = fs.FileMode(n)
	case name == "owner" && unix:
		owner, group, both := strings.Cut(value, ":")
		if owner == "" || both && group == "" || strings.Contains(group, ":") {
			return fmt.Errorf("has the owner %q; write owner=USER or owner=USER:GROUP", value)
		}
		a.Owner, a.Group = owner, group
	case name == "cert":
		a.Cert, err = unescaped(name, value)
	case name == "key":
		a.Key, err = unescaped(name, value)
	case name == "proxy_protocol":
		if a.Proxy = value == "true"; !a.Proxy && value != "false" {
			return fmt.Errorf("has proxy_protocol=%q; write true or false", value)
		}
	case unix:
		return fmt.Errorf("has the unknown option %q (known are mode, owner, cert, key and proxy_protocol)", name)
	default:
		return fmt.Errorf("has the unknown option %q (known are cert, key and proxy_protocol)", name)
	}
	return err
}

// unescaped returns the path in an option.
func unescaped(name, value string) (string, error) {
	path, err := url.PathUnescape(value)
	if err == nil {
		err = checkString(path)
	}
	if err != nil || path == "" {
		return "", fmt.Errorf("has %s=%q, which is no path of a file", name, value)
	}
	return path, nil
}

// escaped returns path as unescaped reads it, without what ends an option, a list or a word.
func escaped(path string) string {
	var b strings.Builder
	for _, r := range path {
		if r <= ' ' || r == 0x7f || r == '\ufffd' || strings.ContainsRune("%&,", r) {
			for _, c := range []byte(string(r)) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
