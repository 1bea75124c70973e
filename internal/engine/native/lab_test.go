package native

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"encoding/binary"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"wireguard4netns/internal/uapi"
)

// A node is a device in memory: its datagrams go to other nodes, and the packets
// that come out of it are kept. With testing/synctest its clock is the test's.
type node struct {
	*device
	key  *ecdh.PrivateKey
	at   netip.AddrPort
	addr netip.Addr // inside the tunnel

	in  *inbound
	out *outbound

	// wire: what the node sends goes to whom it is for, unless lose says no.
	net  map[netip.AddrPort]*node
	lose func(message []byte) bool

	inbox chan datagram

	mu   sync.Mutex
	got  [][]byte // packets
	sent [][]byte // messages
	log  []string
}

type datagram struct {
	from    origin
	message []byte
}

// newNode makes the n-th node of a network. Its goroutines end with ctx.
func newNode(ctx context.Context, net map[netip.AddrPort]*node, n byte) *node {
	return newNodeAt(ctx, net, bytes.Repeat([]byte{n}, keySize), int(n))
}

// newNodeAt makes one with another key.
func newNodeAt(ctx context.Context, net map[netip.AddrPort]*node, seed []byte, n int) *node {
	key, err := ecdh.X25519().NewPrivateKey(seed)
	if err != nil {
		panic(err)
	}
	node := &node{
		key: key, net: net, inbox: make(chan datagram, 1000),
		at:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2 + byte(n>>8), byte(n)}), 51820),
		addr: netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}),
	}
	node.device = newDevice(node, Options{MTU: 1420, Verbose: true, Log: node.keepLine})
	node.in = newInbound(node.device, nil, &delivery{device: node.device, coalescer: coalescer{sink: node, off: true}})
	node.out = newOutbound(node.device, &link{})
	node.setIdentity(uapi.Secret(seed))
	net[node.at] = node
	if ctx.Err() != nil {
		return node // an address, and keys
	}
	go node.answerer.run(ctx)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case d := <-node.inbox:
				node.receive(d)
			}
		}
	}()
	return node
}

func (n *node) keepLine(line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.log = append(n.log, line)
}

func (n *node) logged() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.log, "\n")
}

// receive is the inbound thread's part.
func (n *node) receive(d datagram) {
	n.in.accept(d.from, d.message, 0)
}

// accept moves what came of one sender, as a thread does.
func (in *inbound) accept(from origin, payload []byte, segment int) {
	in.received = append(in.received[:0], received{from: from, payload: payload, segment: segment})
	in.work(nil)
	in.give(true)
}

// deliver makes the node the sink of its coalescer.
func (n *node) deliver(_ vnetHeader, parts [][]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got = append(n.got, bytes.Join(parts, nil))
}

// send makes the node the wire of its device.
func (n *node) send(_ *sender, to *endpoint, run []byte, segment int) error {
	for len(run) > 0 {
		size := min(segment, len(run))
		message := bytes.Clone(run[:size])
		run = run[size:]
		n.mu.Lock()
		n.sent = append(n.sent, bytes.Clone(message))
		lost := n.lose != nil && n.lose(message)
		n.mu.Unlock()
		if other := n.net[to.addrPort()]; other != nil && !lost {
			from, err := endpointOf(n.at)
			if err != nil {
				return err
			}
			other.inbox <- datagram{from.origin, message}
		}
	}
	return nil
}

// knows makes other a peer of n.
func (n *node) knows(other *node, psk uapi.Secret, reachable bool) *peer {
	p := n.add(other.public())
	p.psk = psk
	if reachable {
		to, err := endpointOf(other.at)
		if err != nil {
			panic(err)
		}
		p.endpoint.Store(to)
	}
	n.allow(p, netip.PrefixFrom(other.addr, 32))
	return p
}

func (n *node) public() uapi.PublicKey { return uapi.PublicKey(n.key.PublicKey().Bytes()) }

// say sends a packet to another node, as its outbound thread would.
func (n *node) say(other *node, text string) {
	n.out.route(testPacket(n.addr, other.addr, text), n.now())
	n.out.give(true)
}

// heard returns the texts that have come.
func (n *node) heard() (texts []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, packet := range n.got {
		texts = append(texts, string(packet[ip4Header:]))
	}
	n.got = nil
	return texts
}

// counts returns how many messages of each type the node has sent since it was
// asked last.
func (n *node) counts() (kinds [5]int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, message := range n.sent {
		kinds[kindOf(message)]++
	}
	n.sent = nil
	return kinds
}

// testPacket is an IPv4 packet of an unassigned protocol, with room behind it.
func testPacket(from, to netip.Addr, text string) []byte {
	b := make([]byte, ip4Header+len(text), ip4Header+len(text)+16)
	b[0], b[ip4TTL], b[ip4Protocol] = 0x45, 64, 253
	binary.BigEndian.PutUint16(b[ip4Length:], uint16(len(b)))
	copy(b[ip4Addrs:], from.AsSlice())
	copy(b[ip4Addrs+4:], to.AsSlice())
	copy(b[ip4Header:], text)
	finishIP4(b, ip4Header)
	return b
}

// pair makes two nodes that know each other; only a can reach b.
func pair(t testing.TB) (a, b *node) {
	ctx, cancel := context.WithCancel(context.Background())
	net := make(map[netip.AddrPort]*node)
	a, b = newNode(ctx, net, 1), newNode(ctx, net, 2)
	psk := uapi.Secret{7}
	a.knows(b, psk, true)
	b.knows(a, psk, false)
	t.Cleanup(func() {
		for _, n := range net {
			for _, p := range n.all() {
				n.remove(p)
			}
			if t.Failed() {
				t.Logf("log of %v:\n%s", n.at, n.logged())
			}
		}
		cancel()
		time.Sleep(time.Millisecond) // of the bubble: the goroutines end
	})
	return a, b
}
