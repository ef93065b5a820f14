package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Proxy is a peer that is trusted to say whom it speaks for: a network, or ProxyUnix.
type Proxy string

// ProxyUnix stands for whoever connects to a unix socket.
const ProxyUnix Proxy = "unix"

// UnmarshalText reads an IP address, a network, or unix.
func (p *Proxy) UnmarshalText(text []byte) error {
	s := string(text)
	if s == string(ProxyUnix) {
		*p = ProxyUnix
		return nil
	}
	network, err := netip.ParsePrefix(s)
	if address, bad := netip.ParseAddr(s); bad == nil && address.Zone() == "" {
		network, err = netip.PrefixFrom(address, address.BitLen()), nil
	}
	switch {
	case err != nil:
		return errors.New("is no network")
	case network.Addr().Is4In6():
		return errors.New("is an IPv4 network as IPv6 has it; write it as IPv4")
	case network != network.Masked():
		return fmt.Errorf("has bits beyond its length; write %s", network.Masked())
	}
	*p = Proxy(network.String())
	return nil
}

// Prefix returns the network; false for ProxyUnix.
func (p Proxy) Prefix() (netip.Prefix, bool) {
	network, err := netip.ParsePrefix(string(p))
	return network, err == nil
}

// entry is an address of listen as a section: in place of options behind a question mark.
type entry struct {
	Address Address `yaml:"address"`
	TLS     struct {
		Cert string `yaml:"cert"`
		Key  string `yaml:"key"`
	} `yaml:"tls"`
	ProxyProtocol bool `yaml:"proxy_protocol"`
}

// address writes the section node into the Address v.
func (d *decoder) address(key string, node ast.Node, v reflect.Value) {
	var e entry
	own := &decoder{document: d.document, keys: d.keys, places: map[string]position{}, secrets: map[string]secretFile{}}
	before := len(d.problems)
	own.mapping(key, node, reflectOf(&e), spec{})
	if len(d.problems) > before {
		return
	}
	for _, option := range []struct {
		into *string
		text string
	}{{&e.Address.Cert, e.TLS.Cert}, {&e.Address.Key, e.TLS.Key}} {
		if option.text != "" {
			*option.into = option.text
		}
	}
	e.Address.Proxy = e.Address.Proxy || e.ProxyProtocol
	switch {
	case e.Address.Network == "":
		d.report(at(node), key+".address", "is missing; write "+wants(addressType, spec{}))
	case e.Address.Cert == "" && e.Address.Key != "":
		d.report(at(node), key+".tls.cert", "is missing; write the path of the certificate that tls.key belongs to")
	case e.Address.Cert != "" && e.Address.Key == "":
		d.report(at(node), key+".tls.key", "is missing; write the path of the key of tls.cert")
	default:
		v.Set(reflectOf(&e.Address))
		d.places[key] = at(node)
	}
}

// Files returns the files of tokens by class, of those classes that ask for one.
func (a *Auth) Files() map[string]string {
	files := map[string]string{"infer": a.Infer, "tasks": a.Tasks, "control": a.Control, "docs": a.Docs}
	for class, path := range files {
		if path == "" {
			delete(files, class)
		}
	}
	return files
}

// Open names the classes of paths that ask for no token.
func (a *Auth) Open() (classes []string) {
	files := a.Files()
	for _, class := range []string{"infer", "tasks", "control", "docs"} {
		if files[class] == "" {
			classes = append(classes, class)
		}
	}
	return classes
}

// checkDoor reports what does not fit together in what is asked of those who connect.
func (g *loader) checkDoor(c *Config) (warnings []string) {
	var public []string
	for _, name := range c.PoolNames() {
		p := c.ForPool(name)
		for i, a := range p.Listen {
			key := fmt.Sprintf("%s[%d]", PoolKey(name, "listen"), i)
			switch {
			case p.Worker.Other() && a.Cert != "":
				g.problemAt(key, fmt.Sprintf("%q has tls, which %s would have to speak itself; remove tls", a.Plain(), PoolKey(name, "worker.command")))
			case p.Worker.Other() && a.Proxy:
				g.problemAt(key, fmt.Sprintf("%q has proxy_protocol, which %s would have to read itself; remove proxy_protocol", a.Plain(), PoolKey(name, "worker.command")))
			case a.Proxy && len(p.HTTP.TrustedProxies) == 0:
				g.problemAt(key, fmt.Sprintf("%q has proxy_protocol, and nobody is trusted to speak it; name the proxies in %s", a.Plain(), PoolKey(name, "http.trusted_proxies")))
			}
			if !p.Worker.Other() && a.Network == "tcp" && Public(a.Addr) {
				public = append(public, a.Plain())
			}
		}
	}
	if w := OpenWarning(public, &c.Auth); w != "" {
		warnings = append(warnings, w)
	}
	return warnings
}

// OpenWarning says that classes of paths ask for no token though other machines reach
// addresses; empty: none can, or all classes do.
func OpenWarning(addresses []string, a *Auth) string {
	open := a.Open()
	if len(addresses) == 0 || len(open) == 0 {
		return ""
	}
	return fmt.Sprintf("%s: other machines may connect, and no token is asked for paths of the classes %s: whoever connects may use them; set auth.%s",
		strings.Join(addresses, ", "), strings.Join(open, ", "), strings.Join(open, ", auth."))
}

// Public tells whether other machines may connect to the address host:port.
func Public(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return !ip.Unmap().IsLoopback()
	}
	return !strings.EqualFold(host, "localhost")
}
