package admin

import (
	"context"
	"sync"
)

// reloadLine is one line of the answer to a reload: one of its fields.
type reloadLine struct {
	Progress *Progress     `json:"progress,omitempty"`
	Result   *ReloadResult `json:"result,omitempty"`
}

// progressKept is how many lines wait for a client that does not read; the oldest
// give way.
const progressKept = 256

// mailbox holds lines between a Service, which never waits, and a client that may be
// slow.
type mailbox struct {
	mu    sync.Mutex // guards lines
	lines []Progress
	news  chan struct{} // holds one element while there are lines that were not seen
}

func (m *mailbox) put(p Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.lines) == progressKept {
		m.lines = m.lines[1:]
	}
	m.lines = append(m.lines, p)
	select {
	case m.news <- struct{}{}:
	default:
	}
}

func (m *mailbox) take() []Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	lines := m.lines
	m.lines = nil
	return lines
}

func (s *Server) reload(c *call) error {
	var req ReloadRequest
	var err error
	if req.DryRun, err = c.flag("dry_run"); err != nil {
		return err
	}
	if req.NoWait, err = c.flag("no_wait"); err != nil {
		return err
	}
	return c.transaction(func(ctx context.Context, progress func(Progress)) (ReloadResult, error) {
		return s.service.Reload(ctx, req, progress)
	})
}

// transaction answers with the lines of a reload or a rollback. One that fails before its
// first line is answered as any other failure.
func (c *call) transaction(carryOut func(context.Context, func(Progress)) (ReloadResult, error)) error {
	ctx, cancel := context.WithCancel(c.r.Context())
	defer cancel()
	box := &mailbox{news: make(chan struct{}, 1)}
	var result ReloadResult
	var err error
	done := make(chan struct{})
	go func() { // ends when the service has answered
		defer close(done)
		result, err = carryOut(ctx, box.put)
	}()
	for over := false; !over; {
		select {
		case <-box.news:
		case <-done:
			over = true
		}
		if writeErr := c.progress(box.take()); writeErr != nil {
			cancel() // nobody reads it; the service decides what that means
			<-done
			return writeErr
		}
	}
	if err != nil {
		if !c.started {
			return err
		}
		f := failure(err)
		result.Exit, result.Message, result.Try = f.Exit, f.What, f.Try
	}
	return c.reloadLine(reloadLine{Result: &result})
}

func (c *call) progress(lines []Progress) error {
	for _, p := range lines {
		if err := c.reloadLine(reloadLine{Progress: &p}); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) reloadLine(l reloadLine) error {
	if !c.started {
		c.begin("application/x-ndjson")
	}
	return c.line(l)
}
