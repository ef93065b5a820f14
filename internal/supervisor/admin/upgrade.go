package admin

import (
	"context"
	"net/url"
)

// UpgradeRequest says which program to go on with.
type UpgradeRequest struct {
	Program string // path or name; empty: what lies at the path by which the service was started
	NoWait  bool   // an error (75) when another operation is under way
}

const upgradePath = "/v1/upgrade"

func (s *Server) upgrade(c *call) (err error) {
	req := UpgradeRequest{Program: c.r.URL.Query().Get("program")}
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
	return c.transaction(ctx, upgradePath, query, progress)
}
