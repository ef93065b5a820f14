package upstream

import (
	"strconv"
)

// RedisOptions are how a Redis is asked. Of Options it has no Host; MaxAnswer is of one value, and
// 0 of it is 1 MiB.
type RedisOptions struct {
	Options
	User, Password string // empty: nobody logs in
	Database       int
}

// maxValue is how long one value may be where nobody says.
const maxValue = 1 << 20

// Redis is a service that speaks RESP.
type Redis struct {
	RedisOptions
	pool
	greeting []byte // what is sent on a new connection
	greeted  int    // how many replies that has
}

// NewRedis returns a client of one Redis. It opens nothing.
func NewRedis(o RedisOptions) *Redis {
	if o.MaxAnswer <= 0 {
		o.MaxAnswer = maxValue
	}
	r := &Redis{RedisOptions: o, pool: pool{address: o.Address, secure: o.Secure, connect: o.Connect, keep: o.Keep}}
	switch {
	case o.User != "":
		r.greeting = appendWord(appendWord(appendWord(appendCommand(r.greeting, 3), "AUTH"), o.User), o.Password)
		r.greeted++
	case o.Password != "":
		r.greeting = appendWord(appendWord(appendCommand(r.greeting, 2), "AUTH"), o.Password)
		r.greeted++
	}
	if o.Database != 0 {
		r.greeting = appendWord(appendWord(appendCommand(r.greeting, 2), "SELECT"), strconv.Itoa(o.Database))
		r.greeted++
	}
	return r
}

// Query is one read of so many keys: of some fields of hashes, or of whole strings.
type Query struct {
	Keys   [][]byte
	Fields []string // of each key; none: the key holds a string
	// Value gets each value, in order: of which key, of which field; nil: there is none. It is
	// valid until Value returns. Its error ends the exchange and is returned as it is.
	Value func(key, field int, value []byte) error
}

// Do asks q. All keys are asked for at once. The error is an *Error, or Value's. A Value that has
// been called is never called for the same again: what is asked once more had no reply at all.
func (r *Redis) Do(call *Call, q *Query) error {
	for attempt := 0; ; attempt++ {
		err := r.try(call, q)
		if e, ok := err.(*Error); !ok || !e.again || attempt >= r.Retries {
			return err
		}
	}
}

func (r *Redis) try(call *Call, q *Query) error {
	c, err := r.get(call)
	if err != nil {
		return err
	}
	err = r.exchange(call, c, q)
	call.rest()
	if err != nil {
		own, bad := err.(*refusal)
		if bad {
			err = own.error
		} else {
			err = call.explain(failed(err, c.got), r.Answer, r.Of)
		}
		r.drop(c)
		return err
	}
	r.put(c)
	return nil
}

// refusal is an error of Query.Value.
type refusal struct{ error }

func (r *Redis) exchange(call *Call, c *conn, q *Query) error {
	if err := call.limit(c, r.Answer); err != nil {
		return err
	}
	b := (*c.buf)[:0] // nothing has been read yet
	if !c.ready {
		b = append(b, r.greeting...)
	}
	for _, key := range q.Keys {
		if len(q.Fields) == 0 {
			b = appendWord(appendWord(appendCommand(b, 2), "GET"), key)
			continue
		}
		b = appendWord(appendWord(appendCommand(b, 2+len(q.Fields)), "HMGET"), key)
		for _, f := range q.Fields {
			b = appendWord(b, f)
		}
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	in := replies{c, int(r.MaxAnswer)}
	if !c.ready {
		for range r.greeted {
			if err := in.ok(); err != nil {
				return err
			}
		}
		c.ready = true
	}
	for key := range q.Keys {
		if err := in.row(key, q); err != nil {
			return err
		}
	}
	if c.lo < c.hi {
		return garbage("sent more than was asked for")
	}
	return nil
}

// row reads the reply for one key.
func (in *replies) row(key int, q *Query) error {
	n := 1
	if len(q.Fields) > 0 {
		n = len(q.Fields)
		if err := in.array(n); err != nil {
			return err
		}
	}
	for field := range n {
		value, err := in.text()
		if err != nil {
			return err
		}
		if err := q.Value(key, field, value); err != nil {
			return &refusal{err}
		}
	}
	return nil
}
