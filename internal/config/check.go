package config

import (
	"fmt"
	"net"
	"path"
)

// check reports settings that are right alone and wrong together, and returns what
// is merely questionable.
func (g *loader) check(c *Config) (warnings []string) {
	warnings = append(g.checkPools(c), g.checkDoor(c)...)
	warnings = append(warnings, g.checkHelpers(c)...)
	warnings = append(warnings, g.checkTasks(c)...)
	g.checkAdmin(c)
	g.checkOps(c)
	return warnings
}

// timeoutWarnings says what is questionable in the clocks and budgets of one pool.
func timeoutWarnings(pool string, c *Config) (warnings []string) {
	if c.Timeouts.Drain < c.Timeouts.Request {
		warnings = append(warnings, fmt.Sprintf(
			"%s (%s) is shorter than %s (%s): a leaving worker cuts off requests that take longer",
			PoolKey(pool, "timeouts.drain"), durationText(c.Timeouts.Drain), PoolKey(pool, "timeouts.request"), durationText(c.Timeouts.Request)))
	}
	if after := c.Worker.QuarantineAfter; after > c.Worker.MaxCrashes {
		warnings = append(warnings, fmt.Sprintf(
			"%s (%d) is more than %s (%d): a model may use up the crashes of a slot before it is quarantined",
			PoolKey(pool, "worker.quarantine_after"), after, PoolKey(pool, "worker.max_crashes"), c.Worker.MaxCrashes))
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
