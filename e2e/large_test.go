package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"preforkd/internal/testkit"
)

// maxBody is http.max_body, and fewMegabytes what its refusal may cost a worker: a body in
// chunks is copied as it grows, and the race detector multiplies what it watches.
const (
	maxBody      = 1 << 20
	fewMegabytes = 32 << 20
)

// TestLargeBodies sends a hundred megabytes, with a length and in chunks, and announces much
// more: each gets 413, from a worker that lives on and keeps no memory for it.
func TestLargeBodies(t *testing.T) {
	s := testkit.Start(t, testkit.Options{Workers: 1, Set: []string{"predict.model=digits", "http.max_body=1MiB"}})
	workers := s.Workers()
	const large, chunk = 100 << 20, 64 << 10
	block := bytes.Repeat([]byte(" "), chunk)
	whole := func(w io.Writer) error {
		for range large / chunk {
			if _, err := w.Write(block); err != nil {
				return err
			}
		}
		return nil
	}
	chunks := func(w io.Writer) error {
		for range large / chunk {
			if _, err := fmt.Fprintf(w, "%x\r\n%s\r\n", chunk, block); err != nil {
				return err
			}
		}
		_, err := io.WriteString(w, "0\r\n\r\n")
		return err
	}
	nothing := func(io.Writer) error { return nil }
	for _, c := range []struct {
		name, header string
		clients      int
		send         func(io.Writer) error
	}{
		{"with a length", fmt.Sprintf("Content-Length: %d", large), 1, whole},
		{"with lengths of a gigabyte", "Content-Length: 1073741824", 64, nothing},
		{"with a length and Expect", fmt.Sprintf("Content-Length: %d\r\nExpect: 100-continue", large), 1, nothing},
		{"in chunks", "Transfer-Encoding: chunked", 1, chunks},
		{"with a chunk of a gigabyte", "Transfer-Encoding: chunked", 64, func(w io.Writer) error {
			_, err := io.WriteString(w, "40000000\r\n")
			return err
		}},
	} {
		resident, mapped := memory(t, workers[0], "VmHWM"), memory(t, workers[0], "VmPeak")
		var wg sync.WaitGroup
		for range c.clients {
			wg.Go(func() { tooLarge(t, s, c.name, c.header, c.send) })
		}
		wg.Wait()
		if got := memory(t, workers[0], "VmHWM") - resident; got > fewMegabytes {
			t.Errorf("%s: the worker took %d bytes of memory", c.name, got)
		}
		// What nobody has written to is not resident: 64 bodies of a gigabyte would show here.
		if got := memory(t, workers[0], "VmPeak") - mapped; got > 4<<30 {
			t.Errorf("%s: the worker reserved %d bytes", c.name, got)
		}
	}
	if status, text := post(t, s.URL+"/predict", body(sample)); status != 200 {
		t.Errorf("afterwards: %d %s", status, text)
	}
	if got := s.Workers(); fmt.Sprint(got) != fmt.Sprint(workers) {
		t.Errorf("worker %v died, %v serves", workers, got)
	}
}

// tooLarge sends a request and demands 413. As any client may, it reads while it sends.
func tooLarge(t *testing.T, s *testkit.Service, name, header string, send func(io.Writer) error) {
	c, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	sent := make(chan struct{})
	go func() { // ends with the connection at the latest
		defer close(sent)
		if _, err := io.WriteString(c, "POST /predict HTTP/1.1\r\nHost: x\r\n"+header+"\r\n\r\n"); err == nil {
			_ = send(c) // the service need not read all of it
		}
	}()
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 413 ") {
		t.Errorf("%s: %q, %v", name, line, err)
		return
	}
	rest, err := io.ReadAll(r) // the service closes
	if !strings.Contains(string(rest), strconv.Itoa(maxBody)) {
		t.Errorf("%s: %q, %v does not name the limit", name, rest, err)
	}
	c.Close()
	<-sent
}

// memory returns a line of /proc/PID/status (proc_pid_status(5)) in bytes.
func memory(t *testing.T, pid int, key string) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "\n"+key+":")
	fields := strings.Fields(rest)
	if len(fields) < 2 || fields[1] != "kB" {
		t.Fatalf("%s is not in\n%s", key, data)
	}
	n, err := strconv.Atoi(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}
