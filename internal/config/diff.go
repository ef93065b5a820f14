package config

import "fmt"

// Differences returns a line for each setting in which before and after differ, as
// "timeouts.drain: 30s -> 1m". Secrets are not shown.
func Differences(before, after Config) []string {
	var lines []string
	old, now := settingsOf(reflectOf(&before), ""), settingsOf(reflectOf(&after), "")
	for i, s := range now {
		p := &printer{}
		from, to := p.flow(old[i].value, s.key), p.flow(s.value, s.key)
		switch {
		case from == to:
		case s.spec.use != plain:
			lines = append(lines, s.key+": changed")
		default:
			lines = append(lines, fmt.Sprintf("%s: %s -> %s", s.key, from, to))
		}
	}
	return lines
}
