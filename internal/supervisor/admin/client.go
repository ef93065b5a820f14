package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"preforkd/internal/ipc"
)

const (
	dialLimit = 5 * time.Second
	maxLine   = 1 << 20  // of a stream
	maxAnswer = 64 << 20 // of anything else
)

// Client steers a service through its admin socket. All methods are safe for concurrent
// use. Their errors are *ipc.Failure, those of the service as it worded them, or ctx's.
type Client struct {
	path string
	http *http.Client
	mu   sync.Mutex // guards first
	// first is the connection that Dial made; the first request takes it.
	first net.Conn
}

// openLooks is how often Dial tries a socket again where nobody listens.
const openLooks = 20

// Dial connects to the admin socket at path. Without a service behind it the error is an
// *ipc.Failure with status 69, or 77 where it may not be used.
func Dial(path string) (*Client, error) {
	conn, err := net.DialTimeout("unix", path, dialLimit)
	for range openLooks { // it is there a moment before it listens: its mode is set first
		if !errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		time.Sleep(time.Millisecond)
		conn, err = net.DialTimeout("unix", path, dialLimit)
	}
	if err != nil {
		return nil, dialFailure(path, err)
	}
	c := &Client{path: path, first: conn}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: c.dial, DisableCompression: true, MaxResponseHeaderBytes: maxHeader, IdleConnTimeout: idleLimit / 2,
	}}
	return c, nil
}

func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	c.mu.Lock()
	first := c.first
	c.first = nil
	c.mu.Unlock()
	if first != nil {
		return first, nil
	}
	d := net.Dialer{Timeout: dialLimit}
	return d.DialContext(ctx, "unix", c.path)
}

// Close gives the connections back; calls under way go on.
func (c *Client) Close() {
	c.mu.Lock()
	if c.first != nil {
		c.first.Close()
		c.first = nil
	}
	c.mu.Unlock()
	c.http.CloseIdleConnections()
}

func dialFailure(path string, err error) *ipc.Failure {
	f := &ipc.Failure{
		Exit: ipc.ExitUnavailable, What: fmt.Sprintf("connect to admin socket %s: %v", path, cause(err)), Err: err,
		Try: "is preforkd running? -c FILE or --admin PATH names its socket; under systemd the unit needs RuntimeDirectory=",
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		f.Exit, f.Try = ipc.ExitPermission, "run it as the user that runs preforkd, or as root"
	case errors.Is(err, syscall.ECONNREFUSED):
		f.Try = "the preforkd that made it is gone; start it again, or name another socket with --admin PATH"
	case errors.Is(err, syscall.EAGAIN):
		f.Exit, f.Try = ipc.ExitTryAgain, "too many clients wait there; try again, and see its log"
	}
	return f
}

// cause returns what the kernel said, without the operation and the path around it.
func cause(err error) error {
	if number := syscall.Errno(0); errors.As(err, &number) {
		return number
	}
	return err
}

// Status returns how the service is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	err := c.ask(ctx, http.MethodGet, "/v1/status", nil, &st)
	return st, err
}

// Stop begins to stop the service, quickly or by draining it, and returns at once.
func (c *Client) Stop(ctx context.Context, quick bool) error {
	return c.ask(ctx, http.MethodPost, "/v1/stop", flags(map[string]bool{"quick": quick}), &struct{}{})
}

// Reload reloads and calls progress with each line. Where the command's exit status is
// not 0, the error is its Failure, and the result is there as well if there was one.
func (c *Client) Reload(ctx context.Context, req ReloadRequest, progress func(Progress)) (ReloadResult, error) {
	return c.transaction(ctx, "/v1/reload", flags(map[string]bool{"dry_run": req.DryRun, "no_wait": req.NoWait}), nil, progress)
}

// transaction asks for a reload or a rollback and reads its lines.
func (c *Client) transaction(ctx context.Context, path string, query url.Values, send io.Reader, progress func(Progress)) (ReloadResult, error) {
	body, err := c.doWith(ctx, http.MethodPost, path, query, send)
	if err != nil {
		return ReloadResult{}, err
	}
	defer body.Close()
	var result *ReloadResult
	err = c.lines(ctx, body, func(line []byte) error {
		l, err := parseReloadLine(line)
		if err != nil {
			return err
		}
		if l.Progress != nil && progress != nil {
			progress(*l.Progress)
		}
		if l.Result != nil {
			result = l.Result
		}
		return nil
	})
	switch {
	case err != nil:
		return ReloadResult{}, err
	case result == nil:
		return ReloadResult{}, &ipc.Failure{
			Exit: ipc.ExitUnavailable, What: "the supervisor ended before the " + strings.TrimPrefix(path, "/v1/") + " did",
			Try: "preforkd status shows which generation serves; the log says why it ended",
		}
	case result.Exit != ipc.ExitOK:
		return *result, &ipc.Failure{Exit: result.Exit, What: result.Message, Try: result.Try}
	}
	return *result, nil
}

// parseReloadLine reads a line of a reload. One of a later version, with neither field,
// means nothing.
func parseReloadLine(line []byte) (reloadLine, error) {
	var l reloadLine
	if err := json.Unmarshal(line, &l); err != nil {
		return reloadLine{}, err
	}
	if r := l.Result; r != nil && (r.Exit < 0 || r.Exit > 255 || r.Exit != 0 && r.Message == "") {
		return reloadLine{}, fmt.Errorf("exit status %d, message %q", r.Exit, r.Message)
	}
	return l, nil
}

// Events calls each with the events after an ID, and with follow with those to come,
// until each fails, ctx is done or the service ends; then the error is nil.
func (c *Client) Events(ctx context.Context, after uint64, follow bool, each func(Event) error) error {
	query := flags(map[string]bool{"follow": follow})
	query.Set("after", strconv.FormatUint(after, 10))
	body, err := c.do(ctx, http.MethodGet, "/v1/events", query)
	if err != nil {
		return err
	}
	defer body.Close()
	var stopped error
	err = c.lines(ctx, body, func(line []byte) error {
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		stopped = each(e)
		return stopped
	})
	if stopped != nil {
		return stopped
	}
	return err
}

// flags returns a query with the keys that are true.
func flags(on map[string]bool) url.Values {
	q := url.Values{}
	for key, set := range on {
		if set {
			q.Set(key, "1")
		}
	}
	return q
}

// ask sends a request whose answer is one object.
func (c *Client) ask(ctx context.Context, method, path string, query url.Values, into any) error {
	limited, cancel := context.WithTimeout(ctx, answerLimit+dialLimit)
	defer cancel()
	body, err := c.do(limited, method, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	return c.read(ctx, body, into)
}

// read reads an answer that is one object.
func (c *Client) read(ctx context.Context, body io.Reader, into any) error {
	text, err := io.ReadAll(io.LimitReader(body, maxAnswer))
	if err != nil {
		return c.broken(ctx, err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return c.broken(ctx, err)
	}
	return nil
}

// do sends a request and returns the body of its answer, or its failure.
func (c *Client) do(ctx context.Context, method, path string, query url.Values) (io.ReadCloser, error) {
	return c.doWith(ctx, method, path, query, nil)
}

// doWith is do with a body.
func (c *Client) doWith(ctx context.Context, method, path string, query url.Values, body io.Reader) (io.ReadCloser, error) {
	return c.doAs(ctx, method, path, query, body, "")
}

// doAs is doWith with the type of the body.
func (c *Client) doAs(ctx context.Context, method, path string, query url.Values, body io.Reader, contentType string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://preforkd"+path+"?"+query.Encode(), body)
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.broken(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxLine))
	if err != nil {
		return nil, c.broken(ctx, err)
	}
	f, err := ipc.DecodeFailure(string(text))
	if err != nil {
		return nil, c.broken(ctx, fmt.Errorf("HTTP status %s without a reason", resp.Status))
	}
	return nil, f
}

// lines calls each with every line of body. The first error ends it.
func (c *Client) lines(ctx context.Context, body io.Reader, each func([]byte) error) error {
	sc := bufio.NewScanner(body)
	sc.Buffer(nil, maxLine)
	for sc.Scan() {
		if err := each(sc.Bytes()); err != nil {
			return c.broken(ctx, err)
		}
	}
	if err := sc.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) { // that is a service that ended
		return c.broken(ctx, err)
	}
	return ctx.Err()
}

// broken words the end of a conversation that neither side wanted.
func (c *Client) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if f := (*ipc.Failure)(nil); errors.As(err, &f) {
		return f
	}
	if number := syscall.Errno(0); errors.As(err, &number) {
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
			return dialFailure(c.path, err)
		}
	}
	return &ipc.Failure{
		Exit: ipc.ExitUnavailable, What: fmt.Sprintf("admin socket %s: %v", c.path, unwrapURL(err)), Err: err,
		Try: "is preforkd still running? its log says why it ended",
	}
}

// unwrapURL takes off the method and URL that package http puts before an error.
func unwrapURL(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err
	}
	return err
}
