package activation

import (
	"io"
	"net"
	"testing"
)

// TestFewClosesWhatIsTooMany: the connection beyond the bound is closed, and one that ends
// makes room.
func TestFewClosesWhatIsTooMany(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	few := Few(ln, 2)
	accepted := make(chan net.Conn)
	go func() { // ends with the listener
		defer close(accepted)
		for {
			c, err := few.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b := dial(), dial()
	first, second := <-accepted, <-accepted
	third := dial()
	if n, err := third.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the third read %d, %v", n, err)
	}
	first.Close()
	first.Close() // counts once
	fourth := dial()
	last := <-accepted
	fifth := dial()
	if _, err := fifth.Read(make([]byte, 1)); err == nil || err == io.ErrNoProgress {
		t.Errorf("the fifth: %v", err)
	}
	few.Close()
	for range accepted {
		t.Error("one was accepted beyond the bound")
	}
	for _, c := range []net.Conn{a, b, second, third, fourth, last, fifth} {
		c.Close()
	}
}
