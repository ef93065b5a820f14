package config

import "fmt"

// Differences returns a line for each setting that a reload from before to after would
// change, as "timeouts.drain: 30s -> 1m". A setting that holds from the start of the
// service is compared with started, and the line says that it has to wait. Secrets are
// not shown.
func Differences(started, before, after Config) []string {
	var lines []string
	first, old := settingsOf(reflectOf(&started), ""), settingsOf(reflectOf(&before), "")
	for i, s := range settingsOf(reflectOf(&after), "") {
		was, when := old[i], ""
		if s.spec.atStart {
			was, when = first[i], " (takes effect at the next start)"
		}
		p := &printer{}
		from, to := p.flow(was.value, s.key), p.flow(s.value, s.key)
		switch {
		case from == to:
		case s.spec.use != plain:
			lines = append(lines, s.key+": changed"+when)
		default:
			lines = append(lines, fmt.Sprintf("%s: %s -> %s%s", s.key, from, to, when))
		}
	}
	return lines
}
