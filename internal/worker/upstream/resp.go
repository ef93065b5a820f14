package upstream

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
)

// maxReplyLine is the longest line of a reply: a length, a status or an error.
const maxReplyLine = 4 << 10

// replies reads what Redis answers (RESP, version 2), as much as is needed of it: strings and
// arrays of strings. What a length claims is taken for true only up to max.
type replies struct {
	conn *conn
	max  int // bytes of one string
}

// line reads a line, less its end. It is valid until the next read.
func (r *replies) line() ([]byte, error) {
	c := r.conn
	for from := 0; ; {
		b := c.rest()
		if i := bytes.IndexByte(b[from:], '\n'); i >= 0 {
			i += from
			if i < 2 || b[i-1] != '\r' {
				return nil, garbage("answered with a line that is no RESP")
			}
			c.lo += i + 1
			return b[:i-1], nil
		}
		if from = len(b); from >= maxReplyLine {
			return nil, garbage("answered with a line of more than %d bytes, which is no RESP", maxReplyLine)
		}
		if err := c.fill(2 * maxReplyLine); err != nil {
			return nil, inside(err, c)
		}
	}
}

// inside is the error of a read in the middle of something.
func inside(err error, c *conn) error {
	if err == io.EOF && c.got > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

// count reads the number in a line that begins with kind; -1: there is nothing.
func (r *replies) count(line []byte, kind byte, most int) (int, error) {
	if line[0] == '-' {
		return 0, replyError(line[1:])
	}
	if line[0] != kind {
		return 0, garbage("answered with %.40q where RESP has %q", line, kind)
	}
	if string(line[1:]) == "-1" {
		return -1, nil
	}
	n, ok := length(line[1:])
	switch {
	case !ok:
		return 0, garbage("answered with %.40q, which is no RESP", line)
	case n > int64(most):
		return 0, &Error{Kind: Large, Text: fmt.Sprintf("answered with %.40q, of which at most %d are read", line, most)}
	}
	return int(n), nil
}

// replyError is what Redis says of a command that it does not do.
func replyError(text []byte) error {
	return &Error{Kind: Refused, Text: fmt.Sprintf("refused the command: %.120s", text)}
}

// ok reads the reply to a command that has no result.
func (r *replies) ok() error {
	line, err := r.line()
	if err != nil {
		return err
	}
	switch line[0] {
	case '+':
		return nil
	case '-':
		return replyError(line[1:])
	}
	return garbage("answered with %.40q where RESP has '+'", line)
}

// text reads a string; nil: there is none. It is valid until the next read.
func (r *replies) text() ([]byte, error) {
	line, err := r.line()
	if err != nil {
		return nil, err
	}
	n, err := r.count(line, '$', r.max)
	if err != nil || n < 0 {
		return nil, err
	}
	c := r.conn
	for len(c.rest()) < n+2 {
		if err := c.fill(r.max + 2); err != nil {
			return nil, inside(err, c)
		}
	}
	b := c.rest()[:n+2]
	if b[n] != '\r' || b[n+1] != '\n' {
		return nil, garbage("answered with a string that is longer than it says")
	}
	c.lo += n + 2
	return b[:n:n], nil
}

// array reads the length of an array, which must be n.
func (r *replies) array(n int) error {
	line, err := r.line()
	if err != nil {
		return err
	}
	got, err := r.count(line, '*', n)
	if err == nil && got != n {
		err = garbage("answered with %d values where %d were asked for", got, n)
	}
	return err
}

// appendCommand appends the beginning of a command of so many words.
func appendCommand(b []byte, words int) []byte {
	b = append(b, '*')
	b = strconv.AppendInt(b, int64(words), 10)
	return append(b, "\r\n"...)
}

// appendWord appends a word of a command.
func appendWord[T string | []byte](b []byte, word T) []byte {
	b = append(b, '$')
	b = strconv.AppendInt(b, int64(len(word)), 10)
	b = append(b, "\r\n"...)
	b = append(b, word...)
	return append(b, "\r\n"...)
}
