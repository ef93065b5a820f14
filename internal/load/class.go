package load

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Class says how a request failed. Each failed request has exactly one.
type Class uint8

// The classes, in the order in which a request can meet them.
const (
	// Refused: the dial was refused or reset.
	Refused Class = iota
	// Dial: the dial failed otherwise; a dial that ran out of time is a Timeout.
	Dial
	// Unwritten: closed or reset before the request was written, without an answer.
	Unwritten
	// Unanswered: closed or reset after the request was written, before the first
	// byte of an answer.
	Unanswered
	// Partial: closed or reset within an answer.
	Partial
	// Timeout: no whole answer within Options.Timeout, dialling included.
	Timeout
	// Protocol: what came is no HTTP/1.1 answer.
	Protocol
	// Status: a whole answer with another status than expected.
	Status
	// Mismatch: Options.Check refused the answer.
	Mismatch

	classes // how many there are
)

var classNames = [classes]string{
	Refused: "refused", Dial: "dial", Unwritten: "unwritten", Unanswered: "unanswered", Partial: "partial",
	Timeout: "timeout", Protocol: "protocol", Status: "status", Mismatch: "mismatch",
}

// String returns the class's name in reports.
func (c Class) String() string {
	if c < classes {
		return classNames[c]
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// MarshalText returns String.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Counts has a number of failures for each class.
type Counts [classes]uint64

// Total returns the sum over all classes.
func (c Counts) Total() (n uint64) {
	for _, v := range c {
		n += v
	}
	return n
}

// String lists the classes that occurred, as in "2 refused, 1 partial"; "none"
// without any.
func (c Counts) String() string {
	var parts []string
	for i, v := range c {
		if v > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", v, Class(i)))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// MarshalJSON returns an object with the classes that occurred.
func (c Counts) MarshalJSON() ([]byte, error) {
	m := map[Class]uint64{}
	for i, v := range c {
		if v > 0 {
			m[Class(i)] = v
		}
	}
	return json.Marshal(m)
}
