package e2e_test

import (
	"net"
	"testing"
)

func dialUnix(t testing.TB, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}
