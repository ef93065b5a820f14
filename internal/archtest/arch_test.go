package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "preforkd/"
	root   = "../.."
)

// source is one parsed file.
type source struct {
	dir, name string // dir is below the module, with slashes
	test      bool
	file      *ast.File
	set       *token.FileSet
}

func (s *source) at(n ast.Node) string {
	return path.Join(s.dir, s.name) + ":" + strconv.Itoa(s.set.Position(n.Pos()).Line)
}

func sources(t *testing.T) []*source {
	t.Helper()
	var all []*source
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && p != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(p))
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, &source{filepath.ToSlash(dir), name, strings.HasSuffix(name, "_test.go"), file, set})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d source files found below %s", len(all), root)
	}
	return all
}

func isOutside(dir string) bool {
	return slices.ContainsFunc(outside, func(o string) bool { return dir == o || strings.HasPrefix(dir, o+"/") })
}

func TestImports(t *testing.T) {
	for _, s := range sources(t) {
		if isOutside(s.dir) {
			continue
		}
		from, ok := rooms[s.dir]
		if !ok {
			t.Errorf("%s: package %s is not on the map", s.name, s.dir)
			continue
		}
		for _, imp := range s.file.Imports {
			p, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			for _, wrong := range broken(s, from, p) {
				t.Errorf("%s: import of %s: %s", s.at(imp), p, wrong)
			}
		}
	}
}

// broken returns the rules that the import of p breaks.
func broken(s *source, from room, p string) (wrong []string) {
	if rest, ours := strings.CutPrefix(p, module); ours && !s.test {
		wrong = append(wrong, brokenInside(s.dir, from, rest)...)
	}
	for _, f := range fences {
		if under(p, f.path) && !slices.Contains(f.in, s.dir) && !s.test {
			wrong = append(wrong, "only "+strings.Join(f.in, ", ")+" may")
		}
	}
	if under(p, "golang.org/x/sys/unix") && from.level != 1 && !s.test && !mayTouchTheKernel[s.dir] {
		wrong = append(wrong, "only level 1 touches the kernel")
	}
	if p == "unsafe" && !strings.HasSuffix(s.name, "_unsafe.go") {
		wrong = append(wrong, "only files called *_unsafe.go may")
	}
	if from.pure && !s.test && slices.ContainsFunc(impure, func(i string) bool { return under(p, i) }) {
		wrong = append(wrong, "the package is pure")
	}
	return wrong
}

func brokenInside(dir string, from room, imported string) (wrong []string) {
	to, ok := rooms[imported]
	switch {
	case !ok:
		return []string{"it is not on the map"}
	case from.column == tests:
		return nil
	case to.column == tests:
		return []string{"it serves tests only"}
	}
	if to.level >= from.level {
		wrong = append(wrong, "imports point downwards")
	}
	if to.column != shared && to.column != from.column {
		wrong = append(wrong, "columns meet only in shared packages")
	}
	if imported == "internal/config" && !configReaders[from.level] {
		wrong = append(wrong, "only programs read settings; take options")
	}
	return wrong
}

// under tells whether p is the package or module at, or below it.
func under(p, at string) bool { return p == at || strings.HasPrefix(p, at+"/") }

func TestPackagesAreDocumented(t *testing.T) {
	for dir := range rooms {
		if _, err := os.Stat(filepath.Join(root, dir)); err != nil {
			t.Errorf("%s is on the map and nowhere else", dir)
			continue
		}
		if _, err := os.Stat(filepath.Join(root, dir, "doc.go")); err != nil {
			t.Errorf("%s has no doc.go", dir)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, s := range sources(t) {
		if n := s.set.Position(s.file.FileEnd).Line; n > maxFileLines {
			t.Errorf("%s/%s has %d lines, %d are allowed", s.dir, s.name, n, maxFileLines)
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil || s.test { // a table of cases is as long as its cases
				continue
			}
			if n := s.set.Position(f.Body.Rbrace).Line - s.set.Position(f.Pos()).Line + 1; n > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, %d are allowed", s.at(f), f.Name.Name, n, maxFunctionLines)
			}
		}
	}
}

// TestUses looks at what is used, not only imported: os.Exit outside cmd, and more of
// time than durations in pure packages.
func TestUses(t *testing.T) {
	for _, s := range sources(t) {
		if isOutside(s.dir) || s.test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if !ok || pkg.Obj != nil { // a variable, not a package
				return true
			}
			if pkg.Name == "os" && sel.Sel.Name == "Exit" && !strings.HasPrefix(s.dir, "cmd/") {
				t.Errorf("%s: os.Exit outside cmd", s.at(n))
			}
			if pkg.Name == "time" && rooms[s.dir].pure && !durations[sel.Sel.Name] {
				t.Errorf("%s: time.%s in a pure package", s.at(n), sel.Sel.Name)
			}
			return true
		})
	}
}

var durations = map[string]bool{
	"Duration": true, "Nanosecond": true, "Microsecond": true, "Millisecond": true,
	"Second": true, "Minute": true, "Hour": true,
}

func TestLinkedPackages(t *testing.T) {
	for _, l := range linked {
		cmd := exec.Command("go", "list", "-deps", l.program)
		cmd.Dir = root
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list -deps %s: %v", l.program, err)
		}
		deps := strings.Fields(string(out))
		for _, d := range deps {
			if slices.ContainsFunc(l.without, func(w string) bool { return under(d, w) || strings.HasPrefix(d, w+"@") }) {
				t.Errorf("%s links %s", l.program, d)
			}
		}
		if len(deps) < 50 {
			t.Errorf("%s links only %d packages: was it listed?", l.program, len(deps))
		}
	}
}

// TestTheRulesBite makes sure that the checks fail when they should.
func TestTheRulesBite(t *testing.T) {
	for _, c := range []struct{ dir, imports string }{
		{"internal/supervisor/slot", "preforkd/internal/supervisor"},
		{"internal/supervisor/slot", "preforkd/internal/supervisor/sizing"},
		{"internal/supervisor/slot", "os"},
		{"internal/supervisor/slot", "math/rand/v2"},
		{"internal/supervisor", "preforkd/internal/worker/codec"},
		{"internal/worker/api", "preforkd/internal/config"},
		{"internal/worker/codec", "github.com/valyala/fasthttp"},
		{"internal/supervisor", "golang.org/x/sys/unix"},
		{"internal/supervisor", "preforkd/internal/testkit"},
		{"internal/worker", "github.com/shirou/gopsutil/v3/mem"},
		{"internal/worker", "unsafe"},
	} {
		if len(broken(&source{dir: c.dir, name: "x.go"}, rooms[c.dir], c.imports)) == 0 {
			t.Errorf("%s may import %s", c.dir, c.imports)
		}
	}
}
