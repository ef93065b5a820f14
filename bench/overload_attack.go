package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"preforkd/internal/load"
)

// target is what is attacked.
type target struct {
	ours                   bool
	address                string
	infer, predict, health string // paths
}

// attack is something that clients do to a service while a bystander looks on.
type attack struct {
	name     string
	settings string // preforkd's
	conns    int    // that it must be seen to have at once
	needs    func() error
	// run attacks until ctx ends, which is before limit, and says what came of it.
	run func(ctx context.Context, l *lab, t target, limit time.Duration) (string, error)
}

const (
	largeAttack  = "100 MB bodies, 2 clients"
	largeBody    = 100_000_000
	numbersBody  = 20_000_000
	slowMany     = 1000
	truncations  = 2000 // a second
	truncateEach = 10 * time.Millisecond
)

var attacks = []attack{
	{name: "nothing", run: func(ctx context.Context, _ *lab, _ target, _ time.Duration) (string, error) {
		<-ctx.Done()
		return "", nil
	}},
	{
		name: "1,000 slow headers", conns: slowMany * 9 / 10, needs: slowNeeds,
		run: func(ctx context.Context, _ *lab, t target, limit time.Duration) (string, error) {
			return slowly(ctx, limit, "-H", "-u", "http://"+t.address+t.health)
		},
	},
	{
		name: "1,000 slow bodies", conns: slowMany * 9 / 10, needs: slowNeeds,
		run: func(ctx context.Context, _ *lab, t target, limit time.Duration) (string, error) {
			return slowly(ctx, limit, "-B", "-s", "8192", "-t", "POST", "-f", textType, "-u", "http://"+t.address+t.predict)
		},
	},
	{
		name: largeAttack,
		run: func(ctx context.Context, _ *lab, t target, _ time.Duration) (string, error) {
			return posts(ctx, t, t.predict, bytes.Repeat([]byte{' '}, largeBody))
		},
	},
	{
		name: "20 MB of JSON numbers, 2 clients", settings: "http: {max_body: 32MiB}\n",
		run: func(ctx context.Context, _ *lab, t target, _ time.Duration) (string, error) {
			return posts(ctx, t, t.infer, numbers(numbersBody))
		},
	},
	{
		name: "2,000 truncated bodies a second",
		run: func(ctx context.Context, l *lab, t target, _ time.Duration) (string, error) {
			return truncated(ctx, t, inferBody(&l.samples[0]))
		},
	},
}

func slowNeeds() error {
	if _, err := exec.LookPath("slowhttptest"); err != nil {
		return errors.New("try: apt-get install slowhttptest")
	}
	return nil
}

// slowly runs slowhttptest, whose connections are there within 2 s, and again whenever the
// service has closed all of them, which ends it.
func slowly(ctx context.Context, limit time.Duration, args ...string) (string, error) {
	args = append([]string{
		"-c", `ulimit -n "$(ulimit -Hn)"; exec "$@"`, "sh", "slowhttptest", "-c", strconv.Itoa(slowMany), "-r", "500", "-i", "5", "-x", "24", "-p", "3",
		"-l", strconv.Itoa(int(limit.Seconds())), "-v", "1",
	}, args...)
	for n := 1; ; n++ {
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, "/bin/sh", args...)
		cmd.Stdout, cmd.Stderr = &out, &out
		begun := time.Now()
		err := cmd.Run()
		switch {
		case ctx.Err() != nil && n == 1:
			return "kept open", nil
		case ctx.Err() != nil:
			return fmt.Sprintf("all closed, %d ×", n-1), nil
		case err != nil || time.Since(begun) < time.Second: // it connects to nobody
			return "", fmt.Errorf("slowhttptest ended after %v (%v):\n%s", time.Since(begun), err, out.Bytes()[:min(out.Len(), 1000)])
		}
	}
}

// posts sends the same body over and over, from two clients.
func posts(ctx context.Context, t target, path string, body []byte) (string, error) {
	g, err := load.New(load.Options{
		Addr: t.address, Conns: 2, Keepalive: true, Request: load.Post(path, textType, body), Timeout: time.Minute, Pause: -1,
	})
	if err != nil {
		return "", err
	}
	r, err := g.Run(ctx)
	if err != nil {
		return "", err
	}
	var parts []string
	for _, status := range slices.Sorted(maps.Keys(r.Statuses)) {
		parts = append(parts, fmt.Sprintf("%d × %d", r.Statuses[status], status))
	}
	for class, n := range r.Failures {
		if class := load.Class(class); n > 0 && class != load.Status {
			parts = append(parts, fmt.Sprintf("%d %v", n, class))
		}
	}
	if len(parts) == 0 {
		return "nothing", nil
	}
	return strings.Join(parts, ", "), nil
}

// numbers is a valid request for digits with rows of 64 numbers, about so many bytes.
func numbers(size int) []byte {
	row := strings.TrimSuffix(strings.Repeat("0.0,1.0,12.0,16.0,", 16), ",")
	rows := size / (len(row) + 1)
	head := fmt.Sprintf(`{"inputs":[{"name":"pixels","shape":[%d,64],"datatype":"FP32","data":[`, rows)
	data := strings.Repeat(row+",", rows)
	return []byte(head + strings.TrimSuffix(data, ",") + "]}]}")
}

// truncated sends requests whose bodies end in the middle, each on a connection of its own.
func truncated(ctx context.Context, t target, body []byte) (string, error) {
	request := load.Post(t.predict, textType, body)
	request = request[:len(request)-len(body)/2]
	var sent, failed atomic.Int64
	var all sync.WaitGroup
	due := make(chan struct{}, truncations)
	for range 16 { // a dial waits for a service that accepts nobody
		all.Go(func() {
			dialer := net.Dialer{Timeout: time.Second}
			for range due {
				c, err := dialer.DialContext(ctx, "tcp", t.address)
				if err != nil {
					failed.Add(1)
					continue
				}
				if _, err = c.Write(request); err != nil {
					failed.Add(1)
				} else {
					sent.Add(1)
				}
				_ = c.Close()
			}
		})
	}
	begun, n := time.Now(), 0
	for tick := time.NewTicker(truncateEach); ctx.Err() == nil; {
		select {
		case <-ctx.Done():
			tick.Stop()
		case <-tick.C:
			for owed := int(time.Since(begun).Seconds() * truncations); n < owed; n++ {
				select {
				case due <- struct{}{}:
				default: // all are busy: it is not sent later
				}
			}
		}
	}
	close(due)
	all.Wait()
	took := time.Since(begun).Seconds()
	return fmt.Sprintf("%.0f a second sent, %.0f failed", float64(sent.Load())/took, float64(failed.Load())/took), nil
}
