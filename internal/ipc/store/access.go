package store

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// Access is how the queue of a store is reached, by those on the same machine who may read it.
type Access struct {
	Port  int    `json:"port"`
	Token string `json:"token"`
}

// accessName is the file, of mode 0600. The port in it stays: clients that have lost their
// connection find the next broker there.
const accessName = "broker.json"

// tokenBytes is how much chance a token has.
const tokenBytes = 32

// Address is where the broker listens.
func (a Access) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(a.Port)) }

// URL is what a client of the queue connects to.
func (a Access) URL() string { return "nats://" + a.Address() }

// Prepare makes the directory, and the file with a free port and a token of chance, unless they
// are there. It returns what the file says. A port that somebody else has by now is replaced where
// no broker can be running.
func Prepare(dir string) (Access, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Access{}, fmt.Errorf("make the store of the task queue: %w", err)
	}
	a, err := Read(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return create(dir)
	case err != nil:
		return a, err
	}
	lock, held, err := tryLock(dir)
	if err != nil || held { // a broker runs, and has the port
		return a, err
	}
	defer lock.Close()
	if free(a.Port) {
		return a, nil
	}
	if a.Port, err = freePort(); err != nil {
		return a, err
	}
	return a, replace(dir, a)
}

// Read returns what the file in dir says.
func Read(dir string) (a Access, err error) {
	path := filepath.Join(dir, accessName)
	data, err := os.ReadFile(path)
	if err != nil {
		return a, fmt.Errorf("read how the task queue is reached: %w", err)
	}
	if err := json.Unmarshal(data, &a); err != nil || a.Port < 1 || a.Port > 65535 || len(a.Token) < tokenBytes {
		return a, fmt.Errorf("read how the task queue is reached: %s has no port and token; remove the file, and start the service again", path)
	}
	return a, nil
}

// create makes the file unless somebody else does first.
func create(dir string) (a Access, err error) {
	if a.Port, err = freePort(); err != nil {
		return a, err
	}
	secret := make([]byte, tokenBytes)
	_, _ = rand.Read(secret) // never fails
	a.Token = hex.EncodeToString(secret)
	temporary, err := write(dir, a)
	if err != nil {
		return a, err
	}
	defer os.Remove(temporary)
	if err := os.Link(temporary, filepath.Join(dir, accessName)); err != nil && !errors.Is(err, os.ErrExist) {
		return a, fmt.Errorf("write how the task queue is reached: %w", err)
	}
	return Read(dir)
}

func replace(dir string, a Access) error {
	temporary, err := write(dir, a)
	if err == nil {
		err = os.Rename(temporary, filepath.Join(dir, accessName))
	}
	if err != nil {
		return fmt.Errorf("write how the task queue is reached: %w", err)
	}
	return nil
}

// write writes a to a file of its own.
func write(dir string, a Access) (path string, err error) {
	f, err := os.CreateTemp(dir, accessName+".*") // with mode 0600
	if err != nil {
		return "", fmt.Errorf("write how the task queue is reached: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	err = errors.Join(json.NewEncoder(f).Encode(a), f.Sync(), f.Close())
	return f.Name(), err
}

func free(port int) bool {
	ln, err := net.Listen("tcp", Access{Port: port}.Address())
	if err == nil {
		ln.Close()
	}
	return err == nil
}

func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a port for the task queue: %w", err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

// Open is Prepare for who finds others at work: the port stays, whoever has it at the moment.
func Open(dir string) (Access, error) {
	if a, err := Read(dir); !errors.Is(err, os.ErrNotExist) {
		return a, err
	}
	return Prepare(dir)
}
