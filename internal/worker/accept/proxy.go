package accept

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Proxies are the peers that are trusted to say whom they speak for.
type Proxies struct {
	Networks []netip.Prefix
	Unix     bool // whoever connects to a unix socket
}

// Trusts tells whether peer is one of them.
func (p *Proxies) Trusts(peer net.Addr) bool {
	switch a := peer.(type) {
	case *net.TCPAddr:
		return p.TrustsIP(a.AddrPort().Addr())
	case *net.UnixAddr:
		return p.Unix
	}
	return false
}

// TrustsIP tells whether an address is one of theirs.
func (p *Proxies) TrustsIP(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	for _, n := range p.Networks {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

// A header of the PROXY protocol, as haproxy's doc/proxy-protocol.txt has it. Its library for Go
// reads ahead into a buffer of its own, and what is in there would be lost when the
// connection is given away: here what follows the header goes to the server in the same Read.
const (
	proxyLine  = 107     // bytes of a line of version 1 at most
	proxyBlock = 4 << 10 // of version 2 that are read: addresses are 36, what else there may be is not looked at
	proxyFixed = 12 + 4  // signature, command, family, length
	proxySign2 = "\r\n\r\n\x00\r\nQUIT\n"
	proxySign1 = "PROXY "
)

var (
	errMore    = errors.New("more is to come")
	errNoProxy = errors.New("it does not begin with a PROXY header")
	errProxy   = errors.New("its PROXY header is malformed")
	errProxyIs = errors.New("its PROXY header is of a version or family that no stream has")
	errTooLong = errors.New("its PROXY header is too long")
)

// parseProxy reads the header that b begins with. Size is that of the header, client whom it
// names: the zero value where it names nobody, as in the proxy's own health checks. errMore:
// what there is may be the beginning of one.
func parseProxy(b []byte) (size int, client netip.AddrPort, err error) {
	switch {
	case begins(b, proxySign2):
		return parseProxy2(b)
	case begins(b, proxySign1):
		return parseProxy1(b)
	}
	return 0, client, errNoProxy
}

// begins tells whether b and sign agree as far as both go.
func begins(b []byte, sign string) bool {
	n := min(len(b), len(sign))
	return string(b[:n]) == sign[:n]
}

func parseProxy1(b []byte) (size int, client netip.AddrPort, err error) {
	end := bytes.Index(b[:min(len(b), proxyLine)], []byte("\r\n"))
	switch {
	case end < 0 && len(b) >= proxyLine:
		return 0, client, errTooLong
	case end < 0:
		return 0, client, errMore
	}
	fields := strings.Split(string(b[len(proxySign1):end]), " ")
	if fields[0] == "UNKNOWN" { // whatever follows is to be ignored
		return end + 2, client, nil
	}
	if len(fields) != 5 || fields[0] != "TCP4" && fields[0] != "TCP6" {
		return 0, client, errProxy
	}
	var ends [2]netip.AddrPort // source, destination
	for i := range ends {
		ip, err := netip.ParseAddr(fields[1+i])
		if err != nil || ip.Zone() != "" || ip.Is4() != (fields[0] == "TCP4") {
			return 0, client, errProxy
		}
		port, err := strconv.ParseUint(fields[3+i], 10, 16)
		if err != nil || strconv.FormatUint(port, 10) != fields[3+i] {
			return 0, client, errProxy
		}
		ends[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return end + 2, ends[0], nil
}

// Command and version, and family and kind, of version 2.
const (
	proxyLocal = 0x20
	proxyOther = 0x21
	proxyNone  = 0x00
	proxyTCP4  = 0x11
	proxyTCP6  = 0x21
	proxyUnix  = 0x31
)

func parseProxy2(b []byte) (size int, client netip.AddrPort, err error) {
	if len(b) < proxyFixed {
		return 0, client, errMore
	}
	command, family := b[12], b[13]
	size = proxyFixed + int(binary.BigEndian.Uint16(b[14:]))
	if command != proxyLocal && command != proxyOther {
		return 0, client, errProxyIs
	}
	if size > proxyBlock {
		return 0, client, errTooLong
	}
	if len(b) < size {
		return 0, client, errMore
	}
	if command == proxyLocal { // its addresses are to be ignored
		return size, client, nil
	}
	part, address := b[proxyFixed:size], 0
	switch family {
	case proxyNone:
		return size, client, nil
	case proxyUnix:
		if len(part) < 2*108 {
			return 0, client, errProxy
		}
		return size, client, nil
	case proxyTCP4:
		address = 4
	case proxyTCP6:
		address = 16
	default:
		return 0, client, errProxyIs
	}
	if len(part) < 2*address+4 {
		return 0, client, errProxy
	}
	ip, _ := netip.AddrFromSlice(part[:address])
	return size, netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(part[2*address:])), nil
}

// readProxy reads the header that comes before everything else, and returns what has come with
// it, nothing perhaps. The goroutine that serves calls it, so that nobody else waits for it.
func (c *conn) readProxy(p []byte) (int, error) {
	for {
		n, err := c.readOn(p)
		if err != nil {
			if len(c.header) > 0 {
				c.pool.refused(c.Conn.RemoteAddr(), cutShort(err))
			}
			return 0, net.ErrClosed // the server closes without a word
		}
		before := len(c.header)
		c.header = append(c.header, p[:n]...)
		size, client, err := parseProxy(c.header)
		if err == errMore {
			continue
		}
		if err != nil {
			c.pool.refused(c.Conn.RemoteAddr(), err.Error())
			return 0, net.ErrClosed
		}
		rest := copy(p, p[size-before:n]) // before is less than size: it was not complete
		c.client, c.header, c.awaits, c.flushed = client, nil, false, true
		if !c.stays {
			c.pool.move(c)
		}
		return rest, nil
	}
}

// cutShort says why there is only a part of a header.
func cutShort(err error) string {
	why := err.Error()
	switch {
	case errors.Is(err, io.EOF):
		why = "the client sends no more"
	case errors.Is(err, os.ErrDeadlineExceeded):
		why = "it took too long"
	}
	return "its PROXY header is not complete: " + why
}

// readOn reads, whatever offers there are.
func (c *conn) readOn(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	for errors.Is(err, os.ErrDeadlineExceeded) && c.resume() {
		n, err = c.Conn.Read(p)
	}
	return n, err
}

// RemoteAddr returns the client's address: the one that the PROXY header names, where there was one.
func (c *conn) RemoteAddr() net.Addr {
	if c.client.IsValid() {
		return net.TCPAddrFromAddrPort(c.client)
	}
	return c.Conn.RemoteAddr()
}

// move makes a connection, which could not go before, one that can, unless it has been closed.
func (p *Pool) move(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, open := p.conns[c]; open {
		p.movable.Add(1)
		c.counted.Store(true)
	}
}

// refused tells of a connection that is closed because of what its peer is or sends.
func (p *Pool) refused(peer net.Addr, why string) {
	if p.options.Refused != nil {
		p.options.Refused(peer, why)
	}
}
