package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	envPrefix = "PREFORKD_"
	envConfig = "PREFORKD_CONFIG" // the path of the file
)

// internal are variables with our prefix that are no operator's to set: what the
// supervisor tells its workers. Package ipc names those; config is below it.
var internal = []string{
	"PREFORKD_POOL", "PREFORKD_SLOT", "PREFORKD_GENERATION", "PREFORKD_FDNAMES", "PREFORKD_ROW", "PREFORKD_HELD", "PREFORKD_VAULT", "PREFORKD_PROGRAM", "PREFORKD_FALLEN", "PREFORKD_RETURN",
}

// customary are variables that platforms set for any service; ours win over them.
var customary = []struct{ name, key, before string }{
	{"WEB_CONCURRENCY", "workers", ""},
	{"PORT", "listen", "0.0.0.0:"},
	{"ONNXRUNTIME", "inference.library", ""},
}

// environment is the variables by name. An empty variable counts as not set:
// that is how compose files and unit files leave one out.
type environment map[string]string

func newEnvironment(vars []string) environment {
	env := environment{}
	for _, v := range vars {
		name, value, _ := strings.Cut(v, "=")
		if _, twice := env[name]; !twice { // the first counts, as in getenv(3)
			env[name] = value
		}
	}
	return env
}

// get returns a variable, empty if it is not set.
func (e environment) get(name string) string { return e[name] }

// variables applies the environment. The customary ones are not even looked at where
// something stronger speaks: they are not written for us alone.
func (g *loader) variables(env environment, flags []Flag) {
	for _, c := range customary {
		i := slices.IndexFunc(g.settings, func(s setting) bool { return s.key == c.key })
		if i < 0 || env.get(c.name) == "" || env.get(envName(c.key)) != "" {
			continue
		}
		if slices.ContainsFunc(flags, func(f Flag) bool { return f.Key == c.key }) {
			continue
		}
		g.set(g.settings[i], "environment "+c.name, c.before+env.get(c.name))
	}
	known := []string{envConfig}
	for _, s := range g.settings {
		known = append(known, s.env)
		if text := env.get(s.env); text != "" {
			g.set(s, "environment "+s.env, text)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(known, name) || slices.Contains(internal, name) {
			continue
		}
		text := fmt.Sprintf("environment %s: no such setting, ignored", visible(name))
		if n := nearest(name, known); n != "" {
			text += "; did you mean " + n + "?"
		}
		g.warnings = append(g.warnings, text)
	}
}
