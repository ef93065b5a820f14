// Upstream is a service behind a route of preforkd: it answers every request after a time, whatever
// is asked. It reads no more of HTTP than where a request without a body ends, so that it costs as
// little as it can beside what is measured.
//
//	upstream -listen 127.0.0.1:9000 -after 1s
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9000", "address")
	after := flag.Duration("after", time.Second, "how long an answer takes")
	flag.Parse()
	if err := run(*listen, *after); err != nil {
		fmt.Fprintln(os.Stderr, "upstream:", err)
		os.Exit(1)
	}
}

func run(listen string, after time.Duration) error {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, os.Interrupt)
	go func() { // ends with the process
		<-ended
		_ = ln.Close()
	}()
	fmt.Println("upstream ready on", ln.Addr())
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go serve(c, after)
	}
}

var answer = []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"ok\":true}")

var buffers = sync.Pool{New: func() any { b := make([]byte, 4<<10); return &b }}

func serve(c net.Conn, after time.Duration) {
	defer c.Close()
	for read(c) == nil {
		time.Sleep(after)
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// read reads one request.
func read(c net.Conn) error {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	for n := 0; n < len(*b); {
		m, err := c.Read((*b)[n:])
		if n += m; bytes.HasSuffix((*b)[:n], []byte("\r\n\r\n")) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrShortBuffer
}
