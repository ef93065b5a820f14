package codec

import (
	"strconv"
)

// rule is what a value has to be. Its texts are those of pydantic 2, which clients of
// FastAPI know: https://docs.pydantic.dev/latest/errors/validation_errors.
type rule uint8

const (
	ruleOther rule = iota
	ruleMissing
	ruleList
	ruleCount
	ruleNumber
	ruleInteger
)

// breaks notes which rule the error is about.
func (s *scanner) breaks(r rule) bool {
	s.err.rule = r
	return false
}

// miscounts notes that the error is about a list of got elements that should have want.
func (s *scanner) miscounts(got, want int) bool {
	s.err.got, s.err.want = got, want
	return s.breaks(ruleCount)
}

// maxInput is how much of a value is sent back in an error.
const maxInput = 1024

// AppendDetail appends the answer to a body that Decode refused with e, in the form that
// FastAPI has for status 422: {"detail":[{"type":…,"loc":[…],"msg":…,"input":…,"ctx":…}]}.
// type and msg are pydantic's; ctx has e's own text, with the offset, as "error".
//
// As in FastAPI a body that is no JSON is refused for that, whatever else is wrong with it.
func AppendDetail(dst, body []byte, e *Error) []byte {
	d := detail{e: e}
	var s scanner
	if e.Offset < 0 && e.rule == ruleOther {
		d.kind, d.msg, d.input = "missing", "Field required", []byte("null") // there is no body
	} else if valid := s.start(body) && s.skip(0) && s.end(); !valid {
		d.invalid(s.err)
	} else {
		d.describe(body)
	}
	return d.append(dst)
}

// AppendDetailText appends the body of an error answer that is not about a value, in the
// form of FastAPI's HTTPException: {"detail":"…"}.
func AppendDetailText(dst []byte, text string) []byte {
	dst = append(dst, `{"detail":`...)
	dst = AppendString(dst, text)
	return append(dst, '}')
}

// detail is the only element of the list.
type detail struct {
	e         *Error
	kind, msg string
	input     []byte // JSON; nil: too long to be sent back
	loc       []any  // instead of e's
}

// invalid describes a text that is no JSON.
func (d *detail) invalid(syntax *Error) {
	if d.e.Offset != syntax.Offset { // else e says the same and has the field
		d.e = syntax
	}
	d.kind, d.msg, d.input, d.loc = "json_invalid", "JSON decode error", []byte("{}"), []any{d.e.Offset}
}

// describe describes a value that breaks a rule, in a body that is JSON.
func (d *detail) describe(body []byte) {
	s := scanner{b: body, i: max(d.e.Offset, 0)}
	s.space()
	from := s.i
	if s.skip(0) && s.i-from <= maxInput {
		d.input = body[from:s.i]
	}
	first := byte(0)
	if from < len(body) {
		first = body[from]
	}
	switch d.e.rule {
	case ruleMissing:
		d.kind, d.msg = "missing", "Field required"
	case ruleList:
		d.kind, d.msg = "list_type", "Input should be a valid list"
	case ruleCount:
		d.count()
	case ruleNumber:
		d.number(first)
	case ruleInteger:
		d.integer(first, body[from:s.i])
	default:
		if len(d.e.loc) == 0 {
			d.kind, d.msg = "model_attributes_type", "Input should be a valid dictionary or object to extract fields from"
		} else {
			d.kind, d.msg = "value_error", "Value error, "+d.e.Text
		}
	}
}

func (d *detail) count() {
	if d.e.got < d.e.want {
		d.kind = "too_short"
		d.msg = "List should have at least " + items(d.e.want) + " after validation, not " + strconv.Itoa(d.e.got)
	} else {
		d.kind = "too_long"
		d.msg = "List should have at most " + items(d.e.want) + " after validation, not " + strconv.Itoa(d.e.got)
	}
}

func items(n int) string {
	if n == 1 {
		return "1 item"
	}
	return strconv.Itoa(n) + " items"
}

func (d *detail) number(first byte) {
	switch {
	case first == '"':
		d.kind, d.msg = "float_parsing", "Input should be a valid number, unable to parse string as a number"
	case startsNumber(first):
		d.kind, d.msg = "finite_number", "Input should be a finite number"
	default:
		d.kind, d.msg = "float_type", "Input should be a valid number"
	}
}

func (d *detail) integer(first byte, text []byte) {
	s := scanner{b: text}
	switch {
	case first == '"':
		d.kind, d.msg = "int_parsing", "Input should be a valid integer, unable to parse string as an integer"
	case !startsNumber(first):
		d.kind, d.msg = "int_type", "Input should be a valid integer"
	default:
		if n, ok := s.number(); ok && !n.whole {
			d.kind, d.msg = "int_from_float", "Input should be a valid integer, got a number with a fractional part"
		} else {
			d.kind, d.msg = "int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size"
		}
	}
}

func (d *detail) append(dst []byte) []byte {
	dst = append(dst, `{"detail":[{"type":"`...)
	dst = append(dst, d.kind...)
	dst = append(dst, `","loc":["body"`...)
	loc := d.e.loc
	if d.loc != nil {
		loc = d.loc
	}
	for _, part := range loc {
		dst = append(dst, ',')
		switch part := part.(type) {
		case int:
			dst = strconv.AppendInt(dst, int64(part), 10)
		case string:
			dst = AppendString(dst, part)
		}
	}
	dst = append(dst, `],"msg":`...)
	dst = AppendString(dst, d.msg)
	if d.input != nil {
		dst = append(dst, `,"input":`...)
		dst = append(dst, d.input...)
	}
	dst = append(dst, `,"ctx":{`...)
	switch d.kind {
	case "too_short":
		dst = d.lengths(dst, `"min_length":`)
	case "too_long":
		dst = d.lengths(dst, `"max_length":`)
	}
	dst = append(dst, `"error":`...)
	dst = AppendString(dst, d.e.Error())
	return append(dst, `}}]}`...)
}

// lengths appends the part of ctx that lists have there.
func (d *detail) lengths(dst []byte, bound string) []byte {
	dst = append(dst, `"field_type":"List",`...)
	dst = append(dst, bound...)
	dst = strconv.AppendInt(dst, int64(d.e.want), 10)
	dst = append(dst, `,"actual_length":`...)
	dst = strconv.AppendInt(dst, int64(d.e.got), 10)
	return append(dst, ',')
}
