package codec

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Error says what is wrong with a request body.
type Error struct {
	Field  string // such as "inputs[0].data[17]"; "body" for the text as a whole
	Offset int    // in bytes from the beginning of the body; -1: none
	Text   string

	// What only AppendDetail needs: Field taken apart, which rule the value breaks, and how
	// many elements there are and should be.
	loc       []any // of string and int
	rule      rule
	got, want int
}

// Error returns field, text and offset.
func (e *Error) Error() string {
	if e.Offset < 0 {
		return e.Field + ": " + e.Text
	}
	return e.Field + ": " + e.Text + " (offset " + strconv.Itoa(e.Offset) + ")"
}

// OutputError says why a tensor that a model returned cannot be sent.
type OutputError struct {
	Name string
	Text string
}

// Error names the output.
func (e *OutputError) Error() string { return fmt.Sprintf("output %q: %s", e.Name, e.Text) }

// path is where in the body the scanner is: keys and indexes, outermost first. It
// becomes a text only when there is an error.
type path struct {
	parts [maxPath]part
	n     int
}

// maxPath is the longest path there is: instances, [0], a name, and the indexes of arrays
// in one another. The form with the longest, that of TF Serving, goes no deeper.
const maxPath = 12

type part struct {
	name  string // a key that is known
	key   []byte // one that is not
	index int    // of an array, when there is neither
}

func (p *path) push(x part) {
	p.parts[p.n] = x
	p.n++
}

func (p *path) pop() { p.n-- }

func (p *path) String() string {
	if p.n == 0 {
		return "body"
	}
	var b strings.Builder
	for i, x := range p.parts[:p.n] {
		switch {
		case x.name == "" && x.key == nil:
			fmt.Fprintf(&b, "[%d]", x.index)
			continue
		case i > 0:
			b.WriteByte('.')
		}
		if x.name != "" || plain(x.key) {
			b.WriteString(x.name)
			b.WriteString(clip(x.key))
		} else {
			b.WriteString(strconv.Quote(clip(x.key)))
		}
	}
	return b.String()
}

// loc returns the path's parts: keys as string, indexes as int.
func (p *path) loc() []any {
	loc := make([]any, 0, p.n)
	for _, x := range p.parts[:p.n] {
		switch {
		case x.name != "":
			loc = append(loc, x.name)
		case x.key != nil:
			loc = append(loc, clip(x.key))
		default:
			loc = append(loc, x.index)
		}
	}
	return loc
}

// plain tells whether key reads well without quotes.
func plain(key []byte) bool {
	for _, c := range key {
		if c <= ' ' || c == '.' || c == '"' || c == '[' || c == '\\' || c == 0x7f {
			return false
		}
	}
	return len(key) > 0
}

// clip returns a client's text, short enough for a message.
func clip(text []byte) string {
	const limit = 64
	if len(text) <= limit {
		return string(text)
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return string(text[:cut]) + "…"
}
