package supervisor

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"preforkd/internal/ipc"
)

// byName are the versions of each model, in order.
func byName(models []ipc.ModelFile) map[string][]ipc.ModelFile {
	all := map[string][]ipc.ModelFile{}
	for _, m := range models {
		all[m.Name] = append(all[m.Name], m)
	}
	return all
}

// modelDifferences says what a reload changes in the models of a pool.
func modelDifferences(old, next []ipc.ModelFile) (lines []string) {
	was, is := byName(old), byName(next)
	for _, name := range names(next) {
		before, now := was[name], is[name]
		if before == nil {
			lines = append(lines, fmt.Sprintf("model %s: new, %s", name, numbered(now)))
			continue
		}
		if from, to := numbers(before), numbers(now); from != to {
			what := "versions"
			if len(before) == 1 && len(now) == 1 {
				what = "version"
			}
			lines = append(lines, fmt.Sprintf("model %s: %s %s -> %s", name, what, from, to))
		}
		for _, m := range now {
			i := slices.IndexFunc(before, func(o ipc.ModelFile) bool { return o.Version == m.Version })
			if i >= 0 && before[i].Digest != m.Digest {
				lines = append(lines, fmt.Sprintf("model %s: version %s has other content", name, m.Version))
			}
		}
		if file := now[0].Options.File; settingsText(before[0]) != settingsText(now[0]) {
			if file == "" {
				file = before[0].Options.File
			}
			lines = append(lines, fmt.Sprintf("model %s: other settings, %s", name, file))
		}
	}
	for _, name := range names(old) {
		if is[name] == nil {
			lines = append(lines, fmt.Sprintf("model %s: removed", name))
		}
	}
	return lines
}

// names are those of models, each once.
func names(models []ipc.ModelFile) (all []string) {
	for _, m := range models {
		if !slices.Contains(all, m.Name) {
			all = append(all, m.Name)
		}
	}
	return all
}

// numbers lists the versions of one model.
func numbers(models []ipc.ModelFile) string {
	var all []string
	for _, m := range models {
		all = append(all, m.Version)
	}
	return strings.Join(all, ", ")
}

func numbered(models []ipc.ModelFile) string {
	if len(models) == 1 {
		return "version " + numbers(models)
	}
	return "versions " + numbers(models)
}

// settingsText tells settings apart. Where they are from and at which line does not matter.
func settingsText(m ipc.ModelFile) string {
	o := m.Options
	o.File, o.Versions.At = "", ""
	for _, list := range []*[]ipc.TensorSettings{&o.Inputs, &o.Outputs} {
		*list = slices.Clone(*list)
		for i := range *list {
			(*list)[i].At = ""
		}
	}
	text, _ := json.Marshal(o) // the manifest has it by now
	return string(text)
}
