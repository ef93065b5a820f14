package process

import (
	"bytes"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxLine is the longest line delivered, in bytes; a longer one comes in pieces.
const maxLine = 16 << 10

// output delivers what a worker writes, line by line.
type output struct {
	fd   int
	file *os.File
	line func(string)
	buf  []byte
	done chan struct{}
}

func newOutput(fd int, line func(string)) *output {
	return &output{fd: fd, file: pollable(fd, "output"), line: line, done: make(chan struct{})}
}

// read delivers lines until end-of-file, or until finish sets a deadline.
func (o *output) read() {
	defer close(o.done)
	chunk := make([]byte, 32<<10)
	for {
		n, err := o.file.Read(chunk)
		o.take(chunk[:n])
		if err != nil {
			return
		}
	}
}

// finish delivers what is left in the pipe and closes it. The worker has ended, but a
// process that it left behind may hold the other end, so end-of-file may never come.
func (o *output) finish() {
	_ = o.file.SetReadDeadline(time.Unix(1, 0))
	<-o.done
	chunk := make([]byte, 32<<10)
	for {
		n, err := unix.Read(o.fd, chunk)
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			break
		}
		o.take(chunk[:n])
	}
	if len(o.buf) > 0 {
		o.deliver(o.buf)
	}
	o.file.Close()
}

func (o *output) take(data []byte) {
	for len(data) > 0 {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			o.buf = append(o.buf, data...)
			for len(o.buf) > maxLine {
				o.deliver(o.buf[:maxLine])
				o.buf = append(o.buf[:0], o.buf[maxLine:]...)
			}
			return
		}
		if len(o.buf) == 0 {
			o.deliver(data[:i])
		} else {
			o.buf = append(o.buf, data[:i]...)
			o.deliver(o.buf)
			o.buf = o.buf[:0]
		}
		data = data[i+1:]
	}
}

func (o *output) deliver(line []byte) {
	for len(line) > maxLine {
		o.line(strings.ToValidUTF8(string(line[:maxLine]), "\uFFFD"))
		line = line[maxLine:]
	}
	o.line(strings.ToValidUTF8(strings.TrimSuffix(string(line), "\r"), "\uFFFD"))
}
