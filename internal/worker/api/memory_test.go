package api

import (
	"bytes"
	"errors"
	"testing"

	"github.com/valyala/fasthttp"
)

// TestPlainBody: what is unpacked takes no more memory than the limit, whatever the body says
// of its size.
func TestPlainBody(t *testing.T) {
	for _, hint := range []int{0, 10, 100, 1000, 1 << 40} {
		p := plainBody{limit: 1000}
		p.expect(hint)
		var want []byte
		for len(want) < 1000 {
			piece := bytes.Repeat([]byte{byte(len(want))}, min(37, 1000-len(want)))
			want = append(want, piece...)
			if n, err := p.Write(piece); n != len(piece) || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
		if !bytes.Equal(p.b, want) || cap(p.b) > 1000 {
			t.Errorf("expecting %d: %d bytes of %d", hint, len(p.b), cap(p.b))
		}
		if _, err := p.Write([]byte("x")); !errors.Is(err, fasthttp.ErrBodyTooLarge) || len(p.b) != 1000 {
			t.Errorf("one more: %v", err)
		}
	}
}

func TestGzipSize(t *testing.T) {
	for _, c := range []struct {
		body string
		want int
	}{{"", 0}, {"abc", 0}, {packed(t, "gzip", features), len(features)}, {"\xff\xff\xff\xff", 4 * mostPacked}} {
		if got := gzipSize([]byte(c.body)); got != c.want {
			t.Errorf("%.10q: %d, want %d", c.body, got, c.want)
		}
	}
}

// TestAbandonedIsBounded: requests one after the other leave no more behind than they may,
// before the collector runs, and give it back.
func TestAbandonedIsBounded(t *testing.T) {
	a := newAPI(t, Options{})
	a.limits.MaxBody = 1 << 20
	body := make([]byte, keepBytes+1)
	for range 20 {
		a.tidy(body)
		if a.abandoned.bytes > mostAbandoned*a.limits.MaxBody {
			t.Fatalf("%d bytes are left behind", a.abandoned.bytes)
		}
		a.abandon(len(body))
	}
	a.abandon(10)
	if !a.abandoned.any {
		t.Error("nothing is to be given back")
	}
	a.GiveBack()
	if a.tidy(body); a.abandoned.any || a.abandoned.bytes != 0 {
		t.Errorf("%d bytes after they were given back", a.abandoned.bytes)
	}
}
