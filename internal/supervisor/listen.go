package supervisor

import (
	"fmt"
	"slices"
	"strings"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
)

// boundSocket is a listening socket and the setting that asked for it.
type boundSocket struct {
	*activation.Socket
	from config.Address
	key  string // under which the main process keeps it; empty: not yet
}

// listen returns sockets for every address: one of have where it is there, an inherited
// one, or a new one.
func listen(addresses []config.Address, have []boundSocket, inherited *activation.Inheritance, warn func(string, ...any)) ([]boundSocket, error) {
	var err error
	var sockets, made []boundSocket
	fail := func(err error) ([]boundSocket, error) {
		for _, sock := range made {
			_ = sock.Close()
		}
		for _, sock := range inherited.Sockets {
			_ = sock.Close()
		}
		return nil, err
	}
	for _, a := range addresses {
		found := slices.Collect(func(yield func(boundSocket) bool) {
			for _, h := range have {
				if h.from.Bound() != a.Bound() {
					continue
				}
				if h.from = a; !yield(h) { // what is spoken there may change
					return
				}
			}
		})
		if len(found) == 0 {
			if found, err = open(a, inherited); err != nil {
				return fail(err)
			}
			made = append(made, found...)
		}
		sockets = append(sockets, found...)
	}
	for _, sock := range inherited.Sockets {
		warn("inherited socket not used: no listen entry names it", "name", sock.Name, "address", sock.Address)
		_ = sock.Close()
	}
	return sockets, nil
}

// open binds a, or takes the inherited sockets that it names: a socket unit may give
// several one name.
func open(a config.Address, in *activation.Inheritance) ([]boundSocket, error) {
	if a.Network != "fd" {
		sock, err := activation.Bind(activation.Spec{Network: a.Network, Address: a.Addr, Mode: a.Mode, Owner: a.Owner, Group: a.Group})
		if err != nil {
			return nil, err
		}
		sock.Name = "http"
		return []boundSocket{{Socket: sock, from: a}}, nil
	}
	var found []boundSocket
	in.Sockets = slices.DeleteFunc(in.Sockets, func(sock *activation.Socket) bool {
		if sock.Name != a.Addr {
			return false
		}
		found = append(found, boundSocket{Socket: sock, from: a})
		return true
	})
	if len(found) == 0 {
		return nil, &ipc.Failure{
			Exit: ipc.ExitUnavailable, What: fmt.Sprintf("listen on fd:%s: no socket of that name was inherited", a.Addr),
			Try: "set FileDescriptorName=" + a.Addr + " in the socket unit, or set listen to an address",
		}
	}
	return found, nil
}

// inherited returns the sockets that the service manager gave, once: what no entry of addresses
// names is closed, here if it is no listening socket, else by listen.
func (s *Supervisor) inherited(addresses []config.Address) (*activation.Inheritance, error) {
	in, err := activation.Inherited() // without a main process
	if err != nil {
		return nil, &ipc.Failure{Exit: ipc.ExitUnavailable, What: err.Error(), Err: err, Try: "check the socket unit, or whoever sets LISTEN_FDS"}
	}
	names := s.opts.Main.names(ipc.KeptInherited)
	slices.Sort(names) // by their numbers
	for _, kept := range names {
		_, name, _ := strings.Cut(strings.TrimPrefix(kept, ipc.KeptInherited), "/")
		sock, err := activation.Adopt(s.opts.Main.take(kept), name)
		s.keeper.remove(kept)
		wanted := slices.ContainsFunc(addresses, func(a config.Address) bool { return a.Network == "fd" && a.Addr == name })
		switch {
		case err == nil:
			in.Sockets = append(in.Sockets, sock)
		case wanted:
			return nil, &ipc.Failure{Exit: ipc.ExitUnavailable, What: err.Error(), Err: err, Try: "check the socket unit, or whoever sets LISTEN_FDS: it needs ListenStream="}
		default:
			s.log.Warn("inherited descriptor not used: no listen entry names it", "name", name, "err", err)
		}
	}
	return in, nil
}
