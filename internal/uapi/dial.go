package uapi

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// Dial reaches the engine behind the socket at path, however long that is.
func Dial(path string) (*Conn, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// As in bind: a socket's address holds 108 bytes.
	stream, err := net.Dial("unix", "/proc/self/fd/"+strconv.Itoa(int(dir.Fd()))+"/"+filepath.Base(path))
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w", path, err)
	}
	return NewConn(stream), nil
}
