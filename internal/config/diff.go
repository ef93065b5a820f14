package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// Differences returns a line for each setting that a reload from before to after would
// change, as "timeouts.drain: 30s -> 1m". A setting that holds from the start of the
// service is compared with started, and the line says that it has to wait. Secrets are
// not shown.
func Differences(started, before, after Config) []string {
	d := differ{first: settingsOf(reflectOf(&started), "")}
	d.compare(settingsOf(reflectOf(&before), ""), settingsOf(reflectOf(&after), ""))
	d.routes("routes.", before.Routes, after.Routes)
	d.pools(before.Pools, after.Pools)
	return d.lines
}

// differ collects differences.
type differ struct {
	first []setting // of the whole configuration, at the start
	lines []string
}

// compare compares settings of the same keys.
func (d *differ) compare(old, now []setting) {
	for i, s := range now {
		if s.spec.use == byFile { // the secret's own key says it
			continue
		}
		was, when := old[i], ""
		if s.spec.atStart {
			was, when = d.first[i], " (takes effect at the next start)"
		}
		p := &printer{}
		from, to := p.flow(was.value, s.key), p.flow(s.value, s.key)
		switch {
		case from == to:
		case s.spec.use != plain:
			d.lines = append(d.lines, s.key+": changed"+when)
		default:
			d.lines = append(d.lines, fmt.Sprintf("%s: %s -> %s%s", s.key, from, to, when))
		}
	}
}

// pools compares pools by name.
func (d *differ) pools(old, now map[string]Pool) {
	names := append(slices.Collect(maps.Keys(old)), slices.Collect(maps.Keys(now))...)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		was, had := old[name]
		is, has := now[name]
		key := "pools." + name
		switch {
		case !had:
			d.lines = append(d.lines, key+": new")
		case !has:
			d.lines = append(d.lines, key+": removed")
		case !reflect.DeepEqual(was, is):
			d.compare(settingsOf(reflectOf(&was), key+"."), settingsOf(reflectOf(&is), key+"."))
			d.routes(key+".routes.", was.Routes, is.Routes)
		}
	}
}

// routes compares routes by path.
func (d *differ) routes(prefix string, old, now map[string]Route) {
	paths := append(slices.Collect(maps.Keys(old)), slices.Collect(maps.Keys(now))...)
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		was, had := old[path]
		is, has := now[path]
		switch {
		case !had:
			d.lines = append(d.lines, prefix+path+": new")
		case !has:
			d.lines = append(d.lines, prefix+path+": removed")
		default:
			d.compare(settingsOf(reflectOf(&was), prefix+path+"."), settingsOf(reflectOf(&is), prefix+path+"."))
		}
	}
}
