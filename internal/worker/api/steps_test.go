package api

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
	"preforkd/internal/ipc/scoreboard"
	"preforkd/internal/worker/helper"
)

// kitchen has helpers: programs of net/http, each at a socket, as the scoreboard says.
type kitchen struct {
	t     *testing.T
	board *scoreboard.Board
	dir   string
	pids  int
}

func newKitchen(t *testing.T) *kitchen {
	board, fd, err := scoreboard.Create(8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = board.Close(); activation.Close(fd) })
	return &kitchen{t: t, board: board, dir: t.TempDir(), pids: 100}
}

func (k *kitchen) socket(pool string) func(*scoreboard.Row) string {
	return func(r *scoreboard.Row) string {
		return filepath.Join(k.dir, ipc.HelperSocket(r.Generation(), r.Ticket(), pool))
	}
}

// model is what a helper has: its description, and what it does.
type helped struct {
	in, out string // elements of the lists
	do      func(w http.ResponseWriter, r *http.Request, head map[string]any, data []byte)
}

// helper starts one of a pool.
func (k *kitchen) helper(pool string, models map[string]helped) {
	k.pids++
	row, err := k.board.Claim(scoreboard.Holder{Pool: 1, Generation: 1, State: 1})
	if err != nil {
		k.t.Fatal(err)
	}
	ln, err := net.Listen("unix", k.socket(pool)(row))
	if err != nil {
		k.t.Fatal(err)
	}
	mux := http.NewServeMux()
	for name, m := range models {
		mux.HandleFunc("GET /v2/models/"+name, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"name":%q,"inputs":[%s],"outputs":[%s]}`, name, m.in, m.out)
		})
		mux.HandleFunc("POST /v2/models/"+name+"/infer", func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			n, _ := strconv.Atoi(r.Header.Get(headerLength))
			var head map[string]any
			if err != nil || json.Unmarshal(body[:n], &head) != nil {
				k.t.Errorf("a request that cannot be read: %q", body)
			}
			m.do(w, r, head, body[n:])
		})
	}
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(ln) }() // ends with the test
	k.t.Cleanup(func() { _ = server.Close() })
	row.SetPID(k.pids)
	row.SetState(ipc.StateReady)
}

func (k *kitchen) pool(name string) *helper.Pool {
	return helper.New(helper.Options{
		Name: name, Rows: k.board.Rows, Ready: ipc.StateReady, Generation: 1, Socket: k.socket(name),
		Connections: 1, MaxWaiting: 1, MaxWait: 100 * time.Millisecond, MaxAnswer: 1 << 20,
	})
}

const (
	oneText = `{"name":"%s","datatype":"BYTES","shape":[1]}`
	pixels  = `{"name":"pixels","datatype":"FP32","shape":[-1,64]}`
)

// repeat makes 64 numbers of the one that the body is.
func repeat(w http.ResponseWriter, _ *http.Request, head map[string]any, data []byte) {
	text := string(data[4:])
	n, err := strconv.ParseFloat(text, 32)
	if err != nil {
		w.WriteHeader(422)
		fmt.Fprintf(w, `{"error":"%s is no number"}`, text)
		return
	}
	const shape = `{"outputs":[{"name":"out","datatype":"FP32","shape":[1,64],"parameters":{"binary_data_size":256}}]}`
	b := []byte(shape)
	for range 64 {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(n)))
	}
	w.Header().Set(headerLength, strconv.Itoa(len(shape)))
	_, _ = w.Write(b)
}

// words says what label it got, and of what content type that is.
func words(w http.ResponseWriter, _ *http.Request, _ map[string]any, data []byte) {
	fmt.Fprintf(w, `{"outputs":[{"name":"text","datatype":"BYTES","shape":[1],"parameters":{"content_type":"text/plain"},"data":["label %d"]}]}`,
		binary.LittleEndian.Uint64(data))
}

func decoder() helped {
	return helped{fmt.Sprintf(oneText, "image"), `{"name":"out","datatype":"FP32","shape":[1,64]}`, repeat}
}

func formatter() helped {
	return helped{`{"name":"label","datatype":"INT64","shape":[-1]}`, fmt.Sprintf(oneText, "text"), words}
}

var classify = []Step{{Helper: "decode", Model: "decode", At: "c.yaml:1"}, {Model: "digits", At: "c.yaml:2"}, {Helper: "format", Model: "format", At: "c.yaml:3"}}

func (k *kitchen) serve(o Options, routes map[string][]Step) (*API, string) {
	for path, steps := range routes {
		o.Routes = append(o.Routes, Route{Path: path, Layer: Sync, Steps: steps})
	}
	o.Helpers = map[string]*helper.Pool{"decode": k.pool("decode"), "format": k.pool("format")}
	a := newAPI(k.t, o)
	return a, serve(k.t, a, limits)
}

func exchangeOn(t *testing.T, address, text string) (int, string, http.Header) {
	t.Helper()
	c := dial(t, address)
	c.send(t, text)
	return c.answer(t)
}

// TestSteps: a body goes through a helper, a model and a helper; what is not to its taste the
// first one refuses with its own status.
func TestSteps(t *testing.T) {
	k := newKitchen(t)
	var kind, id, limit atomic.Value
	d := decoder()
	d.do = func(w http.ResponseWriter, r *http.Request, head map[string]any, data []byte) {
		kind.Store(fmt.Sprint(head["inputs"].([]any)[0].(map[string]any)["parameters"].(map[string]any)["content_type"]))
		id.Store(r.Header.Get("X-Request-Id"))
		left, err := time.ParseDuration(r.Header.Get("X-Request-Timeout"))
		if err != nil {
			t.Error(err)
		}
		limit.Store(left)
		repeat(w, r, head, data)
	}
	k.helper("decode", map[string]helped{"decode": d})
	k.helper("format", map[string]helped{"format": formatter()})
	_, address := k.serve(Options{}, map[string][]Step{
		"/classify": classify, "/numbers": classify[:2], "/words": {{Model: "digits"}, classify[2]}, "/again": classify[:1],
	})
	request := func(path, body string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: image/x\r\nX-Request-Id: i-1\r\nX-Request-Timeout: 60s\r\nContent-Length: " + itoa(len(body)) + "\r\n\r\n" + body
	}
	for range 3 { // with everything used again
		status, body, h := exchangeOn(t, address, request("/classify", "2"))
		if status != 200 || body != "label 128" || h.Get("Content-Type") != "text/plain" || h.Get("X-Request-Id") != "i-1" {
			t.Fatalf("%d %q %v", status, body, h)
		}
		if timing := h.Get("Server-Timing"); !strings.HasPrefix(timing, `s0;desc="helper:decode";dur=`) || strings.Count(timing, "dur=") != 3 {
			t.Errorf("%q", timing)
		}
		if left := limit.Load().(time.Duration); kind.Load() != "image/x" || id.Load() != "i-1" || left <= 0 || left > time.Minute {
			t.Errorf("the helper heard %v, %v, %v", kind.Load(), id.Load(), left)
		}
		status, body, _ = exchangeOn(t, address, request("/numbers", "2"))
		if status != 200 || body != `{"model_name":"digits","model_version":"2","outputs":[{"name":"label","datatype":"INT64","shape":[1],"data":[128]},{"name":"probabilities","datatype":"FP32","shape":[1,2],"data":[2,126]}]}` {
			t.Errorf("%d %s", status, body)
		}
		status, body, _ = exchangeOn(t, address, request("/words", `{"inputs":[{"name":"pixels","shape":[1,64],"datatype":"FP32","data":`+row+`}]}`))
		if status != 200 || body != "label 3" {
			t.Errorf("%d %s", status, body)
		}
		status, body, _ = exchangeOn(t, address, request("/again", "1"))
		if status != 200 || !strings.HasPrefix(body, `{"model_name":"decode","model_version":"1","outputs":[{"name":"out","datatype":"FP32","shape":[1,64],"data":[1,1,`) {
			t.Errorf("%d %s", status, body)
		}
	}
	for text, want := range map[string]string{
		request("/classify", "two"):                 `422 {"error":"helper decode (slot 0, pid 101): two is no number"}`,
		request("/words", "{}"):                     `400 {"error":"inputs: missing"}`,
		"GET /classify HTTP/1.1\r\nHost: x\r\n\r\n": `405 {"error":"method not allowed"}`,
	} {
		if status, body, _ := exchangeOn(t, address, text); fmt.Sprint(status, " ", body) != want {
			t.Errorf("%d %s, want %s", status, body, want)
		}
	}
}

// TestBadHelpers: what helpers do wrong is status 502 or 504, with who and what.
func TestBadHelpers(t *testing.T) {
	answers := func(text string) func(http.ResponseWriter, *http.Request, map[string]any, []byte) {
		return func(w http.ResponseWriter, _ *http.Request, _ map[string]any, _ []byte) {
			_, _ = io.WriteString(w, text)
		}
	}
	for name, c := range map[string]struct {
		do   func(http.ResponseWriter, *http.Request, map[string]any, []byte)
		want string
	}{
		"fails": {func(w http.ResponseWriter, _ *http.Request, _ map[string]any, _ []byte) {
			http.Error(w, `{"error":"out of ink"}`, 500)
		}, `502 {"error":"helper decode (slot 0, pid 101): status 500: out of ink"}`},
		"garbage":  {answers("what?"), `502 {"error":"helper decode (slot 0, pid 101): its answer cannot be used: body: 'w' where '{' is expected (offset 0)"}`},
		"other":    {answers(`{"outputs":[{"name":"out","datatype":"FP32","shape":[1,2],"data":[1,2]}]}`), `502 {"error":"helper decode (slot 0, pid 101): its answer cannot be used: outputs[0].shape: [1 2], is declared [1 64] (offset 52)"}`},
		"large":    {answers(strings.Repeat("x", 2<<20)), `502 {"error":"helper decode (slot 0, pid 101): its answer is larger than 1048576 bytes (http.max_body)"}`},
		"silent":   {func(http.ResponseWriter, *http.Request, map[string]any, []byte) { time.Sleep(200 * time.Millisecond) }, `504 {"error":"helper decode (slot 0, pid 101) gave no answer within X-Request-Timeout, which is 50ms"}`},
		"vanishes": {func(http.ResponseWriter, *http.Request, map[string]any, []byte) { panic(http.ErrAbortHandler) }, `502 {"error":"helper decode (slot 0, pid 101): it closed the connection before its answer was complete"}`},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKitchen(t)
			d := decoder()
			d.do = c.do
			k.helper("decode", map[string]helped{"decode": d})
			a, address := k.serve(Options{}, map[string][]Step{"/numbers": classify[:2]})
			if err := a.Prove(func(string) bool { return true }); err != nil {
				t.Fatal(err)
			}
			limit := "60s"
			if name == "silent" {
				limit = "50ms"
			}
			status, body, _ := exchangeOn(t, address, "POST /numbers HTTP/1.1\r\nHost: x\r\nX-Request-Timeout: "+limit+"\r\nContent-Length: 1\r\n\r\n2")
			if got := fmt.Sprint(status, " ", body); got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
}

// TestNoHelpers: who finds no helper is told so, when it is known; a pool does not take another's
// places.
func TestNoHelpers(t *testing.T) {
	k := newKitchen(t)
	hold := make(chan struct{})
	defer close(hold)
	entered := make(chan struct{}, 1)
	d := decoder()
	d.do = func(http.ResponseWriter, *http.Request, map[string]any, []byte) { entered <- struct{}{}; <-hold }
	k.helper("decode", map[string]helped{"decode": d})
	a, address := k.serve(Options{}, map[string][]Step{"/numbers": classify[:2], "/words": {{Model: "digits"}, classify[2]}})
	words := post("/words", `{"inputs":[{"name":"pixels","shape":[1,64],"datatype":"FP32","data":`+row+`}]}`)
	if status, body, _ := exchangeOn(t, address, words); status != 502 || !strings.Contains(body, "no helper of pool format is ready, and none became so within 100ms (helper.max_wait)") {
		t.Errorf("%d %s", status, body)
	}
	k.helper("format", map[string]helped{"format": formatter()})
	if err := a.Prove(func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	dial(t, address).send(t, post("/numbers", "2"))
	<-entered
	status, body, h := exchangeOn(t, address, post("/numbers", "2"))
	if status != 503 || h.Get("Retry-After") != "1" || !strings.Contains(body, "no helper of pool decode became free within 100ms (helper.max_wait): try again in 1s") {
		t.Errorf("%d %s %v", status, body, h)
	}
	if status, body, _ := exchangeOn(t, address, words); status != 200 {
		t.Errorf("beside a pool that is busy: %d %s", status, body)
	}
}

// TestMisfits: steps that cannot fit are said before anything is served, with their place.
func TestMisfits(t *testing.T) {
	k := newKitchen(t)
	d, f := decoder(), formatter()
	wide, whole := d, d
	wide.out = `{"name":"out","datatype":"FP32","shape":[1,65]}`
	whole.out = `{"name":"out","datatype":"INT64","shape":[1,64]}`
	k.helper("decode", map[string]helped{"decode": d, "wide": wide, "whole": whole, "bad": {"", "", nil}})
	k.helper("format", map[string]helped{"format": f})
	in := func(pool, model string) Step {
		return Step{Helper: pool, Model: model, At: "c.yaml:7:3: routes./x.steps[0]"}
	}
	own := func(model string) Step { return Step{Model: model, At: "c.yaml:8:3: routes./x.steps[1]"} }
	for want, steps := range map[string][]Step{
		"": classify,
		`c.yaml:8:3: routes./x.steps[1]: model:digits does not fit behind helper:decode/wide: it takes "pixels" FP32 [-1 64], and gets "out" FP32 [1 65]`: {in("decode", "wide"), own("digits")},
		`it takes "pixels" FP32 [-1 64], and gets "out" INT64 [1 64]`:                                                                                     {in("decode", "whole"), own("digits")},
		`it takes "a" INT64 [-1 2], which is none of "label" INT64 [-1], "probabilities" FP32 [-1 2]`:                                                     {own("digits"), own("two")},
		`c.yaml:7:3: routes./x.steps[0]: helper:decode/none: GET /v2/models/none of helper decode (slot 0, pid 101): status 404`:                          {in("decode", "none"), own("digits")},
		`helper:decode/bad: GET /v2/models/bad of helper decode (slot 0, pid 101): inputs: none`:                                                          {in("decode", "bad")},
		`c.yaml:8:3: routes./x.steps[1]: model:none: Request for unknown model: 'none' is not found`:                                                      {own("none")},
		`there is no pool of helpers "other"`: {in("other", "m")},
	} {
		a, _ := k.serve(Options{}, map[string][]Step{"/x": steps})
		err := a.Prove(func(string) bool { return true })
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, errMisfit)) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	absent := ""
	k = newKitchen(t)
	a, _ := k.serve(Options{}, map[string][]Step{"/x": classify})
	if err := a.Prove(func(pool string) bool { absent = pool; return false }); err == nil || absent != "decode" {
		t.Errorf("%v, waits for %q", err, absent)
	}
}

// TestAnotherHelper: a process that says other things of its model than the first one is not asked.
func TestAnotherHelper(t *testing.T) {
	k := newKitchen(t)
	k.helper("decode", map[string]helped{"decode": decoder()})
	a, address := k.serve(Options{}, map[string][]Step{"/numbers": classify[:2]})
	if err := a.Prove(func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	k.board.Rows()[0].SetState(4)
	other := decoder()
	other.in = fmt.Sprintf(oneText, "picture")
	k.helper("decode", map[string]helped{"decode": other})
	status, body, _ := exchangeOn(t, address, post("/numbers", "2"))
	if status != 502 || !strings.Contains(body, `takes \"picture\" BYTES [1] and gives \"out\" FP32 [1 64], where others take \"image\" BYTES [1]`) {
		t.Errorf("%d %s", status, body)
	}
}
