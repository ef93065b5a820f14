package config

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// secretFile says where a secret was read.
type secretFile struct {
	path       string
	credential bool // below $CREDENTIALS_DIRECTORY, so that no setting names it
}

// readSecret returns the content of a secret's file, less the final line break
// that editors add.
func readSecret(path string) (string, error) {
	data, err := readLimited(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	if len(data) > maxFile {
		return "", fmt.Errorf("read secret: %s is larger than %s; no secret is, check the path", path, Bytes(maxFile))
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if text == "" {
		return "", fmt.Errorf("read secret: %s is empty; write the secret into it", path)
	}
	return text, nil
}

// refuseInline says what to do instead of writing a secret.
func refuseInline(key string) string {
	if strings.Contains(key, "/") { // of a route: no file's name, and none that is known beforehand
		return fmt.Sprintf("is a secret, which is not written here; put it into a file and name that in %s%s", key, fileSuffix)
	}
	return fmt.Sprintf("is a secret, which is not written here; put it into a file and name that in %s%s, or into $CREDENTIALS_DIRECTORY/%s", key, fileSuffix, key)
}

// secretFrom reads the file that a secret's key with _file names.
func (d *decoder) secretFrom(prefix, name string, node ast.Node, v reflect.Value) {
	var path string
	before := len(d.problems)
	d.leaf(prefix+name, node, reflectOf(&path), spec{nonempty: true})
	if len(d.problems) > before {
		return
	}
	text, err := readSecret(path)
	if err != nil {
		d.report(at(node), prefix+name, err.Error())
		return
	}
	v.SetString(text)
	key := strings.TrimSuffix(prefix+name, fileSuffix)
	d.places[key] = at(node)
	d.secrets[key] = secretFile{path: path}
}

// lastLine returns a line that no token of a node reaches beyond.
func lastLine(n ast.Node) int {
	last := 0
	ast.Walk(lineFinder(func(t *token.Token) {
		if t != nil {
			last = max(last, positionOf(t).line+strings.Count(t.Origin, "\n"))
		}
	}), n)
	return last
}

// lineFinder is an ast.Visitor.
type lineFinder func(*token.Token)

// Visit implements ast.Visitor.
func (f lineFinder) Visit(n ast.Node) ast.Visitor {
	f(n.GetToken())
	return f
}
