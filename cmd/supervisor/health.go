package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/supervisor/admin"
)

// healthLimit is how long the answer may take unless the command line says otherwise.
const healthLimit = 2 * time.Second

func healthCommand(out io.Writer) *cli.Command {
	return &cli.Command{
		Name: "health", Usage: "whether the service is ready: exit status 0, or 69 and the reason", OnUsageError: usageError,
		Flags: adminFlags(jsonFlag(),
			&cli.BoolFlag{Name: "live", Usage: "whether its supervisor works, ready or not"},
			&cli.DurationFlag{Name: "timeout", Value: healthLimit, Usage: "wait for `TIME` at most"},
		),
		Action: func(c *cli.Context) error {
			limit := c.Duration("timeout")
			if limit <= 0 {
				return &ipc.Failure{Exit: ipc.ExitUsage, What: fmt.Sprintf("--timeout %v leaves no time for an answer", limit), Try: "--timeout 2s"}
			}
			h, err := askHealth(c, limit)
			if err != nil {
				if h.Reason = notAnswered(err); h.Reason == "" {
					return err
				}
			}
			if c.Bool("json") {
				err = json.NewEncoder(out).Encode(h)
			} else if h.Ready || h.Live && c.Bool("live") {
				_, err = fmt.Fprintln(out, h)
			}
			if h.Ready || h.Live && c.Bool("live") {
				return err
			}
			return &ipc.Failure{Exit: ipc.ExitUnavailable, What: h.String()}
		},
	}
}

// askHealth asks the admin socket, or the operations listener of a service without one.
func askHealth(c *cli.Context, limit time.Duration) (admin.Health, error) {
	ctx, cancel := context.WithTimeoutCause(c.Context, limit, fmt.Errorf("the supervisor did not answer within %v", limit))
	defer cancel()
	h, err := askAdmin(ctx, c)
	if err != nil && errors.Is(err, context.DeadlineExceeded) {
		err = &ipc.Failure{Exit: ipc.ExitUnavailable, What: context.Cause(ctx).Error()}
	}
	return h, err
}

func askAdmin(ctx context.Context, c *cli.Context) (admin.Health, error) {
	if name := c.Args().First(); name != "" {
		return admin.Health{}, unknownArgument(c, name)
	}
	path := c.String("admin")
	if path == "" {
		cfg, err := configured(c)
		if err != nil {
			return admin.Health{}, err
		}
		if path = cfg.AdminSocket(os.Getenv, os.Getuid()); path == "" {
			return askOps(ctx, cfg)
		}
	}
	client, err := admin.Dial(path)
	if err != nil {
		return admin.Health{}, err
	}
	defer client.Close()
	return client.Health(ctx)
}

// notAnswered returns why nobody has answered, in one line; empty: err is about something else.
func notAnswered(err error) string {
	f := (*ipc.Failure)(nil)
	if !errors.As(err, &f) || f.Exit != ipc.ExitUnavailable && f.Exit != ipc.ExitTryAgain {
		return ""
	}
	if f.Try == "" {
		return f.What
	}
	return f.What + "; " + f.Try
}

// maxReason is how much of an answer is read.
const maxReason = 4 << 10

// askOps asks the operations listener: first whether the service is ready, and if it is not,
// whether it lives.
func askOps(ctx context.Context, cfg *config.Config) (h admin.Health, err error) {
	address, _ := cfg.OpsAddress()
	if address == "" {
		return h, &ipc.Failure{
			Exit: ipc.ExitUsage, What: "nobody can be asked: admin and ops.listen are off",
			Try: "set one of them, or probe /readyz where the service listens",
		}
	}
	if h.Ready, h.Reason, err = getOps(ctx, address, "/readyz"); err != nil || h.Ready {
		h.Live = h.Ready
		return h, err
	}
	h.Live, _, err = getOps(ctx, address, "/livez")
	return h, err
}

// getOps returns whether the answer is good, and what it says.
func getOps(ctx context.Context, address, path string) (good bool, text string, err error) {
	url := "http://" + local(address) + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, "", err
	}
	transport := &http.Transport{DisableKeepAlives: true} // and no proxy
	resp, err := transport.RoundTrip(req)
	if err == nil {
		defer resp.Body.Close()
		var body []byte
		if body, err = io.ReadAll(io.LimitReader(resp.Body, maxReason)); err == nil {
			return resp.StatusCode == http.StatusOK, strings.TrimSpace(string(body)), nil
		}
	}
	if ctx.Err() != nil {
		return false, "", ctx.Err()
	}
	return false, "", &ipc.Failure{
		Exit: ipc.ExitUnavailable, What: fmt.Sprintf("get %s: %v", url, err), Err: err,
		Try: "is preforkd running? -c FILE names its ops.listen",
	}
}

// local is where this machine reaches what listens on address: of every interface, the first.
func local(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err == nil && (host == "" || host == "::" || host == "0.0.0.0") {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}
