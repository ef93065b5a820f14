package cache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"preforkd/internal/ipc"
)

// Files of a model's directory, beside its versions.
const (
	settingsName = "config.yaml"
	tritonName   = "config.pbtxt"
	warmupName   = "warmup.json"
)

// maxSettings is as much of a file of settings as is read: its decoder refuses less.
const maxSettings = 2 << 20

// find reads the settings of the model in dir and returns the versions that they choose.
func (o Options) find(name, dir string) (models []ipc.ModelFile, warnings []string, err error) {
	s, warnings, err := o.settings(name, dir)
	if err != nil {
		return nil, warnings, err
	}
	found, err := versions(dir)
	if err != nil {
		return nil, warnings, modelsFailure(dir, err)
	}
	file := s.ModelFile()
	if len(found) == 0 {
		return nil, warnings, &ipc.Failure{
			Exit: ipc.ExitBoot, What: fmt.Sprintf("model %s: %s holds no version", name, dir),
			Try: "put the model at " + filepath.Join(dir, "1", file),
		}
	}
	if o.Version != "" {
		s.Version, s.Versions = o.Version, ipc.VersionPolicy{}
	}
	chosen, err := choose(&s, found)
	if err != nil {
		return nil, warnings, err
	}
	for _, version := range chosen {
		m := ipc.ModelFile{Name: name, Version: version, Source: filepath.Join(dir, version, file), Options: s}
		if m.Warmup, err = warmup(dir, version, &s); err != nil {
			return nil, warnings, err
		}
		if _, err := os.Stat(m.Source); err != nil {
			return nil, warnings, &ipc.Failure{
				Exit: ipc.ExitBoot, What: fmt.Sprintf("model %s: %v", name, err), Err: err,
				Try: "put the model there",
			}
		}
		models = append(models, m)
	}
	return models, warnings, nil
}

// settings reads the one file of settings that dir may have.
func (o Options) settings(name, dir string) (s ipc.ModelSettings, warnings []string, err error) {
	ours, isOurs, err := readSettings(filepath.Join(dir, settingsName))
	if err != nil {
		return s, nil, err
	}
	text, isText, err := readSettings(filepath.Join(dir, tritonName))
	if err != nil {
		return s, nil, err
	}
	switch {
	case isOurs && isText:
		return s, nil, &ipc.Failure{
			Exit: ipc.ExitConfig, What: fmt.Sprintf("model %s: there are both %s and %s", name, filepath.Join(dir, settingsName), filepath.Join(dir, tritonName)),
			Try: "remove one of them",
		}
	case isOurs:
		s.File = filepath.Join(dir, settingsName)
		err = o.Decode(s.File, ours, &s)
	case isText:
		s.File = filepath.Join(dir, tritonName)
		warnings, err = o.DecodeText(s.File, name, text, &s)
	}
	if err != nil {
		return s, warnings, &ipc.Failure{Exit: ipc.ExitConfig, What: err.Error(), Err: err}
	}
	return s, warnings, nil
}

// readSettings returns what the file at path holds, and whether there is one.
func readSettings(path string) (data []byte, there bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err == nil {
		defer f.Close()
		data, err = io.ReadAll(io.LimitReader(f, maxSettings))
	}
	if err != nil {
		return nil, false, modelsFailure(path, err)
	}
	return data, true, nil
}

// choose returns the versions of found, which has them in order, that s wants.
func choose(s *ipc.ModelSettings, found []string) ([]string, error) {
	p := &s.Versions
	where, key := s.File, "versions"
	if p.At != "" {
		where, key = p.At, "version_policy"
	}
	wrong := func(what, try string) error {
		return &ipc.Failure{Exit: ipc.ExitConfig, What: where + ": " + what, Try: try}
	}
	var chosen []string
	switch one := p.Latest > 0; {
	case one && p.All, one && p.Specific != nil, p.All && p.Specific != nil:
		return nil, wrong(key+": more than one of latest, all and specific", "write one of them")
	case p.All:
		chosen = found
	case p.Specific != nil:
		for _, v := range p.Specific {
			if !slices.Contains(found, v) {
				return nil, wrong(fmt.Sprintf("%s: %s is not there, only %s", key, v, strings.Join(found, ", ")), "name versions that are there")
			}
		}
		chosen = slices.DeleteFunc(slices.Clone(found), func(v string) bool { return !slices.Contains(p.Specific, v) })
	case one || s.Version == "":
		chosen = found[max(len(found)-max(p.Latest, 1), 0):]
	case !slices.Contains(found, s.Version):
		return nil, wrong(fmt.Sprintf("version: %s is not there, only %s", s.Version, strings.Join(found, ", ")),
			"name a version that is there, or remove the line to serve the highest")
	default:
		chosen = []string{s.Version}
	}
	if s.Version != "" && !slices.Contains(chosen, s.Version) {
		return nil, wrong(fmt.Sprintf("version: %s is not one of the versions that are loaded, %s", s.Version, strings.Join(chosen, ", ")),
			"add it to versions, or remove the line to serve the highest")
	}
	for _, label := range slices.Sorted(maps.Keys(s.Labels)) {
		v := s.Labels[label]
		if !slices.Contains(chosen, v) {
			return nil, wrong(fmt.Sprintf("labels.%s: %s is not one of the versions that are loaded, %s", label, v, strings.Join(chosen, ", ")),
				"add it to versions, or correct the label")
		}
	}
	return chosen, nil
}

// versions returns the versions in dir, lowest first. A version is a decimal number
// from 1 on, without leading zeros: one version has one name.
func versions(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, entry := range entries {
		n, err := strconv.ParseUint(entry.Name(), 10, 63)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != entry.Name() {
			continue
		}
		if st, err := os.Stat(filepath.Join(dir, entry.Name())); err == nil && st.IsDir() {
			found = append(found, entry.Name())
		}
	}
	slices.SortFunc(found, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	return found, nil
}
