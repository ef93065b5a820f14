package helper

import (
	"testing"
	"time"

	"preforkd/internal/testkit"
)

// BenchmarkAsk is a request to a helper that answers at once, in this process.
func BenchmarkAsk(b *testing.B) {
	r := newRoom(b)
	r.helper(2, echo("a"))
	p := r.pool(nil)
	var a Answer
	body := make([]byte, 500)
	for b.Loop() {
		until := time.Now().Add(testkit.Limit)
		c, err := p.Take(until, nil)
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Ask(&Request{Path: "/v2/models/m/infer", JSON: 2, Body: body, Until: until}, &a); err != nil {
			b.Fatal(err)
		}
		p.Release(c)
	}
}
