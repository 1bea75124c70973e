package native

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"testing"

	"wireguard4netns/internal/uapi"
)

// A stage is two nodes up to a message that one is about to receive. Nothing
// happens by itself: they have no goroutines.
type stage struct {
	a, b    *node
	to      *node // of the message
	from    *node
	message []byte
}

// newStage leads up to a message of a kind.
func newStage(kind uint32) *stage {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	net := make(map[netip.AddrPort]*node)
	s := &stage{a: newNode(ctx, net, 1), b: newNode(ctx, net, 2)}
	psk := uapi.Secret{7}
	s.a.knows(s.b, psk, true)
	s.b.knows(s.a, psk, false)
	s.a.say(s.b, "hello")
	s.from, s.to = s.a, s.b
	s.message = s.a.sent[0]
	if kind == typeInitiation {
		return s
	}
	s.from, s.to = s.b, s.a
	if kind == typeCookie {
		from := mustEndpoint(s.a.at)
		s.message = s.b.identity.Load().macs.cookieReply(s.message, from.place(), s.b.now())
		return s
	}
	s.b.take(s.a.at, s.message)
	s.message = s.b.sent[0]
	if kind == typeResponse {
		return s
	}
	s.a.take(s.b.at, s.message)
	s.from, s.to = s.a, s.b
	s.message = s.a.sent[len(s.a.sent)-1]
	return s
}

func (s *stage) end() {
	for _, n := range []*node{s.a, s.b} {
		for _, p := range n.all() {
			n.remove(p)
		}
	}
}

func mustEndpoint(at netip.AddrPort) *endpoint {
	e, err := endpointOf(at)
	if err != nil {
		panic(err)
	}
	return e
}

// take is all that a node does with a message.
func (n *node) take(from netip.AddrPort, message []byte) {
	n.receive(datagram{mustEndpoint(from).origin, bytes.Clone(message)})
	for len(n.answerer.letters) > 0 {
		l := <-n.answerer.letters
		n.answerer.answer(&l, n.now())
	}
}

// state is what a message may change.
func (n *node) state() string {
	text := fmt.Sprintf("%d sessions, %d packets, %d sent\n", len(n.sessions.slots), len(n.got), len(n.sent))
	for _, p := range n.all() {
		text += fmt.Sprintf("%p %p %p %v %p %v %v %v %x %x %x\n", p.current.Load(), p.previous, p.next, p.handshake != nil,
			p.endpoint.Load(), p.received.Load(), p.handshook.Load(), p.waiting.Load(), p.timestamp, p.macs.cookie, p.macs.cookieUntil)
		for _, kp := range []*keypair{p.current.Load(), p.previous, p.next} {
			if kp != nil {
				text += fmt.Sprintf("%v %v %+v\n", kp.confirmed, kp.counter.Load(), kp.window)
			}
		}
	}
	return text
}

// fuzzMessage changes a message: mask is added to it, and what is behind cut off
// or appended. Free is what nothing vouches for once mac1 was made right again.
func fuzzMessage(f *testing.F, kind uint32, free func(size int) (from, to int)) {
	whole := newStage(kind)
	size := len(whole.message)
	whole.end()
	f.Add([]byte{}, 0, false, uint32(0))
	f.Add([]byte{1}, 0, true, uint32(1))
	f.Add(append(make([]byte, 8), 1), -1, true, uint32(1))
	f.Add(append(make([]byte, 16), 0x80), 1, false, uint32(5))
	f.Add(append(make([]byte, size-1), 1), 0, false, uint32(0))
	f.Fuzz(func(t *testing.T, mask []byte, more int, resign bool, unrelated uint32) {
		s := newStage(kind)
		defer s.end()
		changed := bytes.Clone(s.message)
		for i := range min(len(mask), len(changed)) {
			changed[i] ^= mask[i]
		}
		if more %= 64; more < 0 {
			changed = changed[:max(0, len(changed)+more)]
		} else {
			changed = append(changed, make([]byte, more)...)
		}
		if resign && len(changed) >= 2*macSize && kind != typeTransport {
			macs := newSenderMACs(s.to.public())
			macs.add(changed, 0)
		}
		if authentic(s.message, changed, kind, resign, free) {
			return
		}
		stranger := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 1}), 9)
		before := s.to.state()
		s.to.take(stranger, changed)
		s.to.take(stranger, mask)
		if after := s.to.state(); after != before {
			t.Errorf("before:\n%s\nafter %x:\n%s", before, changed, after)
		}
		// And the right one still does what it is for.
		s.to.take(s.from.at, s.message)
		if after := s.to.state(); after == before {
			t.Errorf("after %x the right message was refused", changed)
		}
	})
}

func authentic(right, changed []byte, kind uint32, resign bool, free func(int) (int, int)) bool {
	if len(right) != len(changed) {
		return false
	}
	a, b := bytes.Clone(right), bytes.Clone(changed)
	if kind == typeInitiation || kind == typeResponse {
		clear(a[len(a)-macSize:]) // mac2 is for a load
		clear(b[len(b)-macSize:])
		if resign {
			clear(a[len(a)-2*macSize:])
			clear(b[len(b)-2*macSize:])
			from, to := free(len(a))
			clear(a[from:to])
			clear(b[from:to])
		}
	}
	return bytes.Equal(a, b)
}

func senderIndex(int) (from, to int) { return 4, 8 }

// FuzzInitiation, FuzzResponse, FuzzCookieReply and FuzzData: a message with
// anything changed changes nothing, and is in nobody's way.
func FuzzInitiation(f *testing.F)  { fuzzMessage(f, typeInitiation, senderIndex) }
func FuzzResponse(f *testing.F)    { fuzzMessage(f, typeResponse, senderIndex) }
func FuzzCookieReply(f *testing.F) { fuzzMessage(f, typeCookie, senderIndex) }
func FuzzData(f *testing.F)        { fuzzMessage(f, typeTransport, senderIndex) }

// FuzzPlain has a peer, who has the keys, send anything at all inside.
func FuzzPlain(f *testing.F) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	f.Add([]byte{0x45})
	f.Add(testPacket(a, b, "text"))
	f.Add(template{from: 1, to: 2, udp: true}.packet(random(30)))
	f.Add(template{from: 1, to: 2, flags: flagACK}.packet(random(30)))
	f.Add(template{v6: true, from: 1, to: 2}.packet(random(30)))
	f.Fuzz(func(t *testing.T, plain []byte) {
		if len(plain) > 1500 {
			return
		}
		s := newStage(typeTransport)
		defer s.end()
		s.b.take(s.a.at, s.message)
		s.b.in.delivery.coalescer.off = false
		s.b.in.delivery.coalescer.udp = true
		s.b.heard()
		kp := s.a.lookup(s.b.public()).current.Load()
		var n nonce
		sealed := kp.seal(make([]byte, 0, len(plain)+overhead), plain, &n)
		s.b.take(s.a.at, sealed)
		for _, packet := range s.b.got {
			_, source := trim(packet)
			if source != s.a.addr || !bytes.HasPrefix(plain, packet) {
				t.Errorf("%x came of %x", packet, plain)
			}
		}
	})
}
