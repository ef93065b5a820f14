package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"preforkd/internal/ipc"
)

// ModelRequest says which model shall be loaded or unloaded.
type ModelRequest struct {
	Name    string
	Version string   // to load; empty: as its settings choose, or with Files the number above those that are served
	Pool    string   // whose models directory; empty: the main one's
	Files   []string // paths on the client's side; none: what lies in the directory
	NoWait  bool     // fail with status 75 where another operation is under way
}

// ModelResult is how that ended. Exit, Message and Try are those of the command.
type ModelResult struct {
	Exit     int      `json:"exit"`
	Message  string   `json:"message"`
	Try      string   `json:"try,omitempty"`
	Model    string   `json:"model"`
	Versions []string `json:"versions"` // that are served now
	Workers  int      `json:"workers"`  // that serve them
	Took     Duration `json:"took_seconds"`
}

// Names of files that belong to a model and not to one of its versions.
var modelWide = map[string]bool{"config.yaml": true, "config.pbtxt": true, "warmup.json": true}

// discardBytes is how much is read, and thrown away, of files that are refused.
const discardBytes = 4 << 30

// uploadGap is how long a client may be silent while it sends files.
const uploadGap = 30 * time.Second

func (s *Server) loadModel(c *call) error {
	req, err := c.modelRequest(loadPath)
	if err != nil {
		return err
	}
	req.Version = c.query.Get("version")
	var upload func(string, int64) error
	if text := c.query.Get("files"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return usage(fmt.Sprintf("query: files=%q is no number of files", text), "write files=1 and send one")
		}
		upload = func(dir string, limit int64) error { return c.receive(dir, limit, n) }
	}
	result, err := s.service.Load(c.r.Context(), req, upload)
	return c.modelEnd(req, result, err)
}

func (s *Server) unloadModel(c *call) error {
	req, err := c.modelRequest(unloadPath)
	if err != nil {
		return err
	}
	result, err := s.service.Unload(c.r.Context(), req)
	return c.modelEnd(req, result, err)
}

func (c *call) modelRequest(verb string) (r ModelRequest, err error) {
	r.Name, _ = modelOf(c.r.URL.Path, verb)
	r.Pool = c.query.Get("pool")
	r.NoWait, err = c.flag("no_wait")
	return r, err
}

// modelEnd answers with the end of a change.
func (c *call) modelEnd(req ModelRequest, result ModelResult, err error) error {
	if err != nil {
		if c.r.ContentLength != 0 { // a client that still sends hears of it afterwards
			c.w.Header().Set("Connection", "close")
			_, _ = io.CopyN(io.Discard, &patient{c.r.Body, c}, discardBytes)
		}
		return failure(err)
	}
	result.Model = req.Name
	return c.write(result)
}

// receive writes so many parts of a form, as multipart/form-data has them, to files in dir: those of
// the model there, and others in a directory called version below it. Fewer are a form that has
// been cut off: its end does not tell.
func (c *call) receive(dir string, limit int64, files int) error {
	parts, err := c.r.MultipartReader()
	if err != nil {
		return usage("files: "+err.Error(), "send them as multipart/form-data: curl -F file=@"+ipc.DefaultModelFile)
	}
	defer func() { _ = c.control.SetReadDeadline(time.Time{}) }()
	left := limit
	for received := 0; ; received++ {
		_ = c.control.SetReadDeadline(time.Now().Add(uploadGap))
		part, err := parts.NextPart()
		if err == io.EOF && received == files { // as it is: wrapped, it is that of a form without its end
			return nil
		}
		if err != nil || received == files {
			return usage(fmt.Sprintf("files: %d of %d have arrived, then: %v", received, files, err), "send as many as the query says")
		}
		n, err := c.receiveOne(dir, part, left)
		if err != nil {
			return err
		}
		if left -= n; left < 0 {
			return usage(fmt.Sprintf("files: more than models.max_upload, which is %d bytes", limit),
				"raise models.max_upload and preforkd reload, or put them into the model directory")
		}
	}
}

// receiveOne writes one part, and a byte more than is left of one that is too large.
func (c *call) receiveOne(dir string, part *multipart.Part, left int64) (n int64, err error) {
	name := part.FileName() // its last element, if it had more
	if name == "" || name == "." || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\\\x00") {
		return 0, usage(fmt.Sprintf("files: %q is no name of a file", name), "send them with plain names, such as "+ipc.DefaultModelFile)
	}
	if !modelWide[name] {
		dir = filepath.Join(dir, uploadedVersion)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 0, uploadFailure(err)
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return 0, usage(fmt.Sprintf("files: %s is there twice", name), "send it once")
	}
	if err != nil {
		return 0, uploadFailure(err)
	}
	n, err = io.Copy(f, io.LimitReader(&patient{part, c}, left+1))
	if closing := f.Close(); closing != nil {
		return n, uploadFailure(closing)
	}
	if err != nil {
		if pathErr := (*os.PathError)(nil); errors.As(err, &pathErr) {
			return n, uploadFailure(err)
		}
		return n, usage("files: "+err.Error(), "send all of them")
	}
	return n, nil
}

// uploadedVersion is the directory of a version whose number is not decided yet.
const uploadedVersion = "version"

// UploadedVersion is where Load's upload puts a version's files, below dir.
const UploadedVersion = uploadedVersion

// patient gives a client that goes on sending more time.
type patient struct {
	from io.Reader
	c    *call
}

func (p *patient) Read(b []byte) (int, error) {
	_ = p.c.control.SetReadDeadline(time.Now().Add(uploadGap))
	return p.from.Read(b)
}

func uploadFailure(err error) error {
	return &ipc.Failure{Exit: ipc.ExitUnavailable, What: "files: " + err.Error(), Try: "make room in cache.dir, or set it to another directory", Err: err}
}

// Load loads a model and returns when every worker serves it.
func (c *Client) Load(ctx context.Context, req ModelRequest) (ModelResult, error) {
	query := modelQuery(req)
	if req.Version != "" {
		query.Set("version", req.Version)
	}
	if len(req.Files) == 0 {
		return c.model(ctx, req.Name+loadPath, query, nil, "")
	}
	query.Set("files", strconv.Itoa(len(req.Files)))
	for _, file := range req.Files { // before anything is sent
		f, err := os.Open(file)
		if err != nil {
			return ModelResult{}, usage("--file "+err.Error(), "name files that can be read")
		}
		f.Close()
	}
	body, to := io.Pipe()
	form := multipart.NewWriter(to)
	go func() { // ends when all has been sent, or nobody reads any more
		to.CloseWithError(writeForm(form, req.Files))
	}()
	defer body.Close()
	return c.model(ctx, req.Name+loadPath, query, body, form.FormDataContentType())
}

func writeForm(form *multipart.Writer, files []string) error {
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		part, err := form.CreateFormFile("file", filepath.Base(file))
		if err == nil {
			_, err = io.Copy(part, f)
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	return form.Close()
}

// Unload takes a model away.
func (c *Client) Unload(ctx context.Context, req ModelRequest) (ModelResult, error) {
	return c.model(ctx, req.Name+unloadPath, modelQuery(req), nil, "")
}

func modelQuery(req ModelRequest) url.Values {
	query := flags(map[string]bool{"no_wait": req.NoWait})
	if req.Pool != "" {
		query.Set("pool", req.Pool)
	}
	return query
}

func (c *Client) model(ctx context.Context, path string, query url.Values, send io.Reader, contentType string) (result ModelResult, err error) {
	name, verb, _ := strings.Cut(path, "/")
	body, err := c.doAs(ctx, http.MethodPost, modelsPath+"/"+url.PathEscape(name)+"/"+verb, query, send, contentType)
	if err != nil {
		return result, err
	}
	defer body.Close()
	return result, c.read(ctx, body, &result)
}
