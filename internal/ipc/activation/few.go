package activation

import (
	"net"
	"sync"
)

// Few returns a listener on ln, which it owns, that closes connections beyond most at
// once: for listeners of operators, where a program that opens connections without end
// must not take the process's descriptors. It is safe for concurrent use.
func Few(ln net.Listener, most int) net.Listener { return &few{Listener: ln, most: most} }

type few struct {
	net.Listener
	most int
	mu   sync.Mutex // guards open
	open int
}

func (l *few) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.mu.Lock()
		full := l.open == l.most
		if !full {
			l.open++
		}
		l.mu.Unlock()
		if !full {
			return &counted{Conn: c, release: sync.OnceFunc(l.release)}, nil
		}
		c.Close()
	}
}

func (l *few) release() {
	l.mu.Lock()
	l.open--
	l.mu.Unlock()
}

type counted struct {
	net.Conn
	release func()
}

func (c *counted) Close() error {
	c.release()
	return c.Conn.Close()
}
