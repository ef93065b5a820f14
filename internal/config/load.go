package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// Sources is where settings come from.
type Sources struct {
	// File is the configuration file; empty: none. PREFORKD_CONFIG replaces it
	// unless Explicit.
	File string
	// Explicit says that the operator named File, so that it must exist. A file
	// that PREFORKD_CONFIG names must exist, too.
	Explicit bool
	// Env are variables as os.Environ returns them.
	Env []string
	// Flags, in the order of the command line.
	Flags []Flag
}

// Flag is a setting on the command line. A list may be given in several flags.
type Flag struct {
	Name  string // as the operator wrote it, for messages; empty: derived from Key
	Key   string // workers, log.level
	Value string // lists by commas
}

// Loaded is the settings and how they came about.
type Loaded struct {
	Config Config
	// File is the configuration file that was read; empty: none.
	File string
	// Origins says where each setting's value is from: "default", "preforkd.yaml:12",
	// "environment PREFORKD_WORKERS" or "flag --workers".
	Origins map[string]string
	// Warnings are what an operator should know and what prevents nothing.
	Warnings []string

	secrets map[string]secretFile
}

// Load reads the settings from all sources. The error is an *Error.
func Load(s Sources) (*Loaded, error) {
	l := &Loaded{}
	g := newLoader(reflectOf(&l.Config))
	g.load(s)
	if len(g.problems) == 0 {
		g.inherit(&l.Config)
		g.helperProbes(&l.Config)
		l.Warnings = g.check(&l.Config)
	}
	if len(g.problems) > 0 {
		return nil, &Error{Problems: g.problems}
	}
	l.File, l.Origins, l.secrets = g.file, g.origins(), g.secrets
	l.Warnings = append(g.warnings, l.Warnings...)
	return l, nil
}

// place is where a value was set.
type place struct {
	source string // as in Problem
	position
}

// loader fills one struct from all sources.
type loader struct {
	into     reflect.Value
	settings []setting
	file     string
	document *document
	places   map[string]place // by key, and by list element
	secrets  map[string]secretFile
	problems []Problem
	warnings []string
}

func newLoader(into reflect.Value) *loader {
	return &loader{
		into:     into,
		settings: settingsOf(into, ""),
		places:   map[string]place{},
		secrets:  map[string]secretFile{},
	}
}

// load applies the sources, the strongest last.
func (g *loader) load(s Sources) {
	env := newEnvironment(s.Env)
	setDefaults(g.into, spec{})
	g.credentials(env)
	named := "-c"
	if path := env.get(envConfig); path != "" && !s.Explicit {
		s.File, s.Explicit, named = path, true, envConfig
	}
	if s.File != "" {
		g.readFile(s.File, s.Explicit, named)
	}
	g.variables(env, s.Flags)
	g.flags(s.Flags)
}

// readFile applies the configuration file, which named may have named.
func (g *loader) readFile(path string, must bool, named string) {
	data, err := readLimited(path)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return
	}
	if err != nil {
		if e := (*fs.PathError)(nil); errors.As(err, &e) { // the path is the source
			err = e.Err
		}
		g.problems = append(g.problems, Problem{Source: path, Text: fmt.Sprintf("read configuration: %v; correct %s or the file", err, named)})
		return
	}
	g.file = path
	d := newDecoder(path, g.into)
	d.decode(data, g.into)
	for key, p := range d.places {
		g.places[key] = place{path, p}
	}
	for key, s := range d.secrets {
		g.secrets[key] = s
	}
	g.document = d.document
	g.problems = append(g.problems, d.found()...)
	slices.SortStableFunc(g.problems, func(a, b Problem) int { return a.Line - b.Line })
}

// readLimited reads a file, and one byte more than is allowed of a larger one.
func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only: nothing to lose
	return io.ReadAll(io.LimitReader(f, maxFile+int64(len("\ufeff"))+1))
}

// credentials reads secrets that the service manager provides, systemd.exec(5).
func (g *loader) credentials(env environment) {
	dir := env.get("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return
	}
	for _, s := range g.settings {
		if s.spec.use != inline {
			continue
		}
		path := filepath.Join(dir, s.key)
		text, err := readSecret(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			g.problem("environment CREDENTIALS_DIRECTORY", s.key, err.Error())
			continue
		}
		s.value.SetString(text)
		g.places[s.key] = place{source: "credential " + path}
		g.secrets[s.key] = secretFile{path: path, credential: true}
	}
}

// flags applies the command line.
func (g *loader) flags(flags []Flag) {
	joined := map[string]Flag{}
	var order []string
	for _, f := range flags {
		i := slices.IndexFunc(g.settings, func(s setting) bool { return s.key == f.Key || s.long != "" && s.long == f.Key })
		if f.Name == "" {
			f.Name = flagName(f.Key)
		}
		if i < 0 {
			g.problem("flag "+f.Name, f.Key, "unknown key"+g.hint(f.Key))
			continue
		}
		f.Key = g.settings[i].key
		before, again := joined[f.Key]
		if !again {
			order = append(order, f.Key)
		} else if shapeOf(g.settings[i].value.Type()) == list {
			f.Value = before.Value + "," + f.Value
		}
		joined[f.Key] = f
	}
	for _, key := range order {
		i := slices.IndexFunc(g.settings, func(s setting) bool { return s.key == key })
		g.set(g.settings[i], "flag "+joined[key].Name, joined[key].Value)
	}
}

// hint says which setting may have been meant.
func (g *loader) hint(key string) string {
	var keys []string
	for _, s := range g.settings {
		keys = append(keys, s.key)
	}
	if n := nearest(key, keys); n != "" {
		return "; did you mean " + n + "?"
	}
	return ""
}

// set applies a value from a source that has no lines.
func (g *loader) set(s setting, source, text string) {
	switch s.spec.use {
	case inline:
		g.problem(source, s.key, refuseInline(s.key))
		return
	case byFile:
		secret, err := readSecret(text)
		if err != nil {
			g.problem(source, s.key, err.Error())
			return
		}
		s.value.SetString(secret)
		key := strings.TrimSuffix(s.key, fileSuffix)
		g.places[key], g.secrets[key] = place{source: source}, secretFile{path: text}
		return
	}
	flaws := setText(s.value, s.spec, text)
	for _, f := range flaws {
		key := s.key
		if f.element >= 0 {
			key = fmt.Sprintf("%s[%d]", s.key, f.element)
		}
		g.problem(source, key, f.text)
	}
	if flaws == nil {
		g.places[s.key] = place{source: source}
	}
}

// problem reports what is wrong in a source without lines.
func (g *loader) problem(source, key, text string) {
	g.problems = append(g.problems, Problem{Source: source, Key: key, Text: text})
}

// problemAt reports a value that was read, wherever it was set: key may be that of
// an element, or of a section of a named entry, which is where the entry is.
func (g *loader) problemAt(key, text string) {
	whole, _, _ := strings.Cut(key, "[")
	p := g.places[whole]
	for above := whole; p.source == "" && strings.Contains(above, "."); {
		above = above[:strings.LastIndexByte(above, '.')]
		p = g.places[above]
	}
	if e, ok := g.places[key]; ok && e.source == p.source {
		p = e
	}
	switch {
	case p.source == "":
		g.problem("default", key, text)
	case p.line == 0:
		g.problem(p.source, key, text)
	default:
		g.problems = append(g.problems, Problem{
			Source: p.source, Line: p.line, Column: p.column, Key: key, Text: text,
			Excerpt: excerpt(g.document.lines[p.line-1], p.column),
		})
	}
}

// origins says where each setting is from.
func (g *loader) origins() map[string]string {
	all := map[string]string{}
	for _, s := range g.settings {
		if s.spec.use != byFile {
			all[s.key] = "default"
		}
	}
	for key, p := range g.places {
		if strings.HasSuffix(key, "]") {
			continue
		}
		all[key] = p.source
		if p.line > 0 {
			all[key] = fmt.Sprintf("%s:%d", p.source, p.line)
		}
	}
	return all
}
