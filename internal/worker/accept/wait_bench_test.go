package accept

import (
	"testing"

	"golang.org/x/sys/unix"
)

// processorTime is what this process has used, in microseconds.
func processorTime(b *testing.B) float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e3
}

// BenchmarkMoved has a request read where it comes, or moved to another worker each time: the
// difference is what a move costs both and the kernel. Client and workers are one process.
func BenchmarkMoved(b *testing.B) {
	for _, moved := range []bool{false, true} {
		name := map[bool]string{false: "here", true: "moved"}[moved]
		b.Run(name, func(b *testing.B) {
			c := newCounter(b, "tcp")
			clerks := []*clerk{c.clerk(b, "0", 1, Options{}, true)}
			cl := connect(b, c.ln.Addr())
			cl.ask(b, posted("x", 100), "0", "100 queued=false")
			clerks = append(clerks, c.clerk(b, "1", 1, Options{}, false))
			text, at := posted("x", 100), 0
			<-clerks[1].permits
			before := processorTime(b)
			for b.Loop() {
				if moved {
					clerks[1-at].permits.Release(0)
					<-clerks[at].permits
					at = 1 - at
				}
				if err := cl.send(text); err != nil {
					b.Fatal(err)
				}
				if a, err := cl.receive(); err != nil || a.worker != []string{"0", "1"}[at] {
					b.Fatal(a, err)
				}
			}
			b.ReportMetric((processorTime(b)-before)/float64(b.N), "cpu-µs/op")
			clerks[1-at].permits.Release(0)
		})
	}
}

// BenchmarkTrivial is a request that needs no permit, with the queue and without.
func BenchmarkTrivial(b *testing.B) {
	for _, queue := range []bool{false, true} {
		b.Run(map[bool]string{false: "without", true: "with"}[queue], func(b *testing.B) {
			c := newCounter(b, "tcp")
			if queue {
				c.clerk(b, "a", 1, Options{}, true)
			} else {
				c.start(b, "a", Options{}, true)
			}
			cl := connect(b, c.ln.Addr())
			before := processorTime(b)
			for b.Loop() {
				cl.must(b, "/echo/x")
			}
			b.ReportMetric((processorTime(b)-before)/float64(b.N), "cpu-µs/op")
		})
	}
}
