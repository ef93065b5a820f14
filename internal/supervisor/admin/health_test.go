package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestHealthCrosses(t *testing.T) {
	var answer Health
	path, _ := serve(t, &service{Log: NewLog(1), health: func(context.Context) Health { return answer }})
	c := dial(t, path)
	for want, text := range map[Health]string{
		{true, true, "2 of 2 workers ready"}:  "ready: 2 of 2 workers ready",
		{true, false, "0 of 2 workers ready"}: "not ready: 0 of 2 workers ready",
		{false, false, "hung\n\x1b[2J"}:       "not live: hung \ufffd[2J",
	} {
		answer = want
		got, err := c.Health(t.Context())
		if err != nil || got != want || got.String() != text {
			t.Errorf("%+v, %v, want %+v; %s", got, err, want, got)
		}
	}
}

// TestHealthWaits: who asks a service that does not answer waits as long as it wants to.
func TestHealthWaits(t *testing.T) {
	asked, gone := make(chan struct{}), make(chan struct{})
	path, _ := serve(t, &service{Log: NewLog(1), health: func(ctx context.Context) Health {
		close(asked)
		<-ctx.Done()
		close(gone)
		return Health{}
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // ends with its asker
		<-asked
		cancel()
	}()
	if _, err := dial(t, path).Health(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-gone
}

// TestHealthHasNoParameters, as no other way to ask for it is.
func TestHealthHasNoParameters(t *testing.T) {
	path, _ := serve(t, &service{Log: NewLog(1)})
	for request, want := range map[string]string{
		"POST /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":                      "the method is GET",
		"GET /v1/health?ready=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":               "is not known here",
		"GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx": "has no body",
		"GET /v1/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":                      "/v1/health,",
	} {
		text, err := io.ReadAll(raw(t, path, request))
		if err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 400 ") || !strings.Contains(string(text), want) {
			t.Errorf("%.30q: %q, %v, want %q", request, text, err, want)
		}
	}
}

// FuzzHealth: whatever a service says, it is one line of text and steers no terminal.
func FuzzHealth(f *testing.F) {
	f.Add([]byte(`{"live":true,"ready":false,"reason":"0 of 2 workers ready"}`))
	f.Add([]byte(`{"ready":true,"reason":"\u009b2J\u202e\n"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var h Health
		if json.Unmarshal(text, &h) != nil {
			return
		}
		if i := strings.IndexFunc(h.String(), unicode.IsControl); i >= 0 {
			t.Errorf("%q", h.String()[i:])
		}
	})
}

// TestTableOfAServiceThatStops says so, and how long it serves on.
func TestTableOfAServiceThatStops(t *testing.T) {
	for want, st := range map[string]Status{
		"stopping: serves on for 4.2s, then drains\n": {State: "stopping", DrainsIn: Duration(4200 * time.Millisecond)},
		"draining: it ends when what is in flight":    {State: "draining"},
	} {
		var b strings.Builder
		if err := Table(&b, st); err != nil || !strings.Contains(b.String(), want) {
			t.Errorf("%q, %v, want %q", b.String(), err, want)
		}
	}
}
