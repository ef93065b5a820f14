package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"preforkd/bench/proc"
	"preforkd/internal/load"
)

// ioBeyond is what a request to a route features may take beyond its parts, in µs.
const ioBeyond = 100.0

// featureRun is one round of io-features; times are p50, in µs.
type featureRun struct {
	Round  int     `json:"round"`
	Awake  bool    `json:"awake"`     // no core slept
	Redis  float64 `json:"redis_us"`  // a round trip
	Direct float64 `json:"direct_us"` // the model with the row in the request
	Route  float64 `json:"route_us"`  // the model with the row in Redis
}

func (r *featureRun) beyond() float64 { return r.Route - r.Redis - r.Direct }

// featureRuns is the raw data of io-features.
type featureRuns struct {
	Rounds int           `json:"rounds"`
	Runs   []*featureRun `json:"runs"`
}

// ioFeatures compares a model whose row is in Redis with a round trip to it and a model whose row is in
// the request.
func ioFeatures(ctx context.Context, l *lab) (*result, error) {
	redis, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errors.New("redis-server is not installed, which this measures: apt-get install redis-server")
	}
	version, err := preforkd.prepare(ctx, l)
	if err != nil {
		return nil, err
	}
	said, err := l.output(ctx, redis, "--version")
	if err != nil {
		return nil, err
	}
	raw := &featureRuns{Rounds: l.times(5)}
	for round := range raw.Rounds {
		for _, awake := range []bool{true, false} {
			r, err := l.featured(ctx, redis, awake)
			if err != nil {
				return nil, err
			}
			r.Round = round
			l.say("round %d of %d: cores %s: Redis %.0f µs, direct %.0f µs, route %.0f µs: %.0f µs beyond", round+1, raw.Rounds, r.cores(), r.Redis, r.Direct, r.Route, r.beyond())
			raw.Runs = append(raw.Runs, r)
		}
	}
	t := table{head: []string{"round", "cores", "Redis round trip p50 µs", "direct call p50 µs", "route p50 µs", "beyond both µs"}}
	var beyond []float64
	for _, r := range raw.Runs {
		t.add(fmt.Sprint(r.Round+1), r.cores(), digits(r.Redis), digits(r.Direct), digits(r.Route), digits(r.beyond()))
		if r.Awake {
			beyond = append(beyond, r.beyond())
		}
	}
	return &result{
		Title:  "A route features: a row of 64 numbers in Redis, model digits, one client, 2 workers",
		Tables: []table{t},
		Goals:  []goal{goal{Text: "p50 beyond a round trip to Redis and a direct call, cores awake", Limit: ioBeyond, AtMost: true, Unit: " µs", Values: beyond}.judge()},
		Notes: []string{
			"preforkd: " + version, strings.TrimSpace(said),
			"one request after the other on one connection; the round trip is HMGET of the same 64 fields by a client that does nothing else; the direct call is POST /v2/models/digits/infer with the same row in JSON",
			"cores awake: a program of the class SCHED_IDLE, which everything else preempts, keeps each core busy. Otherwise a core sleeps between two requests of one client, and how long it takes to wake up, on a virtual machine some hundred µs, is most of what is measured: once more for each process that a request visits",
		},
		Raw: raw,
	}, nil
}

func (r *featureRun) cores() string {
	if r.Awake {
		return "awake"
	}
	return "as they are"
}

// stayAwake keeps all cores busy with what everything else preempts (sched(7)), until stop.
func (l *lab) stayAwake() (stop func(), err error) {
	var all []*proc.Proc
	stop = func() {
		for _, p := range all {
			p.Stop(goodbye)
		}
	}
	for i := range l.machine.Cores {
		p, err := proc.Start(proc.Spec{
			Name: fmt.Sprint("awake ", i), Dir: l.dir, Log: filepath.Join(l.dir, "logs", "awake.log"),
			Args: []string{"chrt", "--idle", "0", "sh", "-c", "while :; do :; done"},
		})
		if err != nil {
			stop()
			return nil, err
		}
		all = append(all, p)
	}
	return stop, nil
}

// featured is one round.
func (l *lab) featured(ctx context.Context, redis string, awake bool) (*featureRun, error) {
	if awake {
		stop, err := l.stayAwake()
		if err != nil {
			return nil, err
		}
		defer stop()
	}
	port, err := proc.FreePort()
	if err != nil {
		return nil, err
	}
	store := "127.0.0.1:" + strconv.Itoa(port)
	server, err := proc.Start(proc.Spec{
		Name: "redis", Dir: l.dir, Log: filepath.Join(l.dir, "logs", "redis.log"),
		Args: []string{redis, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"},
	})
	if err != nil {
		return nil, err
	}
	defer server.Stop(goodbye)
	c, err := dialRedis(ctx, server, store)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var row []json.Number
	if err := json.Unmarshal([]byte(l.samples[0].pixels), &row); err != nil {
		return nil, err
	}
	var names []string
	set, get := []string{"HSET", "digit:1"}, []string{"HMGET", "digit:1"}
	for i, v := range row {
		name := fmt.Sprintf("p%02d", i)
		names, set, get = append(names, name), append(set, name, v.String()), append(get, name)
	}
	if err := c.do(set, 1); err != nil {
		return nil, err
	}
	s, err := l.stand(ctx, "io features", fmt.Sprintf("routes:\n  /score: {layer: async, features: {store: \"redis://%s\", key: \"digit:{digit}\", fields: [%s], model: digits}}\n", store, strings.Join(names, ", ")),
		modelFile{"digits", filepath.Join(l.root, "models", "digits"), ""})
	if err != nil {
		return nil, err
	}
	defer s.end()
	direct := fmt.Appendf(nil, `{"inputs":[{"name":"pixels","shape":[1,64],"datatype":"FP32","data":%s}]}`, l.samples[0].pixels)
	r, parts := &featureRun{Awake: awake}, [3][]float64{}
	// In turns, and each often: how fast an idle core wakes up changes from second to second.
	for range of(&l.options, featureTurns, 2) {
		for i, measure := range []func() (float64, error){
			func() (float64, error) { return c.p50(get, 1+2*len(names), featureTurn) },
			func() (float64, error) {
				return l.single(ctx, s, load.Post(inferPath("digits"), "application/json", direct))
			},
			func() (float64, error) { return l.single(ctx, s, load.Get("/score?digit=1")) },
		} {
			us, err := measure()
			if err != nil {
				return nil, err
			}
			parts[i] = append(parts[i], us)
		}
	}
	r.Redis, r.Direct, r.Route = median(parts[0]), median(parts[1]), median(parts[2])
	return r, nil
}

// How often and how long each part is measured in a round.
const (
	featureTurns = 15
	featureTurn  = 300 * time.Millisecond
)

// single returns the p50 of one request after the other, in µs.
func (l *lab) single(ctx context.Context, s *standing, request []byte) (float64, error) {
	right := []byte(`"data":[` + strconv.Itoa(l.samples[0].label) + `]`)
	v, err := l.loaded(ctx, s, load.Options{Addr: s.address, Keepalive: true, Request: request, Warmup: featureTurn / 6, Duration: featureTurn, Check: func(_ int, body []byte) error {
		if !bytes.Contains(body, right) {
			return fmt.Errorf("another answer than the sample's: %.200q", body)
		}
		return nil
	}})
	if err != nil {
		return 0, err
	}
	return micros(v.Report.Latency.P50), nil
}

// redisConn is a client of Redis that does one thing after the other.
type redisConn struct {
	net.Conn
	in *bufio.Reader
}

func dialRedis(ctx context.Context, server *proc.Proc, address string) (*redisConn, error) {
	var c *redisConn
	err := server.AwaitReady(ctx, func() error {
		nc, err := net.Dial("tcp", address)
		if err == nil {
			c = &redisConn{nc, bufio.NewReader(nc)}
		}
		return err
	})
	return c, err
}

// do sends a command whose reply has so many lines.
func (c *redisConn) do(words []string, lines int) error {
	_, err := c.Write(command(words))
	for range lines {
		if err == nil {
			err = c.line()
		}
	}
	return err
}

func (c *redisConn) line() error {
	line, err := c.in.ReadSlice('\n')
	if err == nil && line[0] == '-' {
		return fmt.Errorf("redis: %s", bytes.TrimSpace(line))
	}
	return err
}

func command(words []string) []byte {
	b := fmt.Appendf(nil, "*%d\r\n", len(words))
	for _, w := range words {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b
}

// p50 sends a command for that long and returns the middle of how long one takes, in µs.
func (c *redisConn) p50(words []string, lines int, lasts time.Duration) (float64, error) {
	text := command(words)
	var took []time.Duration
	for end := time.Now().Add(lasts); time.Now().Before(end); {
		began := time.Now()
		if _, err := c.Write(text); err != nil {
			return 0, err
		}
		for range lines {
			if err := c.line(); err != nil {
				return 0, err
			}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return micros(took[len(took)/2]), nil
}
