package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// answer is one request's, as its client and as its server saw it.
type answer struct {
	Sent, Done   time.Time
	Worker       string
	Began, Ended time.Time      // zero: the server did not say
	Slices       [][2]time.Time // when it was on a core
}

// answerLimit is how long an answer may take: the experiments take seconds.
const answerLimit = time.Minute

// client is one connection, and the worker that answers on it.
type client struct {
	net.Conn
	r      *bufio.Reader
	worker string
}

// request sends one request and reads its answer.
func (c *client) request(text []byte) (*http.Response, []byte, error) {
	if err := c.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return nil, nil, err
	}
	if _, err := c.Write(text); err != nil {
		return nil, nil, err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, strings.TrimSpace(string(body)))
	}
	return resp, body, err
}

// workerHeader says who has answered.
const workerHeader = "X-Preforkd-Worker"

// mostDials bounds how often it is tried to meet a worker that has not got its share.
const mostDials = 2000

// connect opens n connections to socket, as many to each of that many workers: kernels and
// workers share connections out as it comes, and these experiments are about what follows.
func connect(ctx context.Context, socket string, n, workers int) (clients []*client, err error) {
	met := map[string]int{}
	each := (n + workers - 1) / workers
	defer func() {
		if err != nil {
			hangUp(clients)
			clients = nil
		}
	}()
	var dialer net.Dialer
	for range mostDials {
		if len(clients) == n {
			return clients, nil
		}
		conn, err := dialer.DialContext(ctx, "unix", socket)
		if err != nil {
			return clients, err
		}
		c := &client{Conn: conn, r: bufio.NewReader(conn)}
		resp, _, err := c.request([]byte("GET /healthz HTTP/1.1\r\nHost: lab\r\n\r\n"))
		if err != nil {
			conn.Close()
			return clients, fmt.Errorf("ask who answers: %w", err)
		}
		if c.worker = resp.Header.Get(workerHeader); met[c.worker] == each {
			conn.Close()
			continue
		}
		met[c.worker]++
		clients = append(clients, c)
	}
	return clients, fmt.Errorf("%d workers were met, not %d: %v", len(met), workers, met)
}

func hangUp(clients []*client) {
	for _, c := range clients {
		c.Close()
	}
}

// burst sends one request on each connection at one moment, and returns the answers by when they
// came.
func burst(clients []*client, request []byte) ([]answer, error) {
	answers, failed := make([]answer, len(clients)), make([]error, len(clients))
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i, c := range clients {
		all.Go(func() {
			<-begin
			answers[i], failed[i] = c.ask(request)
		})
	}
	close(begin)
	all.Wait()
	slices.SortFunc(answers, func(a, b answer) int { return a.Done.Compare(b.Done) })
	return answers, errors.Join(failed...)
}

// ask is request for an experiment: the answer says what the server did.
func (c *client) ask(request []byte) (a answer, err error) {
	a.Sent = time.Now()
	resp, body, err := c.request(request)
	a.Done = time.Now()
	if err != nil {
		return a, err
	}
	a.Worker = resp.Header.Get(workerHeader)
	var said struct {
		Began  int64      `json:"began_us"`
		Ended  int64      `json:"ended_us"`
		Slices [][2]int64 `json:"slices_us"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return a, fmt.Errorf("the answer is no JSON: %w", err)
	}
	if said.Began > 0 {
		a.Began, a.Ended = time.UnixMicro(said.Began), time.UnixMicro(said.Ended)
		for _, s := range said.Slices {
			a.Slices = append(a.Slices, [2]time.Time{time.UnixMicro(s[0]), time.UnixMicro(s[1])})
		}
		return a, nil
	}
	a.timing(resp.Header.Get("Server-Timing"))
	return a, nil
}

// timing reads when a model ran: it was in the engine last.
func (a *answer) timing(header string) {
	for part := range strings.SplitSeq(header, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), ";dur=")
		if d, err := time.ParseDuration(value + "ms"); err == nil && name == "engine" {
			a.Began, a.Ended = a.Done.Add(-d), a.Done
			a.Slices = [][2]time.Time{{a.Began, a.Ended}}
		}
	}
}
