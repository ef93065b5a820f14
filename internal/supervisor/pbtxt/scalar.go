package pbtxt

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// number is how the format writes one (text format specification, "Numeric Literals").
var number = regexp.MustCompile(`^(0[0-7]+|0[xX][0-9a-fA-F]+|((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?[fF]?)$`)

// isWord tells whether word is a name or a number.
func isWord(word string) bool {
	digits := strings.TrimPrefix(word, "-")
	if digits == "" || digits[0] == '.' || digits[0] >= '0' && digits[0] <= '9' {
		return word == "" || number.MatchString(digits)
	}
	switch strings.ToLower(digits) {
	case "inf", "infinity", "nan":
		return true
	}
	return digits == word
}

var errInteger = errors.New("no whole number")

// integer reads a number as the format writes it: decimal, 0x… or octal with a zero before.
func integer(word string) (int64, error) {
	digits := strings.TrimPrefix(word, "-")
	if digits == "" || strings.Trim(strings.ToLower(digits), "0123456789abcdefx") != "" || len(digits) > 1 && strings.ContainsAny(digits[1:2], "bB") {
		return 0, errInteger // strconv takes 1_000 and 0b1 as well
	}
	n, err := strconv.ParseInt(word, 0, 64)
	if err != nil {
		return 0, errInteger
	}
	return n, nil
}

// plain refuses text that could not be printed in a message or stand in a manifest.
func plain(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("its bytes are not UTF-8; write UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return fmt.Errorf("has the control character %U; remove it", r)
		}
	}
	return nil
}

// escapes of one character (text format specification, "String Literals").
var escapes = map[byte]byte{
	'a': '\a', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v',
	'?': '?', '\\': '\\', '\'': '\'', '"': '"',
}

// unquote returns what a string literal stands for.
func unquote(literal string) (string, error) {
	s := literal[1 : len(literal)-1]
	var b strings.Builder
	for len(s) > 0 {
		if s[0] != '\\' {
			b.WriteByte(s[0])
			s = s[1:]
			continue
		}
		c := s[1] // the lexer has seen to it that something follows
		s = s[2:]
		var n int
		var err error
		switch {
		case escapes[c] != 0:
			b.WriteByte(escapes[c])
		case c == 'x' || c == 'X':
			n, err = code(&b, s, 16, 1, 2)
		case c >= '0' && c <= '7':
			s = string(c) + s
			n, err = code(&b, s, 8, 1, 3)
		case c == 'u':
			n, err = code(&b, s, 16, 4, 4)
		case c == 'U':
			n, err = code(&b, s, 16, 8, 8)
		default:
			err = fmt.Errorf("unknown escape \\%c; write \\\\ for a backslash", c)
		}
		if err != nil {
			return "", err
		}
		s = s[n:]
	}
	return b.String(), nil
}

// code writes the byte, or with at least four digits the character, that so many digits
// at the beginning of s name, and returns how many it has read.
func code(b *strings.Builder, s string, base, fewest, longest int) (int, error) {
	n := 0
	for n < longest && n < len(s) {
		if _, err := strconv.ParseUint(s[n:n+1], base, 8); err != nil {
			break
		}
		n++
	}
	v, err := strconv.ParseUint(s[:n], base, 32)
	switch {
	case n < fewest || err != nil:
		return 0, errors.New("an escape without its digits; write \\\\ for a backslash")
	case fewest >= 4 && !utf8.ValidRune(rune(v)) || v > unicode.MaxRune || fewest == 1 && v > 0xff:
		return 0, errors.New("an escape of no character; write another one")
	case fewest >= 4:
		b.WriteRune(rune(v))
	default:
		b.WriteByte(byte(v))
	}
	return n, nil
}
