package config

import (
	"fmt"
	"net"
	"path"
)

// check reports settings that are right alone and wrong together, and returns what
// is merely questionable.
func (g *loader) check(c *Config) (warnings []string) {
	first := map[string]int{}
	for i, a := range c.Listen {
		if j, twice := first[a.same()]; twice {
			g.problemAt(fmt.Sprintf("listen[%d]", i), fmt.Sprintf("%q is the same address as %q in listen[%d]; remove one", a, c.Listen[j], j))
			continue
		}
		first[a.same()] = i
	}
	g.checkAdmin(c)
	g.checkOps(c)
	if len(c.Worker.Command) > 0 && c.Worker.Command[0] == "" {
		g.problemAt("worker.command[0]", `"" names no program; write its name or path`)
	}
	if c.Timeouts.Drain < c.Timeouts.Request {
		warnings = append(warnings, fmt.Sprintf(
			"timeouts.drain (%s) is shorter than timeouts.request (%s): a leaving worker cuts off requests that take longer",
			durationText(c.Timeouts.Drain), durationText(c.Timeouts.Request)))
	}
	if after := c.Worker.QuarantineAfter; after > c.Worker.MaxCrashes {
		warnings = append(warnings, fmt.Sprintf(
			"worker.quarantine_after (%d) is more than worker.max_crashes (%d): a model may use up the crashes of a slot before it is quarantined",
			after, c.Worker.MaxCrashes))
	}
	return warnings
}

// checkOps reports an address on which operators cannot be served.
func (g *loader) checkOps(c *Config) {
	address, asked := c.OpsAddress()
	if !asked {
		return
	}
	parsed, err := ParseAddress(address)
	switch {
	case err != nil:
		g.problemAt("ops.listen", fmt.Sprintf("%q %v; write HOST:PORT, or off", address, err))
		return
	case parsed.Network != "tcp":
		g.problemAt("ops.listen", fmt.Sprintf("%q is no HOST:PORT; write one, or off", address))
		return
	}
	for i, a := range c.Listen {
		if _, port, _ := net.SplitHostPort(a.Addr); a.same() == parsed.same() && port != "0" {
			g.problemAt("ops.listen", fmt.Sprintf("%q is also listen[%d]; write another port", address, i))
		}
	}
}

// checkAdmin reports a path that cannot be bound.
func (g *loader) checkAdmin(c *Config) {
	if c.Admin == "" || c.Admin == AdminOff {
		return
	}
	switch {
	case !path.IsAbs(c.Admin):
		g.problemAt("admin", fmt.Sprintf("%q is not a path that begins with /; write one, or off", c.Admin))
	case len(c.Admin) > maxUnixPath:
		g.problemAt("admin", fmt.Sprintf("a path of %d bytes is too long for a socket; the kernel allows %d", len(c.Admin), maxUnixPath))
	}
	for i, a := range c.Listen {
		if a.Network == "unix" && path.Clean(a.Addr) == path.Clean(c.Admin) {
			g.problemAt("admin", fmt.Sprintf("%q is also listen[%d]; write another path", c.Admin, i))
		}
	}
}
