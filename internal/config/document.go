package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// maxFile is the size of a file that is read: far beyond any real one, and what
	// the parser handles within a second.
	maxFile = 1 << 20
	// maxDepth is how deep a file may nest. The parser recurses and keeps the path of
	// every node, so that its cost grows with the square of the depth.
	maxDepth = 64
	// maxKeys are read of one file. The parser's cost grows with the square of the
	// keys of a section: 10,000 take 0.2 s, 200,000 a minute.
	maxKeys = 10_000
	// maxProblems are reported of one file: with more, it is most likely not ours.
	maxProblems = 200
)

// document is one YAML file, and what is wrong with it.
type document struct {
	file     string
	lines    []string
	secret   map[int]bool // lines that hold one; they are never shown
	problems []Problem
}

// position is a place in a document; both count from 1.
type position struct{ line, column int }

// positionOf returns where a token begins.
func positionOf(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{t.Position.Line, t.Position.Column}
}

// at returns where a node begins. The parser's own answer for a section in block
// style is its first colon.
func at(n ast.Node) position {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return positionOf(m.Values[0].Key.GetToken())
	}
	return positionOf(n.GetToken())
}

// full says that there are so many problems that reading on is of no use.
func (d *document) full() bool { return len(d.problems) > maxProblems }

// report adds a problem. The parser's positions are kept within the file: its end
// of input lies one line below the last.
func (d *document) report(p position, key, text string) {
	if d.full() {
		return
	}
	if len(d.problems) == maxProblems {
		key, text = "", fmt.Sprintf("from here on nothing was checked: %d problems are enough for now", maxProblems)
	}
	p.line = max(1, min(p.line, len(d.lines)))
	p.column = max(1, min(p.column, utf8.RuneCountInString(d.lines[p.line-1])+1))
	d.problems = append(d.problems, Problem{
		Source: d.file, Line: p.line, Column: p.column, Key: key, Text: text,
	})
}

// found returns the problems, with the lines that they are about.
func (d *document) found() []Problem {
	for i, p := range d.problems {
		if p.Source == d.file && p.Line > 0 && !d.secret[p.Line] {
			d.problems[i].Excerpt = excerpt(d.lines[p.Line-1], p.Column)
		}
	}
	return d.problems
}

// parse reads data and returns the top of its tree; nil if there is none, which is
// a file without settings or one with problems.
func (d *document) parse(data []byte) ast.Node {
	defer func() {
		// The parser is not ours, and this is a file that people edit by hand: a
		// defect there is a problem of the file, not the end of the process.
		if r := recover(); r != nil {
			d.report(position{1, 1}, "", fmt.Sprintf("cannot be parsed (%v); look for unusual YAML and write it plainly", r))
		}
	}()
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if len(data) > maxFile {
		d.lines = []string{""}
		d.problems = append(d.problems, Problem{Source: d.file, Text: fmt.Sprintf("is larger than %s; no settings need that, check the path", Bytes(maxFile))})
		return nil
	}
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	d.lines = strings.Split(text, "\n")
	if d.characters(); len(d.problems) > 0 {
		return nil
	}
	tokens := lexer.Tokenize(text)
	if !d.structure(tokens) {
		return nil
	}
	f, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // we report all of them
	if err != nil {
		d.syntax(err)
		return nil
	}
	for _, doc := range f.Docs {
		if doc.Body != nil {
			return doc.Body
		}
	}
	return nil
}

// characters refuses what the parser misreads: it drops a tab within a value.
func (d *document) characters() {
	for i, line := range d.lines {
		if !utf8.ValidString(line) {
			d.report(position{i + 1, 1 + utf8.RuneCountInString(line[:invalidAt(line)])}, "", "is not UTF-8; save the file as UTF-8")
			continue
		}
		column := 0
		code := beforeComment(line)
		for j, r := range line {
			column++
			switch {
			case r == '\t' && j < len(code):
				d.report(position{i + 1, column}, "", `a tab; write spaces, or \t within double quotes`)
			case r == '\r':
				d.report(position{i + 1, column}, "", "a carriage return within a line; end lines with LF or CRLF")
			case r != '\t' && unicode.IsControl(r):
				d.report(position{i + 1, column}, "", fmt.Sprintf("the control character %U; remove it", r))
			default:
				continue
			}
			break // one a line is enough
		}
	}
}

// invalidAt returns the index of the first byte that is not UTF-8.
func invalidAt(s string) int {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return i
			}
		}
	}
	return len(s)
}

// beforeComment returns line without its comment and the blanks before it. A " #"
// within quotes counts too; then a tab behind it is not found, which harms nobody.
func beforeComment(line string) string {
	for i := range len(line) {
		if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			line = line[:i]
			break
		}
	}
	return strings.TrimRight(line, " \t")
}

// syntax reports what the parser stopped at.
func (d *document) syntax(err error) {
	e := yaml.Error(nil)
	if !errors.As(err, &e) {
		d.report(position{1, 1}, "", "is not YAML: "+err.Error())
		return
	}
	p, text := positionOf(e.GetToken()), e.GetMessage()
	if p.line <= len(d.lines) && strings.Contains(d.lines[p.line-1], "[::") {
		text += `; put quotes around an address that begins with a bracket, as in "[::]:8000"`
	}
	d.report(p, "", "is not YAML: "+text)
}

// structure reports what we do not read, from the tokens alone, and says whether
// the parser may see them.
func (d *document) structure(tokens token.Tokens) bool {
	var (
		columns []int // of the open levels of block style
		flow    int   // open brackets and braces
		refused int
		keys    int
		content bool // a document has begun
		ended   bool // and has ended
	)
	for _, t := range tokens {
		if t.Type == token.CommentType {
			continue
		}
		p := positionOf(t)
		if t.Type == token.DocumentHeaderType && content || ended && t.Type != token.DocumentEndType {
			d.report(p, "", "a second document; write one in a file")
			return false
		}
		content = true
		switch t.Type {
		case token.DocumentEndType:
			ended = true
		case token.DirectiveType:
			d.report(p, "", refusal(t.Type)+" is not read here; remove the line")
			return false
		case token.AnchorType, token.AliasType, token.MergeKeyType, token.TagType:
			refused++
			d.report(p, "", refusal(t.Type)+" is not read here; write the settings out")
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow = max(0, flow-1)
		case token.MappingValueType:
			keys++
			column := p.column
			if t.Prev != nil {
				column = positionOf(t.Prev).column // its key's
			}
			columns = append(shallower(columns, column), column)
		case token.SequenceEntryType, token.MappingKeyType:
			columns = append(shallower(columns, p.column), p.column)
		}
		if keys > maxKeys {
			d.report(p, "", fmt.Sprintf("has more than %d keys; no settings need that, check the path", maxKeys))
			return false
		}
		if len(columns)+flow > maxDepth {
			d.report(p, "", fmt.Sprintf("is nested more than %d levels deep", maxDepth))
			return false
		}
	}
	// The parser recurses along a chain of these, too; and without them the tree
	// says the wrong thing.
	return refused == 0
}

// shallower returns the open levels that begin left of column.
func shallower(columns []int, column int) []int {
	for len(columns) > 0 && columns[len(columns)-1] >= column {
		columns = columns[:len(columns)-1]
	}
	return columns
}

// refusal names a kind of token that is not read.
func refusal(t token.Type) string {
	switch t {
	case token.AnchorType:
		return "an anchor (&name)"
	case token.AliasType:
		return "an alias (*name)"
	case token.MergeKeyType:
		return "a merge key (<<)"
	case token.TagType:
		return "a tag (!name)"
	}
	return "a directive (%NAME)"
}
