package supervisor

import (
	"fmt"
	"slices"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
)

// listen binds, or finds among the inherited sockets, every address.
func listen(addresses []config.Address, warn func(string, ...any)) ([]*activation.Socket, error) {
	inherited, err := activation.Inherited()
	if err != nil {
		return nil, &ipc.Failure{Exit: ipc.ExitUnavailable, What: err.Error(), Err: err, Try: "check the socket unit, or whoever sets LISTEN_FDS"}
	}
	var sockets []*activation.Socket
	fail := func(err error) ([]*activation.Socket, error) {
		for _, sock := range append(sockets, inherited.Sockets...) {
			_ = sock.Close()
		}
		return nil, err
	}
	for _, a := range addresses {
		if a.Network == "fd" { // a socket unit may give several sockets one name
			before := len(sockets)
			inherited.Sockets = slices.DeleteFunc(inherited.Sockets, func(sock *activation.Socket) bool {
				if sock.Name != a.Addr {
					return false
				}
				sockets = append(sockets, sock)
				return true
			})
			if len(sockets) == before {
				return fail(&ipc.Failure{
					Exit: ipc.ExitUnavailable, What: fmt.Sprintf("listen on fd:%s: no socket of that name was inherited", a.Addr),
					Try: "set FileDescriptorName=" + a.Addr + " in the socket unit, or set listen to an address",
				})
			}
			continue
		}
		sock, err := activation.Bind(activation.Spec{Network: a.Network, Address: a.Addr, Mode: a.Mode, Owner: a.Owner, Group: a.Group})
		if err != nil {
			return fail(err)
		}
		sock.Name = "http"
		sockets = append(sockets, sock)
	}
	for _, sock := range inherited.Sockets {
		warn("inherited socket not used: no listen entry names it", "name", sock.Name, "address", sock.Address)
		_ = sock.Close()
	}
	return sockets, nil
}
