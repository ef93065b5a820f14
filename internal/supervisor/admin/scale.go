package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"preforkd/internal/ipc"
)

// ScaleRequest says which size a pool shall have.
type ScaleRequest struct {
	Pool     string // empty: the main one
	Workers  int    // the size, or with Relative how many more or fewer
	Relative bool
	NoWait   bool // fail with status 75 where another operation is under way
	Force    bool // also where memory does not carry it
}

// ScaleResult is how a change of size that was asked for ended. Exit, Message and Try are
// those of the command: Exit is 0, or the Failure's.
type ScaleResult struct {
	Exit    int      `json:"exit"`
	Message string   `json:"message"`
	Try     string   `json:"try,omitempty"`
	Pool    string   `json:"pool"`
	Before  int      `json:"before"`  // workers
	Workers int      `json:"workers"` // that the pool has now
	Took    Duration `json:"took_seconds"`
}

// maxChange is beyond every size: what is larger is a slip.
const maxChange = 1 << 20

// ParseWorkers reads a size as operators write it: 4, +1 or -1. A plus that a query turned
// into a space counts as one.
func ParseWorkers(text string) (n int, relative bool, err error) {
	if strings.HasPrefix(text, " ") {
		text = "+" + text[1:]
	}
	n, err = strconv.Atoi(text)
	if err != nil || n < -maxChange || n > maxChange {
		return 0, false, usage(fmt.Sprintf("workers: %q is neither a number nor +N or -N", text), "write 4, +1 or -1")
	}
	return n, strings.HasPrefix(text, "+") || strings.HasPrefix(text, "-"), nil
}

func (s *Server) scale(c *call) (err error) {
	req := ScaleRequest{Pool: c.query.Get("pool")}
	if req.Workers, req.Relative, err = ParseWorkers(c.query.Get("workers")); err != nil {
		return err
	}
	if req.NoWait, err = c.flag("no_wait"); err != nil {
		return err
	}
	if req.Force, err = c.flag("force"); err != nil {
		return err
	}
	result, err := s.service.Scale(c.r.Context(), req)
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

// Scale changes a pool's size and returns when it has it. Where the command's exit status
// is not 0, the error is its Failure, and the result is there as well if there was one.
func (c *Client) Scale(ctx context.Context, req ScaleRequest) (ScaleResult, error) {
	query := flags(map[string]bool{"no_wait": req.NoWait, "force": req.Force})
	workers := strconv.Itoa(req.Workers)
	if req.Relative && req.Workers >= 0 {
		workers = "+" + workers
	}
	query.Set("workers", workers)
	if req.Pool != "" {
		query.Set("pool", req.Pool)
	}
	result, err := c.scale(ctx, query)
	if err == nil && result.Exit != ipc.ExitOK {
		err = &ipc.Failure{Exit: result.Exit, What: result.Message, Try: result.Try}
	}
	return result, err
}

func (c *Client) scale(ctx context.Context, query url.Values) (result ScaleResult, err error) {
	body, err := c.do(ctx, http.MethodPost, "/v1/scale", query)
	if err != nil {
		return result, err
	}
	defer body.Close()
	return result, c.read(ctx, body, &result)
}
