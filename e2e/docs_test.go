package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"preforkd/internal/testkit"
)

var (
	inTicks  = regexp.MustCompile("`([^`]+)`")
	testName = regexp.MustCompile(`^Test[A-Z]\w+$`)
)

// TestMistakesHaveRemedies: each row of the tables of mistakes and of golden rules in docs/concurrency.md
// names what preforkd does about it, by words that its settings, commands or metrics have, and
// a test that there is.
func TestMistakesHaveRemedies(t *testing.T) {
	root := testkit.Root(t)
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	_, page, ok := strings.Cut(read("docs/concurrency.md"), "\n## Mistakes\n")
	page, _, ended := strings.Cut(page, "\n## preforkd lab\n")
	if !ok || !ended {
		t.Fatal("docs/concurrency.md has other sections")
	}
	known, tests := read("docs/operations.md")+read("configs/preforkd.yaml"), testsOf(t, root)
	rows := 0
	for line := range strings.Lines(page) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.Contains(line, "asserted by") {
			continue
		}
		rows++
		remedy, assertion := cells[len(cells)-2], cells[len(cells)-1]
		terms, named := inTicks.FindAllStringSubmatch(remedy, -1), inTicks.FindAllStringSubmatch(assertion, -1)
		if len(terms) == 0 || len(named) == 0 {
			t.Errorf("no remedy or no test in %s", line)
		}
		for _, m := range terms {
			if word := strings.Fields(m[1]); !strings.Contains(known, word[len(word)-1]) {
				t.Errorf("nothing is called %s: %s", m[1], line)
			}
		}
		for _, m := range named {
			if !testName.MatchString(m[1]) || !tests[m[1]] {
				t.Errorf("there is no test %s: %s", m[1], line)
			}
		}
	}
	if rows != 4+5+4 {
		t.Errorf("%d rows, the tutorial has 4 and 5 mistakes and 4 rules", rows)
	}
}

// testsOf returns the names of all tests.
func testsOf(t *testing.T, root string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for _, dir := range []string{"internal", "cmd", "e2e"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			data, err := os.ReadFile(path)
			for _, m := range declared.FindAllStringSubmatch(string(data), -1) {
				all[m[1]] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}
