package admin

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"preforkd/internal/ipc"
)

// RestartRequest says which workers shall be replaced by new ones of the same generation.
type RestartRequest struct {
	Pool   string // empty: the main one
	Slot   int
	All    bool // all of the pool, one after the other; then Slot says nothing
	NoWait bool // fail with status 75 where another operation is under way
}

// RestartResult is how a restart that was asked for ended. Exit, Message and Try are those
// of the command: Exit is 0, or the Failure's.
type RestartResult struct {
	Exit     int      `json:"exit"`
	Message  string   `json:"message"`
	Try      string   `json:"try,omitempty"`
	Pool     string   `json:"pool"`
	Replaced []int    `json:"replaced"` // slots that have new workers
	Took     Duration `json:"took_seconds"`
}

// ParseSlot reads a slot's index as operators write it.
func ParseSlot(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > maxChange || text[0] == '+' {
		return 0, usage(fmt.Sprintf("slot: %q is no slot", text), "write a number from 0 on, as preforkd status shows them")
	}
	return n, nil
}

func (s *Server) restart(c *call) (err error) {
	req := RestartRequest{Pool: c.query.Get("pool")}
	if req.All, err = c.flag("all"); err != nil {
		return err
	}
	if req.All == c.query.Has("slot") {
		return usage("restart: give either slot or all", "curl -X POST 'http://admin/v1/restart?slot=0'")
	}
	if !req.All {
		if req.Slot, err = ParseSlot(c.query.Get("slot")); err != nil {
			return err
		}
	}
	if req.NoWait, err = c.flag("no_wait"); err != nil {
		return err
	}
	result, err := s.service.Restart(c.r.Context(), req)
	if err != nil {
		f := failure(err)
		if result.Pool == "" { // nothing was begun
			return f
		}
		result.Exit, result.Message, result.Try = f.Exit, f.What, f.Try
	}
	c.begin("application/json")
	return c.line(result)
}

// Restart replaces workers and returns when it has, or when the first of them cannot be.
// Where the command's exit status is not 0, the error is its Failure, and the result is
// there as well if there was one.
func (c *Client) Restart(ctx context.Context, req RestartRequest) (result RestartResult, err error) {
	query := flags(map[string]bool{"no_wait": req.NoWait, "all": req.All})
	if !req.All {
		query.Set("slot", strconv.Itoa(req.Slot))
	}
	if req.Pool != "" {
		query.Set("pool", req.Pool)
	}
	body, err := c.do(ctx, http.MethodPost, "/v1/restart", query)
	if err != nil {
		return result, err
	}
	defer body.Close()
	if err := c.read(ctx, body, &result); err != nil {
		return result, err
	}
	if result.Exit != ipc.ExitOK {
		err = &ipc.Failure{Exit: result.Exit, What: result.Message, Try: result.Try}
	}
	return result, err
}
