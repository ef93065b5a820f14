package worker

import (
	"bytes"
	"fmt"
	"io"
	"sync/atomic"
)

// logQueue is how many records wait for the writer.
const logQueue = 1024

// logWriter writes log records from one goroutine, so that nobody who logs waits for
// the reader of this process's output. When the queue is full, records are dropped
// and counted.
type logWriter struct {
	queue   chan []byte
	done    chan struct{}
	dropped atomic.Int64
}

func newLogWriter(to io.Writer) *logWriter {
	l := &logWriter{queue: make(chan []byte, logQueue), done: make(chan struct{})}
	go l.run(to)
	return l
}

// Write queues one record. It never blocks and never fails.
func (l *logWriter) Write(p []byte) (int, error) {
	select {
	case l.queue <- bytes.Clone(p):
	default:
		l.dropped.Add(1)
	}
	return len(p), nil
}

// Close writes what is queued and ends the writer. Nobody may log afterwards.
func (l *logWriter) Close() {
	close(l.queue)
	<-l.done
}

func (l *logWriter) run(to io.Writer) {
	defer close(l.done)
	for p := range l.queue {
		if n := l.dropped.Swap(0); n > 0 {
			fmt.Fprintf(to, `{"level":"WARN","msg":"log records dropped","count":%d}`+"\n", n)
		}
		_, _ = to.Write(p) // the reader is gone: so is the place to say it
	}
}
