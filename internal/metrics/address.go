package metrics

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"wireguard4netns/internal/unixsocket"
)

// ErrAddress: anybody could read it there, or it is no address.
var ErrAddress = errors.New("neither unix:PATH nor a loopback address and a port")

// A socket's address holds 108 bytes (unix(7)), /proc/self/fd/N/ among them.
const maxName = 80

var errLongName = fmt.Errorf("the socket's name is longer than %d bytes", maxName)

// Address is where metrics are served: of the path and the port, one is there.
type Address struct {
	Path string         `json:",omitempty"` // of a unix socket
	Port netip.AddrPort `json:",omitzero"`  // on the loopback interface
}

// ParseAddress reads "unix:PATH", "127.0.0.1:PORT" or "[::1]:PORT".
func ParseAddress(s string) (Address, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" || strings.HasSuffix(path, "/") {
			return Address{}, ErrAddress
		}
		if len(filepath.Base(path)) > maxName {
			return Address{}, errLongName
		}
		path, err := filepath.Abs(path)
		return Address{Path: path}, err
	}
	port, err := netip.ParseAddrPort(s)
	if err != nil || !port.Addr().IsLoopback() || port.Port() == 0 {
		return Address{}, ErrAddress
	}
	return Address{Port: port}, nil
}

// IsZero tells that metrics are not to be served.
func (a Address) IsZero() bool { return a == Address{} }

// listen makes the socket; its Close removes that of a path.
func (a Address) listen() (net.Listener, error) {
	if a.Path != "" {
		return unixsocket.Listen(a.Path)
	}
	return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a.Port))
}
