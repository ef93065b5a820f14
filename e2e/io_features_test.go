package e2e

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"preforkd/internal/testkit"
	"preforkd/internal/testkit/digits"
)

// pixelNames are the fields of a digit's hash.
func pixelNames() (names []string) {
	for i := range 64 {
		names = append(names, fmt.Sprintf("p%02d", i))
	}
	return names
}

// stored writes digits into Redis in every form that rows have.
func (r *redis) stored(rows [][digits.Features]float32) {
	r.t.Helper()
	for k, row := range rows {
		hash := []string{"HSET", fmt.Sprintf("hash:%d", k)}
		object := map[string]float32{}
		var memory []byte
		for i, name := range pixelNames() {
			hash = append(hash, name, fmt.Sprint(row[i]))
			object[name] = row[i]
			memory = binary.LittleEndian.AppendUint32(memory, math.Float32bits(row[i]))
		}
		array, _ := json.Marshal(row)
		members, _ := json.Marshal(object)
		r.do(hash, []string{"SET", fmt.Sprintf("array:%d", k), string(array)}, []string{"SET", fmt.Sprintf("object:%d", k), string(members)},
			[]string{"SET", fmt.Sprintf("binary:%d", k), string(memory)})
	}
}

// labelsIn are the labels of an answer in the protocol's form.
func labelsIn(body string) (labels []int64) {
	var v struct {
		Outputs []struct {
			Name string
			Data []float64
		}
	}
	if json.Unmarshal([]byte(body), &v) != nil {
		return nil
	}
	for _, o := range v.Outputs {
		for _, x := range o.Data {
			if o.Name == "label" {
				labels = append(labels, int64(x))
			}
		}
	}
	return labels
}

// TestFeatures: rows in each form, one and several, give the answers of a direct call; what is not
// there, and what is no row, is said.
func TestFeatures(t *testing.T) {
	set := digits.Load(t)
	rows, want := set.Pixels[:3], set.Answers["digits"].Labels[:3]
	r := startRedis(t, "--requirepass", "secret-of-redis", "--databases", "16")
	r.login = [][]string{{"AUTH", "secret-of-redis"}, {"SELECT", "3"}}
	r.stored(rows)
	r.do([]string{"HSET", "hash:part", "p00", "1"}, []string{"SET", "hash:text", "x"}, []string{"HSET", "hash:bad", "p00", "many"}, []string{"SET", "array:short", "[1,2]"},
		[]string{"SET", "array:text", `"x"`}, []string{"SET", "binary:short", "abc"}, []string{"SET", "array:large", strings.Repeat(" ", 1<<20) + "[]"})
	names := strings.Join(pixelNames(), ", ")
	route := func(name, more string) string {
		return fmt.Sprintf("  /%s: {layer: async, features: {store: \"redis://%s/3\", key: \"%s:{digit}\", model: digits, password_file: %s%s}}\n", name, r.address, name, inFile(t, "secret-of-redis"), more)
	}
	config := "routes:\n" + route("hash", ", fields: ["+names+"]") + route("array", "") + route("object", ", format: json, fields: ["+names+"]") + route("binary", ", format: binary") +
		strings.Replace(strings.Replace(route("hash", ", missing: zero, fields: ["+names+"]"), "/hash:", "/zero:", 1), "async", "sync", 1)
	s := testkit.Start(t, testkit.Options{Workers: 1, Config: config})
	for _, form := range []string{"hash", "array", "object", "binary", "zero"} {
		status, body := get(t, s.URL+"/"+form+"?digit=1")
		if got := labelsIn(body); status != 200 || len(got) != 1 || got[0] != want[1] {
			t.Errorf("%s: %d %s", form, status, body)
		}
		status, body = post(t, s.URL+"/"+form, `{"digit":[0,"1",2],"other":true}`)
		if got := labelsIn(body); status != 200 || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %d %s", form, status, body)
		}
	}
	for _, c := range []struct {
		path, body string
		status     int
		says       string
	}{
		{"/hash?digit=none", "", 404, "the store of route /hash has no row \"hash:none\""},
		{"/binary?digit=none", "", 404, "has no row"},
		{"/hash?digit=part", "", 502, "row \"hash:part\": field \"p01\" is not there"},
		{"/zero?digit=part", "", 200, "label"},
		{"/hash?digit=bad", "", 502, "field \"p00\": \"many\" is no FP32"},
		{"/hash?digit=text", "", 502, "refused the command: WRONGTYPE"},
		{"/array?digit=short", "", 502, "row \"array:short\": 2 numbers where 64 are expected"},
		{"/array?digit=text", "", 502, "'[' is expected"},
		{"/array?digit=large", "", 502, "of which at most 1048576 are read"},
		{"/binary?digit=short", "", 502, "3 bytes where 256 are expected, 64 of FP32"},
		{"/hash", "", 400, "digit: missing"},
		{"/hash", `{"digit":1.5}`, 400, "not written as an integer"},
		{"/hash", `{}`, 400, "digit: missing"},
		{"/hash", `{"digit":[` + strings.Repeat("1,", 100) + `1]}`, 400, "more than 100 rows"},
	} {
		status, body := 0, ""
		if c.body == "" {
			status, body = get(t, s.URL+c.path)
		} else {
			status, body = post(t, s.URL+c.path, c.body)
		}
		if status != c.status || !strings.Contains(strings.ReplaceAll(body, `\"`, `"`), c.says) {
			t.Errorf("%s %.40s: %d %s, want %d %s", c.path, c.body, status, body, c.status, c.says)
		}
	}
	resp, err := fresh.Get(s.URL + "/hash?digit=0")
	if err != nil {
		t.Fatal(err)
	}
	if _, _ = answered(t, resp); !strings.HasPrefix(resp.Header.Get("Server-Timing"), "store;dur=") {
		t.Errorf("%v", resp.Header)
	}
	if out, code := run(t, filepath.Join(testkit.Programs(t), "preforkd"), "config", "print", "-c", s.Config); code != 0 || strings.Contains(out, "secret-of-redis") || strings.Contains(s.LogText(), "secret-of-redis") {
		t.Errorf("%d: the secret is shown", code)
	}
}

// TestFeaturesFaults: a store that is down, hangs, answers nonsense or refuses who asks is said in
// time; meanwhile no inference waits for it, and afterwards all is well.
func TestFeaturesFaults(t *testing.T) {
	set := digits.Load(t)
	r := startRedis(t)
	r.stored(set.Pixels[:1])
	nonsense := nonsenseAt(t)
	fields := strings.Join(pixelNames(), ", ")
	route := func(path, address, more string) string {
		return fmt.Sprintf("  /%s: {layer: async, features: {store: \"redis://%s\", key: \"hash:{d}\", model: digits, fields: [%s]%s}}\n", path, address, fields, more)
	}
	socket := filepath.Join(t.TempDir(), "admin.sock")
	s := testkit.Start(t, testkit.Options{Workers: 1, Admin: socket, Config: "routes:\n" + route("score", r.address, ", timeout: 20s, connections: 4") + route("quick", r.address, ", timeout: 60ms") + route("http", nonsense, "") +
		route("login", r.address, ", password_file: "+inFile(t, "wrong"))})
	says := func(path string, status int, words string) {
		t.Helper()
		if got, body := get(t, s.URL+path+"?d=0"); got != status || !strings.Contains(body, words) {
			t.Errorf("%s: %d %s, want %d %s", path, got, body, status, words)
		}
	}
	says("/score", 200, "label")
	says("/quick", 200, "label")
	says("/http", 502, "answered with") // HTTP where RESP is spoken
	says("/login", 502, "refused the command: ")
	kill(t, r.cmd.Process.Pid, syscall.SIGSTOP)
	says("/quick", 504, "the service behind route /quick gave no answer within 60ms (timeout of the route's features)")
	leave := waiting(t, s.URL+"/score?d=0", 4)
	if testkit.Await(func() bool { return status1(t, socket).Layers[0].Running == 4 }) != nil {
		t.Fatal("they do not wait")
	}
	says("/score", 503, "as many requests of route /score are under way as may")
	began := time.Now()
	if status, body := post(t, s.URL+"/predict", fmt.Sprintf(`{"features":%s}`, asJSON(set.Pixels[0]))); status != 200 || time.Since(began) > 10*time.Second {
		t.Errorf("a direct call beside those that wait: %d %s", status, body)
	}
	leave()
	kill(t, r.cmd.Process.Pid, syscall.SIGCONT)
	if testkit.Await(func() bool { status, _ := get(t, s.URL+"/score?d=0"); return status == 200 }) != nil {
		t.Error("it does not go on")
	}
	r.stop()
	says("/score", 502, "the service behind route /score cannot be reached: connection refused")
	r.start()
	r.stored(set.Pixels[:1])
	says("/score", 200, "label")
	if len(s.Workers()) != 1 || strings.Contains(s.LogText(), "worker died") {
		t.Error("a worker died")
	}
}

// nonsenseAt is where whoever connects is answered with HTTP at once.
func nonsenseAt(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	return ln.Addr().String()
}

func asJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// TestFeaturesOverHTTP: rows of a store that speaks HTTP; values of a request stay within their part of
// the path.
func TestFeaturesOverHTTP(t *testing.T) {
	set := digits.Load(t)
	paths := make(chan string, 100)
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		paths <- req.URL.EscapedPath() + " " + req.Header.Get("Authorization")
		switch req.URL.Path {
		case "/rows/0", "/rows/1":
			_, _ = io.WriteString(w, asJSON(set.Pixels[req.URL.Path[6]-'0']))
		case "/rows/busy":
			w.WriteHeader(503)
		case "/rows/away":
			http.Redirect(w, req, "http://127.0.0.1:1/", http.StatusFound)
		case "/rows/html":
			_, _ = io.WriteString(w, "<html>")
		default:
			http.NotFound(w, req)
		}
	}))
	defer store.Close()
	s := testkit.Start(t, testkit.Options{Workers: 1, Config: fmt.Sprintf("routes:\n  /score: {layer: async, features: {store: \"%s/rows/{d}\", model: digits, authorization_file: %s}}\n", store.URL, inFile(t, "Bearer of-the-store"))})
	if status, body := post(t, s.URL+"/score", `{"d":[0,1]}`); status != 200 || fmt.Sprint(labelsIn(body)) != fmt.Sprint(set.Answers["digits"].Labels[:2]) {
		t.Errorf("%d %s", status, body)
	}
	if got := <-paths; got != "/rows/0 Bearer of-the-store" {
		t.Error(got)
	}
	<-paths
	for query, says := range map[string]string{
		"..%2Fx%3Fy": "404 /rows/%2E%2E%2Fx%3Fy", "none": "404 /rows/none", "busy": "502 /rows/busy", "away": "502 /rows/away", "html": "502 /rows/html",
	} {
		status, body := get(t, s.URL+"/score?d="+query)
		path, _, _ := strings.Cut(<-paths, " ")
		if got := fmt.Sprint(status, " ", path); got != says {
			t.Errorf("%s: %s %s, want %s", query, got, body, says)
		}
	}
}

// TestFeaturesThatDoNotFit: rows that cannot fill the model are an error of the settings, with its line,
// when the service starts, and fail a reload.
func TestFeaturesThatDoNotFit(t *testing.T) {
	config := func(more string) string {
		return "reload: {bake: 0s, trial: 0s}\nroutes:\n  /score: {layer: async, features: {store: \"redis://127.0.0.1:1\", key: \"d:{d}\"" + more + "}}\n"
	}
	good := config(", model: digits")
	socket := filepath.Join(t.TempDir(), "admin.sock")
	s := testkit.Start(t, testkit.Options{Workers: 1, Config: good, Admin: socket})
	for more, says := range map[string]string{
		", model: digits, fields: [a, b]": `preforkd.yaml:3: routes./score.features: 2 fields, input "pixels" of model "digits" takes 64`,
		", model: digitz":                 `preforkd.yaml:3: routes./score.features: model "digitz" is not loaded`,
		", model: digits, input: x":       `model "digits" also takes the input "pixels"`,
	} {
		write(t, s.Config, config(more))
		if out, status := command(t, socket, "reload"); status != 4 || !strings.Contains(out, says) {
			t.Errorf("%s: %d %s", more, status, out)
		}
	}
	o := testkit.Options{Workers: 1, Config: config(", model: digits, fields: [a, b]")}
	cmd := o.Command(t)
	out, err := cmd.CombinedOutput()
	if exitStatus(err) != "78" || !strings.Contains(string(out), `preforkd.yaml:3: routes./score.features: 2 fields`) {
		t.Errorf("%v: %s", err, out)
	}
}

// TestCORS: pages of the origins that are named may use a route, and only it; their browsers ask
// without a token.
func TestCORS(t *testing.T) {
	u := newUpstream(t)
	s := testkit.Start(t, testkit.Options{Workers: 1, Config: fmt.Sprintf(`auth: {infer: %s}
routes:
  /named: {layer: async, proxy: "http://%[2]s", cors: {origins: ["https://app.example"], methods: [GET, PUT], headers: [X-A], expose: [X-B], credentials: true, max_age: 90s}}
  /all: {layer: async, class: docs, proxy: "http://%[2]s", cors: {origins: ["*"]}}
  /none: {layer: async, class: docs, proxy: "http://%[2]s"}
`, inFile(t, "the-token-of-these-tests"), u.address)})
	ask := func(method, path, origin string, header ...string) string {
		t.Helper()
		req, _ := http.NewRequest(method, s.URL+path, nil)
		req.Header.Set("Origin", origin)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := fresh.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = answered(t, resp)
		got := fmt.Sprint(resp.StatusCode)
		for _, name := range []string{"Allow-Origin", "Allow-Credentials", "Allow-Methods", "Allow-Headers", "Expose-Headers", "Max-Age"} {
			if v := resp.Header.Get("Access-Control-" + name); v != "" {
				got += "|" + v
			}
		}
		return got
	}
	const app, method, headers = "https://app.example", "Access-Control-Request-Method", "Access-Control-Request-Headers"
	for _, c := range []struct{ got, want string }{
		{ask("OPTIONS", "/named", app, method, "PUT", headers, "x-a"), "204|https://app.example|true|GET, PUT|X-A|X-B|90"},
		{ask("OPTIONS", "/named", app, method, "POST"), "403|https://app.example|true|X-B"},
		{ask("OPTIONS", "/named", app, method, "GET", headers, "x-a, x-c"), "403|https://app.example|true|X-B"},
		{ask("OPTIONS", "/named", "https://other.example", method, "GET"), "403"},
		{ask("GET", "/named", app), "401|https://app.example|true|X-B"},
		{ask("GET", "/named", app, "Authorization", "Bearer the-token-of-these-tests"), "200|https://app.example|true|X-B"},
		{ask("GET", "/named", "https://other.example", "Authorization", "Bearer the-token-of-these-tests"), "200"},
		{ask("OPTIONS", "/all", app, method, "GET", headers, "content-type"), "204|*|GET, HEAD, POST|Content-Type|600"},
		{ask("GET", "/all?do=middle", app), "502|*"},
		{ask("GET", "/none", app), "200"},
	} {
		if c.got != c.want {
			t.Errorf("%s, want %s", c.got, c.want)
		}
	}
}
