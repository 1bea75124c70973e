package e2e_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"wireguard4netns/internal/nstest"
)

// transfer is a TCP transfer to the echo service at an address and back.
type transfer struct {
	Addr  string
	Bytes int
}

// echo runs a transfer and fails unless each byte came back as it was sent.
var echo = nstest.NewFunc("echo", func(in transfer) (struct{}, error) {
	return struct{}{}, in.run()
})

func (in transfer) run() error {
	conn, err := net.DialTimeout("tcp", in.Addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	sent := make([]byte, in.Bytes)
	rand.Read(sent)
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		wrote <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
	}()
	back, err := io.ReadAll(conn)
	if err := errors.Join(err, <-wrote); err != nil {
		return err
	}
	if !bytes.Equal(sent, back) {
		return fmt.Errorf("sent %d bytes, got back %d that differ", len(sent), len(back))
	}
	return nil
}

// checkTraffic pings the peer and exchanges data with it over both families;
// command puts a program where the tunnel is.
func checkTraffic(t testing.TB, command commander, peer *nstest.Peer) {
	t.Helper()
	succeed(t, command("ping", "-c1", "-w15", peer.Addr4.String()))
	succeed(t, command("ping", "-c1", "-w15", peer.Addr6.String()))
	checkEcho(t, command, peer)
}

// checkEcho exchanges data with the peer over both families.
func checkEcho(t testing.TB, command commander, peer *nstest.Peer) {
	t.Helper()
	for _, addr := range []string{net.JoinHostPort(peer.Addr4.String(), "7"), net.JoinHostPort(peer.Addr6.String(), "7")} {
		if _, err := echo.Call(command, transfer{Addr: addr, Bytes: 256 << 10}); err != nil {
			t.Errorf("echo at %s: %v", addr, err)
		}
	}
}
