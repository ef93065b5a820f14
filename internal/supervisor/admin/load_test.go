package admin

import (
	"bytes"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"preforkd/internal/ipc"
)

// TestLoadCrosses: what a client asks for and sends is what the service gets, and its end what
// the client gets.
func TestLoadCrosses(t *testing.T) {
	var got ModelRequest
	var received string
	limit, dir := int64(100), t.TempDir()
	s := &service{Log: NewLog(1), load: func(r ModelRequest, upload func(string, int64) error) (ModelResult, error) {
		got, received = r, ""
		if upload == nil {
			return ModelResult{Message: "done", Versions: []string{"1"}, Workers: 2}, nil
		}
		to := filepath.Join(dir, "m")
		defer os.RemoveAll(to)
		if err := os.Mkdir(to, 0o755); err != nil {
			return ModelResult{}, err
		}
		if err := upload(to, limit); err != nil {
			return ModelResult{}, err
		}
		err := filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			received += strings.TrimPrefix(path, to) + "=" + string(data) + " "
			return err
		})
		return ModelResult{Message: "done", Versions: []string{"3"}}, err
	}}
	path, _ := serve(t, s)
	c := dial(t, path)
	for _, r := range []ModelRequest{{Name: "m"}, {Name: "a b?#%", Version: "2", Pool: "web", NoWait: true}} {
		result, err := c.Load(t.Context(), r)
		if err != nil || !reflect.DeepEqual(got, r) || result.Model != r.Name || result.Workers != 2 || result.Message != "done" {
			t.Errorf("%+v, %v; asked %+v, got %+v", result, err, r, got)
		}
		r.Version = ""
		if _, err := c.Unload(t.Context(), r); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%v; asked %+v, got %+v", err, r, got)
		}
	}
	files := t.TempDir()
	send := func(name string, n int) string {
		t.Helper()
		path := filepath.Join(files, name)
		if err := os.WriteFile(path, bytes.Repeat([]byte("x"), n), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	model, settings := send("model.onnx", 3), send("config.yaml", 2)
	if _, err := c.Load(t.Context(), ModelRequest{Name: "m", Files: []string{model, settings}}); err != nil || received != "/config.yaml=xx /version/model.onnx=xxx " {
		t.Errorf("%v: %s", err, received)
	}
	if _, err := c.Load(t.Context(), ModelRequest{Name: "m", Files: []string{send("most", 100)}}); err != nil {
		t.Error(err)
	}
	_, err := c.Load(t.Context(), ModelRequest{Name: "m", Files: []string{model, send("more", 98)}})
	checkFailure(t, err, ipc.ExitUsage, "more than models.max_upload, which is 100 bytes")
	_, err = c.Load(t.Context(), ModelRequest{Name: "m", Files: []string{send("much", 8<<20)}})
	checkFailure(t, err, ipc.ExitUsage, "more than models.max_upload")
	_, err = c.Load(t.Context(), ModelRequest{Name: "m", Files: []string{model, model}})
	checkFailure(t, err, ipc.ExitUsage, "model.onnx is there twice")
	_, err = c.Load(t.Context(), ModelRequest{Name: "m", Files: []string{filepath.Join(files, "none")}})
	checkFailure(t, err, ipc.ExitUsage, "no such file")
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	s.load = func(ModelRequest, func(string, int64) error) (ModelResult, error) {
		return ModelResult{}, &ipc.Failure{Exit: ipc.ExitRolledBack, What: "it is bad", Try: "another"}
	}
	_, err = c.Load(t.Context(), ModelRequest{Name: "m", Files: []string{send("unread", 1<<20)}}) // which nobody reads
	checkFailure(t, err, ipc.ExitRolledBack, "it is bad")
}

// TestUploadsAreFormsOfFiles: what is no form, or has names that would lead elsewhere, is refused.
func TestUploadsAreFormsOfFiles(t *testing.T) {
	dir := t.TempDir()
	s := &service{Log: NewLog(1), load: func(_ ModelRequest, upload func(string, int64) error) (ModelResult, error) {
		if upload == nil {
			return ModelResult{}, errors.New("no files")
		}
		return ModelResult{}, upload(dir, 1000)
	}}
	path, _ := serve(t, s)
	c := dial(t, path)
	form := func(write func(*multipart.Writer) error) (string, string) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		if err := errors.Join(write(w), w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.String(), w.FormDataContentType()
	}
	named := func(name string) func(*multipart.Writer) error {
		return func(w *multipart.Writer) error {
			part, err := w.CreateFormFile("file", name)
			if err == nil {
				_, err = part.Write([]byte("x"))
			}
			return err
		}
	}
	whole, kind := form(named("model.onnx"))
	hidden, hiddenKind := form(named(".profile"))
	many, manyKind := form(func(w *multipart.Writer) error { return errors.Join(named("a")(w), named("b")(w)) })
	field, fieldKind := form(func(w *multipart.Writer) error { return w.WriteField("a", "b") })
	for name, x := range map[string]struct{ body, kind, want string }{
		"no form":      {"x", "text/plain", "send them as multipart/form-data"},
		"no boundary":  {"x", "multipart/form-data", "files: "},
		"half of it":   {whole[:len(whole)/2], kind, "0 of 1 have arrived"},
		"no end":       {strings.TrimSuffix(whole, "--\r\n"), kind, "files: "},
		"hidden":       {hidden, hiddenKind, `".profile" is no name of a file`},
		"not a file":   {field, fieldKind, `"" is no name of a file`},
		"another type": {whole, fieldKind, "0 of 1 have arrived"},
		"too many":     {many, manyKind, "1 of 1 have arrived"},
	} {
		body, err := c.doAs(t.Context(), http.MethodPost, "/v1/models/m/load", flags(map[string]bool{"files": true}), io.MultiReader(strings.NewReader(x.body)), x.kind)
		if err == nil {
			body.Close()
			t.Errorf("%s: no error", name)
			continue
		}
		checkFailure(t, err, ipc.ExitUsage, x.want)
		_ = os.RemoveAll(filepath.Join(dir, uploadedVersion))
	}
	up, upKind := form(named("../../model.onnx"))
	body, err := c.doAs(t.Context(), http.MethodPost, "/v1/models/m/load", flags(map[string]bool{"files": true}), strings.NewReader(up), upKind)
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	if _, err := os.Stat(filepath.Join(dir, uploadedVersion, "model.onnx")); err != nil {
		t.Error(err)
	}
	checkFailure(t, c.ask(t.Context(), http.MethodGet, "/v1/models/m/load", nil, &struct{}{}), ipc.ExitUsage, "the method is POST")
}

// FuzzUpload: whatever arrives, files are written only below the directory, and no more than
// the limit.
func FuzzUpload(f *testing.F) {
	f.Add("--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"model.onnx\"\r\n\r\nabc\r\n--b--\r\n")
	f.Add("--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"../x\"\r\n\r\nabc\r\n--b\r\n\r\n\r\n--b--")
	f.Fuzz(func(t *testing.T, text string) {
		const limit = 8
		parent := t.TempDir()
		dir := filepath.Join(parent, "m")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequest(http.MethodPost, "/", strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "multipart/form-data; boundary=b")
		w := discarded{}
		c := &call{w: w, r: r, control: http.NewResponseController(w)}
		err = c.receive(dir, limit, 1)
		total := int64(0)
		_ = filepath.WalkDir(parent, func(path string, d os.DirEntry, _ error) error {
			if d.Type().IsRegular() {
				if !strings.HasPrefix(path, dir+"/") {
					t.Errorf("%s was written", path)
				}
				if st, err := d.Info(); err == nil {
					total += st.Size()
				}
			}
			return nil
		})
		if total > limit+1 || total > limit && err == nil {
			t.Errorf("%d bytes, %v", total, err)
		}
	})
}

// discarded is a response that nobody reads.
type discarded struct{}

func (discarded) Header() http.Header         { return http.Header{} }
func (discarded) Write(b []byte) (int, error) { return len(b), nil }
func (discarded) WriteHeader(int)             {}
