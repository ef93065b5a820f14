package api

import (
	"preforkd/internal/inference"
	"preforkd/internal/worker/codec"
	"preforkd/internal/worker/upstream"
)

// rows are the rows of a store that one request wants, while they are read.
type rows struct {
	keys   codec.KeysRequest
	reader codec.RowReader
	into   *inference.Tensor
	width  int
	shape  []int64
	texts  [][]byte // the keys themselves
	text   []byte
	body   []byte // of one answer over HTTP
	absent int    // fields of the row that are not there
	first  int    // of them
}

// key appends the key of a row.
func (r *rows) key(b []byte, f *Features, row int, escape bool) []byte {
	for _, p := range f.Key {
		b = append(b, p.Text...)
		switch {
		case p.Name < 0:
		case escape:
			b = appendEscaped(b, r.keys.Value(p.Name, row))
		default:
			b = append(b, r.keys.Value(p.Name, row)...)
		}
	}
	return b
}

// appendEscaped appends text as a part of a path or a query: all but the unreserved characters are
// escaped (RFC 3986, section 2.3), and a dot, which alone in a part would lead elsewhere.
func appendEscaped(b, text []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range text {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '~' {
			b = append(b, c)
			continue
		}
		b = append(b, '%', hex[c>>4], hex[c&15])
	}
	return b
}

// readRedis asks for all rows at once.
func (w *wait) readRedis(f *Features) error {
	r := &w.rows
	r.text, r.texts = r.text[:0], r.texts[:0]
	for row := range r.keys.Rows {
		from := len(r.text)
		r.text = r.key(r.text, f, row, false)
		r.texts = append(r.texts, r.text[from:len(r.text):len(r.text)])
	}
	q := upstream.Query{Keys: r.texts}
	if f.Format == RowHash {
		q.Fields = f.Fields
	}
	q.Value = func(key, field int, value []byte) error {
		if f.Format == RowHash {
			return w.field(f, key, field, value)
		}
		if value == nil {
			return w.noRow(key)
		}
		return w.whole(f, key, value)
	}
	return f.Redis.Do(&w.call, &q)
}

// field takes one field of a hash; nil: it is not there.
func (w *wait) field(f *Features, row, field int, value []byte) error {
	r := &w.rows
	if field == 0 {
		r.absent = 0
	}
	at := row*r.width + field
	if value == nil {
		if r.absent++; r.absent == 1 {
			r.first = field
		}
		codec.Blank(r.into, at, f.Missing == MissingNaN)
	} else if err := r.reader.Number(r.into, at, value); err != nil {
		return w.badRow(row, "field %q: %.60q is no %s", f.Fields[field], value, r.into.DataType)
	}
	switch {
	case field+1 < len(f.Fields) || r.absent == 0:
		return nil
	case r.absent == len(f.Fields):
		return w.noRow(row)
	case f.Missing == MissingError:
		return w.badRow(row, "field %q is not there", f.Fields[r.first])
	}
	return nil
}

// whole takes a row that is one value.
func (w *wait) whole(f *Features, row int, value []byte) error {
	r := &w.rows
	lo, hi := row*r.width, (row+1)*r.width
	var err error
	switch {
	case f.Format == RowBinary:
		err = r.reader.Bytes(r.into, lo, hi, value)
	case len(f.Fields) == 0:
		err = r.reader.Numbers(r.into, lo, hi, value)
	default:
		err = r.reader.Members(r.into, lo, w.route.fields, value, func(field int) error {
			if f.Missing == MissingError {
				return w.badRow(row, "field %q is not there", f.Fields[field])
			}
			codec.Blank(r.into, lo+field, f.Missing == MissingNaN)
			return nil
		})
	}
	if own, ok := err.(*codec.Error); ok {
		return w.badRow(row, "%s", own.Text)
	}
	return err
}

// readHTTP asks for one row after the other.
func (w *wait) readHTTP(f *Features) error {
	r := &w.rows
	for row := range r.keys.Rows {
		w.target = r.key(w.target[:0], f, row, true)
		w.lines = append(w.lines[:0], "Accept: application/json, application/octet-stream\r\nVia: 1.1 "+serverName+"\r\n"...)
		if f.Authorization != "" {
			w.lines = append(append(append(w.lines, "Authorization: "...), f.Authorization...), "\r\n"...)
		}
		w.request = upstream.Request{Method: "GET", Target: w.target, Lines: w.lines}
		if err := w.readOne(f, row); err != nil {
			return err
		}
	}
	return nil
}

func (w *wait) readOne(f *Features, row int) error {
	answer, err := f.HTTP.Do(&w.call, &w.request)
	if err != nil {
		return err
	}
	defer answer.Close()
	status := answer.Status()
	if w.rows.body, _, err = answer.Append(w.rows.body[:0], int(f.HTTP.MaxAnswer)+1); err != nil {
		return err
	}
	switch status {
	case 200:
		return w.whole(f, row, w.rows.body)
	case 404:
		return w.noRow(row)
	}
	return &upstream.Error{Kind: upstream.Refused, Text: describe(errService, "answered with the status %d", status).Error()}
}

// noRow is the error of a row that there is not.
func (w *wait) noRow(row int) error {
	return describe(errNoRow, "the store of route %s has no row %.80q", w.route.Path, w.rows.key(nil, w.route.Features, row, false))
}

// badRow is the error of a row that does not fill the model's input.
func (w *wait) badRow(row int, format string, args ...any) error {
	return describe(errService, "the store of route %s: row %.80q: %v", w.route.Path, w.rows.key(nil, w.route.Features, row, false), describe(nil, format, args...))
}
