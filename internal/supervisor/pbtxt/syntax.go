package pbtxt

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/alecthomas/participle/v2"
	"github.com/alecthomas/participle/v2/lexer"
)

const (
	maxFile  = 1 << 20 // far beyond any real one
	maxDepth = 32      // of messages and lists; the parser recurses
)

// message is a file.
type message struct {
	Fields []*entry `parser:"@@*"`
}

// entry is one field as it is written.
type entry struct {
	Pos   lexer.Position
	Name  string `parser:"@Ident"`
	Colon bool   `parser:"@':'?"`
	Value *value `parser:"@@ ( ',' | ';' )?"`
}

// value is a scalar, a message or a list. Open, Close and List hold the brackets.
type value struct {
	Pos     lexer.Position
	Strings []string `parser:"(   @String+"`
	Word    string   `parser:"| @( '-'? ( Ident | Number ) )"`
	Open    string   `parser:"| @( '{' | '<' )"`
	Fields  []*entry `parser:"@@*"`
	Close   string   `parser:"@( '}' | '>' )"`
	List    string   `parser:"| @'['"`
	Items   []*value `parser:"( @@ ( ',' @@ )* )? ']' )"`
}

// tokens are what a file is made of. A Number is whatever begins like one: its reader
// knows which numbers there are, and 1x is one bad number rather than two values.
var tokens = lexer.MustSimple([]lexer.SimpleRule{
	{Name: "Comment", Pattern: `#[^\n]*`},
	{Name: "Space", Pattern: `[ \t\r\n]+`},
	{Name: "String", Pattern: `"(\\[^\n\x00]|[^"\\\n\x00])*"|'(\\[^\n\x00]|[^'\\\n\x00])*'`},
	{Name: "Number", Pattern: `\.?[0-9]([eE][+-]|[\w.])*`},
	{Name: "Ident", Pattern: `[A-Za-z_]\w*`},
	{Name: "Mark", Pattern: `[-{}<>\[\]:,;]`},
})

var parser = participle.MustBuild[message](participle.Lexer(tokens), participle.Elide("Comment", "Space"))

// place is where something is written; both count from 1, columns in characters.
type place struct{ line, column int }

func (e *entry) at() place { return place{e.Pos.Line, e.Pos.Column} }
func (v *value) at() place { return place{v.Pos.Line, v.Pos.Column} }

// isMessage and isList tell what v is; a scalar is neither.
func (v *value) isMessage() bool { return v.Open != "" }
func (v *value) isList() bool    { return v.List != "" }

// syntaxError is what the file cannot be read beyond; a zero place: the file as a whole.
type syntaxError struct {
	place
	text string
}

func (e *syntaxError) Error() string { return e.text }

// parse returns the fields of a file.
func parse(data []byte) ([]*entry, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if len(data) > maxFile {
		return nil, &syntaxError{text: "is larger than 1MiB; no model's settings need that, check the path"}
	}
	text := string(data)
	if !utf8.ValidString(text) {
		return nil, &syntaxError{invalidAt(text), "is not UTF-8; save the file as UTF-8"}
	}
	if err := depth(text); err != nil {
		return nil, err
	}
	m, err := parser.ParseString("", text)
	if err != nil {
		return nil, syntax(err)
	}
	return m.Fields, check(m.Fields)
}

// depth refuses a file that is nested too deep for the parser.
func depth(text string) error {
	list, err := parser.Lex("", strings.NewReader(text))
	if err != nil {
		return syntax(err)
	}
	mark, deep := tokens.Symbols()["Mark"], 0
	for _, t := range list {
		if t.Type != mark {
			continue
		}
		switch t.Value {
		case "{", "<", "[":
			deep++
		case "}", ">", "]":
			deep--
		}
		if deep > maxDepth {
			return &syntaxError{place{t.Pos.Line, t.Pos.Column}, fmt.Sprintf("is nested more than %d levels deep", maxDepth)}
		}
	}
	return nil
}

// check refuses what the grammar lets through.
func check(fields []*entry) error {
	for _, e := range fields {
		v := e.Value
		if !e.Colon && !v.isMessage() && (!v.isList() || len(v.Items) == 0 || !v.Items[0].isMessage()) {
			return &syntaxError{v.at(), fmt.Sprintf("there is no colon after %s; write %s: and the value", e.Name, e.Name)}
		}
		if err := checkValue(v); err != nil {
			return err
		}
	}
	return nil
}

func checkValue(v *value) error {
	if v.Open+v.Close != "" && v.Open+v.Close != "{}" && v.Open+v.Close != "<>" {
		return &syntaxError{v.at(), fmt.Sprintf("%s ends with %s; write the other bracket of the pair", v.Open, v.Close)}
	}
	if !isWord(v.Word) {
		return &syntaxError{v.at(), fmt.Sprintf("%s is no number; write one, or text in quotes", v.Word)}
	}
	for _, s := range v.Strings {
		if _, err := unquote(s); err != nil {
			return &syntaxError{v.at(), err.Error()}
		}
	}
	for _, item := range v.Items {
		if item.isList() {
			return &syntaxError{item.at(), "a list within a list; write one list"}
		}
		if err := checkValue(item); err != nil {
			return err
		}
	}
	return check(v.Fields)
}

// syntax is the parser's error in our words.
func syntax(err error) error {
	var unexpected *participle.UnexpectedTokenError
	var other participle.Error
	switch {
	case errors.As(err, &unexpected) && unexpected.Unexpected.EOF():
		p := unexpected.Position()
		return &syntaxError{place{p.Line, p.Column}, "the file ends early; is it all there?"}
	case errors.As(err, &unexpected):
		p := unexpected.Position()
		return &syntaxError{place{p.Line, p.Column}, fmt.Sprintf("%q is out of place here; write name: value, or name { … }", unexpected.Unexpected.Value)}
	case errors.As(err, &other):
		p := other.Position()
		return &syntaxError{place{p.Line, p.Column}, "here begins nothing that the format knows: a string without its end, or a character that is out of place"}
	}
	return &syntaxError{text: err.Error()}
}

// invalidAt returns the place of the first byte that is not UTF-8.
func invalidAt(text string) place {
	for i, r := range text {
		if r != utf8.RuneError {
			continue
		}
		if _, size := utf8.DecodeRuneInString(text[i:]); size == 1 {
			before := text[:i]
			start := strings.LastIndexByte(before, '\n') + 1
			return place{1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[start:])}
		}
	}
	return place{1, 1}
}
