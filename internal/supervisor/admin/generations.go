package admin

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"text/tabwriter"
	"time"
)

// Generation is one that was committed, and that the service can return to.
type Generation struct {
	Number      uint64         `json:"number"`
	Time        time.Time      `json:"time"`  // of its commit
	Cause       string         `json:"cause"` // "start", "HUP", "reload command", "rollback to 3"
	RollbackTo  uint64         `json:"rollback_to,omitempty"`
	Serves      bool           `json:"serves"`
	Differences []string       `json:"differences"` // from the one that served before it
	Models      []ModelVersion `json:"models"`
}

// ModelVersion is a model that a generation has.
type ModelVersion struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest"` // hexadecimal SHA-256 of its content
}

// RollbackRequest says which generation to return to.
type RollbackRequest struct {
	Generation uint64 // 0: the one before the one in charge
	NoWait     bool   // fail with status 75 where another operation is under way
}

const (
	rollbackPath    = "/v1/rollback"
	generationsPath = "/v1/generations"
)

// ParseGeneration reads a generation's number.
func ParseGeneration(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, usage(fmt.Sprintf("generation: %q is no number of one", text), "preforkd generations lists those that there are")
	}
	return n, nil
}

func (s *Server) rollback(c *call) (err error) {
	var req RollbackRequest
	if c.query.Has("generation") {
		if req.Generation, err = ParseGeneration(c.query.Get("generation")); err != nil {
			return err
		}
	}
	if req.NoWait, err = c.flag("no_wait"); err != nil {
		return err
	}
	return c.transaction(func(ctx context.Context, progress func(Progress)) (ReloadResult, error) {
		return s.service.Rollback(ctx, req, progress)
	})
}

func (s *Server) generations(c *call) error {
	ctx, cancel := context.WithTimeout(c.r.Context(), answerLimit)
	defer cancel()
	all, err := s.service.Generations(ctx)
	if err != nil {
		return late(ctx, err)
	}
	return c.write(all)
}

// Rollback returns to an earlier generation; all else is as for Reload.
func (c *Client) Rollback(ctx context.Context, req RollbackRequest, progress func(Progress)) (ReloadResult, error) {
	query := flags(map[string]bool{"no_wait": req.NoWait})
	if req.Generation > 0 {
		query.Set("generation", strconv.FormatUint(req.Generation, 10))
	}
	return c.transaction(ctx, rollbackPath, query, nil, progress)
}

// Generations returns the latest that were committed, the one in charge first.
func (c *Client) Generations(ctx context.Context) (all []Generation, err error) {
	err = c.ask(ctx, http.MethodGet, generationsPath, nil, &all)
	return all, err
}

// GenerationTable prints generations for people, each with what it changed below it.
func GenerationTable(w io.Writer, all []Generation) error {
	var table bytes.Buffer
	t := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "GENERATION\tCOMMITTED\tCAUSE\tSTATE")
	for _, g := range all {
		state := "kept"
		if g.Serves {
			state = "serves"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\n", g.Number, g.Time.Format(timeLayout), clean(g.Cause), state)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	var out bytes.Buffer
	for i, line := range bytes.SplitAfter(table.Bytes(), []byte("\n")) {
		out.Write(line)
		if i == 0 || i > len(all) {
			continue
		}
		for _, d := range all[i-1].Differences {
			fmt.Fprintf(&out, "    %s\n", clean(d))
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}
