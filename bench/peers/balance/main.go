// Balance is a service without a queue in front of its workers, and the same with the best
// there could be. It answers GET /wait, /burn, /short, /long and /second, of which /burn uses a
// core as routes of preforkd lab do (internal/worker/lab), and the others sleep.
//
// Each process has one first-in-first-out line for its permits. With -processes N there are N of
// them, each with a socket of its own (SO_REUSEPORT): the kernel gives each connection to one of
// them, whose line it then stands in. With one process and N permits there is one line for all:
// no arrangement of N workers answers sooner.
//
//	balance -listen 127.0.0.1:9000 -processes 4
//	balance -listen 127.0.0.1:9000 -permits 4
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/reuseport"

	"preforkd/internal/worker/lab"
)

// ready is the line that says that connections are accepted.
const ready = "balance: ready"

func main() {
	listen := flag.String("listen", "127.0.0.1:9000", "address")
	processes := flag.Int("processes", 0, "how many processes with one permit each; 0: this one, with -permits")
	permits := flag.Int("permits", 1, "requests that run at once")
	flag.Parse()
	err := errors.New("permits and processes are positive numbers")
	switch {
	case *processes > 0:
		err = parent(*listen, *processes)
	case *permits > 0:
		err = serve(*listen, *permits)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "balance:", err)
		os.Exit(1)
	}
}

// parent starts n processes and ends with the first of them; they end with it.
func parent(listen string, n int) error {
	runtime.LockOSThread() // Pdeathsig is of the thread that starts them, prctl(2)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ended := make(chan error, n)
	for range n {
		cmd := exec.Command(self, "-listen", listen)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() || lines.Text() != ready {
			return fmt.Errorf("process %d says %q", cmd.Process.Pid, lines.Text())
		}
		go func() { // ends with the process
			_, _ = io.Copy(io.Discard, out)
			ended <- cmd.Wait()
		}()
	}
	fmt.Println(ready)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	select {
	case err := <-ended:
		return fmt.Errorf("a process has ended: %w", err)
	case <-signals:
		return nil
	}
}

// work is what a route does.
type work struct {
	burns bool
	lasts time.Duration
}

// spend returns how much of a core it had.
func (w work) spend() (time.Duration, error) {
	if !w.burns {
		time.Sleep(w.lasts)
		return 0, nil
	}
	trace, err := lab.Spend(lab.Burn, w.lasts, func() error { return nil })
	return trace.Used, err
}

var routes = map[string]work{
	"/wait":   {false, 10 * time.Millisecond},
	"/burn":   {true, 10 * time.Millisecond},
	"/short":  {false, time.Millisecond},
	"/long":   {false, 50 * time.Millisecond},
	"/second": {false, time.Second},
}

func serve(listen string, permits int) error {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(permits + 1) // connections are read while all permits burn
	}
	l, err := reuseport.Listen("tcp4", listen)
	if err != nil {
		return err
	}
	line := make(chan struct{}, permits) // who waits to send is served in the order of coming
	server := &fasthttp.Server{Name: "balance", Handler: func(ctx *fasthttp.RequestCtx) {
		w, ok := routes[string(ctx.Path())]
		if !ok {
			ctx.Error("not found", fasthttp.StatusNotFound)
			return
		}
		line <- struct{}{}
		used, err := w.spend()
		<-line
		if err != nil {
			ctx.Error(err.Error(), fasthttp.StatusInternalServerError)
			return
		}
		ctx.SetContentType("application/json")
		ctx.SetBodyString(`{"pid":` + strconv.Itoa(os.Getpid()) + `,"used_us":` + strconv.FormatInt(used.Microseconds(), 10) + `}`)
	}}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }() // ends with the process
	fmt.Println(ready)
	select {
	case err := <-ended:
		return err
	case <-signals:
		return nil
	}
}
