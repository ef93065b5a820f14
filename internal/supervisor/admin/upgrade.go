package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// UpgradeRequest says which program to go on with.
type UpgradeRequest struct {
	Program string // path or name; empty: what lies at the path by which the service was started
	NoWait  bool   // an error (75) when another operation is under way
	// Environ, if it is not nil, is the environment that the program and its workers have from
	// now on, as os.Environ returns it; else they keep the service's.
	Environ []string
}

// maxEnviron bounds an environment as the kernel does (ARG_MAX in execve(2) is larger).
const maxEnviron = 1 << 20

const upgradePath = "/v1/upgrade"

func (s *Server) upgrade(c *call) (err error) {
	req := UpgradeRequest{Program: c.query.Get("program")}
	withEnviron, err := c.flag("env")
	if err != nil {
		return err
	}
	if withEnviron {
		_ = c.control.SetReadDeadline(time.Now().Add(headerLimit))
		if err := json.NewDecoder(http.MaxBytesReader(c.w, c.r.Body, maxEnviron)).Decode(&req.Environ); err != nil {
			return usage("environment: "+err.Error(), `send a JSON list, as ["HOME=/","PATH=/usr/bin:/bin"]`)
		}
		_ = c.control.SetReadDeadline(time.Time{})
	}
	if req.NoWait, err = c.flag("no_wait"); err != nil {
		return err
	}
	return c.transaction(func(ctx context.Context, progress func(Progress)) (ReloadResult, error) {
		return s.service.Upgrade(ctx, req, progress)
	})
}

// Upgrade replaces the supervisor's program, and with it the workers; all else is as for
// Reload.
func (c *Client) Upgrade(ctx context.Context, req UpgradeRequest, progress func(Progress)) (ReloadResult, error) {
	query := url.Values{}
	if req.Program != "" {
		query.Set("program", req.Program)
	}
	if req.NoWait {
		query.Set("no_wait", "1")
	}
	if req.Environ == nil {
		return c.transaction(ctx, upgradePath, query, nil, progress)
	}
	query.Set("env", "1")
	body, err := json.Marshal(req.Environ)
	if err != nil {
		return ReloadResult{}, err
	}
	return c.transaction(ctx, upgradePath, query, bytes.NewReader(body), progress)
}
