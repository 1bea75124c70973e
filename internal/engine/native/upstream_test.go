package native

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	wggo "golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"wireguard4netns/internal/uapi"
)

// memoryBind is upstream's socket in the network of nodes.
type memoryBind struct {
	node   *node // whose inbox it reads
	mu     sync.Mutex
	closed chan struct{}
}

type memoryEndpoint netip.AddrPort

func (e memoryEndpoint) ClearSrc()           {}
func (e memoryEndpoint) SrcToString() string { return "" }
func (e memoryEndpoint) DstToString() string { return netip.AddrPort(e).String() }
func (e memoryEndpoint) DstToBytes() []byte  { b, _ := netip.AddrPort(e).MarshalBinary(); return b }
func (e memoryEndpoint) DstIP() netip.Addr   { return netip.AddrPort(e).Addr() }
func (e memoryEndpoint) SrcIP() netip.Addr   { return netip.Addr{} }

func (b *memoryBind) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	closed := make(chan struct{})
	if b.closed != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	b.closed = closed
	receive := func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		select {
		case d := <-b.node.inbox:
			sizes[0] = copy(packets[0], d.message)
			eps[0] = memoryEndpoint(d.from.addrPort())
			return 1, nil
		case <-closed:
			return 0, net.ErrClosed
		}
	}
	return []conn.ReceiveFunc{receive}, b.node.at.Port(), nil
}

func (b *memoryBind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed != nil {
		close(b.closed)
		b.closed = nil
	}
	return nil
}

func (b *memoryBind) SetMark(uint32) error { return nil }
func (b *memoryBind) BatchSize() int       { return 1 }

func (b *memoryBind) Send(packets [][]byte, ep conn.Endpoint) error {
	to, err := endpointOf(netip.AddrPort(ep.(memoryEndpoint)))
	if err != nil {
		return err
	}
	for _, p := range packets {
		if err := b.node.send(nil, to, p, len(p)); err != nil {
			return err
		}
	}
	return nil
}

func (b *memoryBind) ParseEndpoint(s string) (conn.Endpoint, error) {
	at, err := netip.ParseAddrPort(s)
	return memoryEndpoint(at), err
}

// Upstream's wireguard-go completes the handshake and takes our packets, in both
// roles, and we take its.
func TestUpstream(t *testing.T) {
	for _, weBegin := range []bool{true, false} {
		t.Run(fmt.Sprintf("we begin: %v", weBegin), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			hosts := make(map[netip.AddrPort]*node)
			ours := newNode(ctx, hosts, 1)
			stopped, stop := context.WithCancel(t.Context())
			stop() // who reads its inbox is upstream
			its := newNode(stopped, hosts, 2)
			psk := uapi.Secret{3}
			p := ours.knows(its, psk, weBegin)
			defer ours.remove(p)

			link := tuntest.NewChannelTUN()
			upstream := wggo.NewDevice(link.TUN(), &memoryBind{node: its}, wggo.NewLogger(wggo.LogLevelError, "upstream: "))
			defer upstream.Close()
			public := ours.public()
			conf := fmt.Sprintf("private_key=%s\npublic_key=%x\npreshared_key=%x\nallowed_ip=%v/32\n",
				strings.Repeat("02", keySize), public[:], psk[:], ours.addr)
			if !weBegin {
				conf += fmt.Sprintf("endpoint=%v\n", ours.at)
			}
			if err := upstream.IpcSet(conf); err != nil {
				t.Fatal(err)
			}
			if err := upstream.Up(); err != nil {
				t.Fatal(err)
			}

			fromUs, fromIt := testPacket(ours.addr, its.addr, "from us"), testPacket(its.addr, ours.addr, "from it")
			ways := []func(){
				func() {
					ours.say(its, "from us")
					select {
					case got := <-link.Inbound:
						if !slices.Equal(got, fromUs) {
							t.Errorf("it has %x, want %x", got, fromUs)
						}
					case <-time.After(10 * time.Second):
						t.Fatal("it hears nothing")
					}
				},
				func() {
					link.Outbound <- fromIt
					eventually(t, func() bool { return slices.Equal(ours.heard(), []string{"from it"}) })
				},
			}
			if !weBegin {
				slices.Reverse(ways)
			}
			for range 2 {
				for _, way := range ways {
					way()
				}
			}
		})
	}
}
