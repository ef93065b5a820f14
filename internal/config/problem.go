package config

import (
	"fmt"
	"strings"
	"unicode"
)

// Problem is one thing that is wrong with the settings.
type Problem struct {
	// Source is a file, "environment PREFORKD_WORKERS" or "flag --workers".
	Source string
	// Line and Column count from 1, columns in characters; 0: the source has none.
	Line, Column int
	// Key is the setting, such as log.level or listen[1]; empty: the file as a whole.
	Key string
	// Text says what is wrong and what to write instead.
	Text string
	// Excerpt is the line and a caret below the place; empty: there is no line, or
	// it holds a secret.
	Excerpt string
}

// String returns the problem in one line, followed by the excerpt, if any.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(visible(p.Source))
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(visible(p.Key) + ": ")
	}
	b.WriteString(visible(p.Text))
	if p.Excerpt != "" {
		b.WriteString("\n" + p.Excerpt)
	}
	return b.String()
}

// Error is every problem that was found.
type Error struct {
	Problems []Problem // at least one
}

// Error returns all problems, each from a new line.
func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Problems))
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// visible returns s with each character that would steer a terminal or begin a
// line replaced by one that does not, so that a caret stays below its character.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '\ufffd'
		}
		return r
	}, s)
}

// Width of an excerpt: a longer line is shown around the column.
const (
	excerptIndent = "    "
	excerptBefore = 60
	excerptAfter  = 40
)

// excerpt returns line with a caret below its column.
func excerpt(line string, column int) string {
	text := []rune(line)
	at := min(column-1, len(text))
	head, tail := "", ""
	if at > excerptBefore {
		text, at, head = text[at-excerptBefore:], excerptBefore, "..."
	}
	if len(text) > at+excerptAfter {
		text, tail = text[:at+excerptAfter], "..."
	}
	return excerptIndent + head + visible(string(text)) + tail + "\n" +
		excerptIndent + strings.Repeat(" ", len(head)+at) + "^"
}
