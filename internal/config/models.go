package config

import (
	"bytes"
	"encoding/json"
)

// A generation's settings are kept as JSON across an upgrade, also one back to a program for
// which models was a directory and nothing else. So a section that says no more is written as
// that, and read from it.

// MarshalJSON writes the directory alone where the rest is as by default.
func (m Models) MarshalJSON() ([]byte, error) {
	if m == onlyDir(m.Dir) {
		return json.Marshal(m.Dir)
	}
	type section Models
	return json.Marshal(section(m))
}

// UnmarshalJSON reads what MarshalJSON has written.
func (m *Models) UnmarshalJSON(data []byte) error {
	if bytes.HasPrefix(data, []byte(`"`)) {
		*m = onlyDir("")
		return json.Unmarshal(data, &m.Dir)
	}
	type section Models
	return json.Unmarshal(data, (*section)(m))
}

func onlyDir(dir string) Models {
	var m Models
	setDefaults(reflectOf(&m), spec{})
	m.Dir = dir
	return m
}
