package native

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"wireguard4netns/internal/uapi"
)

// Over a network that loses, repeats, delays and spoils messages, what comes
// through is what was sent, each at most once, and it goes on coming for as long
// as the network is there.
func TestABadNetwork(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		r := rand.New(rand.NewPCG(1, 2))
		var delayed [][]byte
		from, err := endpointOf(a.at)
		if err != nil {
			t.Fatal(err)
		}
		a.lose = func(message []byte) bool {
			switch r.IntN(20) {
			case 0:
				return true
			case 1: // again
				b.inbox <- datagram{from.origin, bytes.Clone(message)}
			case 2: // later
				delayed = append(delayed, bytes.Clone(message))
				return true
			case 3: // spoilt
				bit := r.IntN(len(message) * 8)
				message[bit/8] ^= 1 << (bit % 8)
			}
			if len(delayed) > 5 {
				for _, m := range delayed {
					b.inbox <- datagram{from.origin, m}
				}
				delayed = nil
			}
			return false
		}
		seen := make(map[string]bool)
		heard, last := 0, 0
		for i := range 3000 {
			a.say(b, fmt.Sprintf("word %d", i))
			if i%10 == 0 {
				b.say(a, "answer")
			}
			pass(200 * time.Millisecond)
			for _, text := range b.heard() {
				var n int
				if _, err := fmt.Sscanf(text, "word %d", &n); err != nil || seen[text] || n > i {
					t.Fatalf("%q came after word %d; before: %v", text, i, seen[text])
				}
				seen[text] = true
				heard++
				last = i
			}
			if i-last > 60 {
				t.Fatalf("nothing came since word %d", last)
			}
		}
		if heard < 2500 {
			t.Errorf("%d words of 3000 came through", heard)
		}
	})
}

// Each bit of a transport message counts, and each message once.
func TestChangedAndRepeatedPackets(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		greet(t, a, b)
		from, err := endpointOf(a.at)
		if err != nil {
			t.Fatal(err)
		}
		var kept []byte
		a.lose = func(message []byte) bool { kept = bytes.Clone(message); return true }
		a.say(b, "once")
		for i := range len(kept) * 8 {
			changed := bytes.Clone(kept)
			changed[i/8] ^= 1 << (i % 8)
			b.inbox <- datagram{from.origin, changed}
		}
		wantHeard(t, b)
		b.inbox <- datagram{from.origin, bytes.Clone(kept)}
		b.inbox <- datagram{from.origin, bytes.Clone(kept)}
		wantHeard(t, b, "once")
	})
}

// The cases of RFC 6479: a window behind the last counter, moved by it.
func TestReplays(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		greet(t, a, b)
		kp := a.lookup(b.public()).current.Load()
		at := kp.counter.Load()
		say := func(counter uint64) (accepted bool) {
			kp.counter.Store(counter)
			a.say(b, "x")
			synctest.Wait()
			return len(b.heard()) == 1
		}
		const window = 127 * 64
		for _, c := range []struct {
			counter  uint64
			accepted bool
		}{
			{at + 1, true}, {at, true}, {at + 1, false}, {at, false},
			{at + 100, true}, {at + 50, true}, {at + 50, false},
			{at + 100 + window, true}, {at + 100, false}, {at + 101, true}, {at + 99, false},
			{at + 10*window, true}, {at + 9*window, true}, {at + 9*window - 1, false}, {at + 10*window, false},
			{rekeyAfterMessages - 1, true}, {rekeyAfterMessages - 2, true}, {at + 10*window + 1, false},
		} {
			if got := say(c.counter); got != c.accepted {
				t.Errorf("counter %d: accepted %v, want %v", c.counter, got, c.accepted)
			}
		}
	})
}

// A packet whose source is not the peer's is dropped, though it is authentic.
func TestASourceMustBeThePeers(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		greet(t, a, b)
		a.out.route(testPacket(netip.MustParseAddr("10.0.0.77"), b.addr, "forged"), a.now())
		a.out.box.flush(a.now())
		a.say(b, "honest")
		wantHeard(t, b, "honest")
	})
}

// A peer is where its last authentic packet came from, and not where one that was
// repeated, or spoilt, came from.
func TestRoaming(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		greet(t, a, b)
		elsewhere := netip.MustParseAddrPort("[2001:db8::9]:9")
		from, err := endpointOf(elsewhere)
		if err != nil {
			t.Fatal(err)
		}
		var kept []byte
		a.lose = func(message []byte) bool { kept = bytes.Clone(message); return false }
		a.say(b, "here")
		wantHeard(t, b, "here")
		b.inbox <- datagram{from.origin, bytes.Clone(kept)}
		kept[len(kept)-1]++
		b.inbox <- datagram{from.origin, bytes.Clone(kept)}
		synctest.Wait()
		if at := b.lookup(a.public()).endpoint.Load().addrPort(); at != a.at {
			t.Errorf("%v took the place of %v", at, a.at)
		}
		a.lose = func(message []byte) bool { kept = bytes.Clone(message); return true }
		a.say(b, "there")
		b.inbox <- datagram{from.origin, kept}
		wantHeard(t, b, "there")
		if at := b.lookup(a.public()).endpoint.Load().addrPort(); at != elsewhere {
			t.Errorf("at %v, want %v", at, elsewhere)
		}
	})
}

// What was long on its way does not move the endpoint back, be it of the session that
// there is or of the one before.
func TestOldMessagesDoNotMoveTheEndpoint(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		greet(t, a, b)
		from, err := endpointOf(netip.MustParseAddrPort("[2001:db8::9]:9"))
		if err != nil {
			t.Fatal(err)
		}
		late := func() []byte {
			var kept []byte
			a.lose = func(message []byte) bool { kept = bytes.Clone(message); return true }
			defer func() { a.lose = nil }()
			a.say(b, "late")
			return kept
		}
		arrive := func(message []byte) {
			t.Helper()
			b.inbox <- datagram{from.origin, message}
			wantHeard(t, b, "late")
			if at := b.lookup(a.public()).endpoint.Load().addrPort(); at != a.at {
				t.Fatalf("%v took the place of %v", at, a.at)
			}
		}
		message := late()
		a.say(b, "after it")
		wantHeard(t, b, "after it")
		arrive(message)

		message = late()
		pass(time.Second)
		a.lookup(b.public()).expire()
		a.say(b, "under the next session")
		wantHeard(t, b, "under the next session")
		arrive(message)
	})
}

// A thousand peers, all at once.
func TestAThousandPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		net := make(map[netip.AddrPort]*node)
		hub := newNode(ctx, net, 1)
		var others []*node
		for i := range 1000 {
			o := newNodeAt(ctx, net, bytes.Repeat([]byte{2, byte(i), byte(i >> 8), 9}, 8), i+2)
			o.knows(hub, uapi.Secret{}, true)
			hub.knows(o, uapi.Secret{}, false)
			others = append(others, o)
		}
		pass(time.Second)
		for _, o := range others {
			o.say(hub, o.addr.String())
			synctest.Wait()
		}
		// Some had to ask again: so many at once are a load.
		for range 20 {
			pass(time.Second)
		}
		heard := hub.heard()
		slices.Sort(heard)
		if n := len(slices.Compact(heard)); n != len(others) {
			t.Errorf("%d of %d peers got through", n, len(others))
		}
		for _, o := range others {
			hub.say(o, "hello")
		}
		synctest.Wait()
		for _, o := range others {
			if got := o.heard(); !slices.Equal(got, []string{"hello"}) {
				t.Fatalf("%v heard %q", o.addr, got)
			}
		}
		for _, n := range append(others, hub) {
			for _, p := range n.all() {
				n.remove(p)
			}
		}
		cancel()
	})
}

// FuzzMessage gives a device anything, as it is and with the codes that a
// stranger can make.
func FuzzMessage(f *testing.F) {
	for kind, size := range map[byte]int{typeInitiation: initiationSize, typeResponse: responseSize, typeCookie: cookieReplySize, typeTransport: 100} {
		message := make([]byte, size)
		message[0] = kind
		f.Add(message, false)
		f.Add(message, true)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.Cleanup(cancel)
	net := make(map[netip.AddrPort]*node)
	a, b := newNode(ctx, net, 1), newNode(ctx, net, 2)
	a.knows(b, uapi.Secret{}, true)
	b.knows(a, uapi.Secret{}, false)
	a.say(b, "hello")
	eventually(f, func() bool { return len(b.heard()) > 0 })
	from, err := endpointOf(a.at)
	if err != nil {
		f.Fatal(err)
	}
	kp := a.lookup(b.public()).current.Load()
	f.Fuzz(func(t *testing.T, message []byte, coded bool) {
		message = bytes.Clone(message) // it is b's when it is sent
		if coded && len(message) >= overhead {
			switch kindOf(message) {
			case typeInitiation, typeResponse:
				macs := newSenderMACs(b.public())
				macs.add(message, 0)
			case typeTransport: // even sealed with the session's key
				var n nonce
				message = kp.seal(make([]byte, 0, len(message)+overhead), message[headerSize:], &n)
			}
			if kindOf(message) == typeCookie || kindOf(message) == typeResponse {
				binary.LittleEndian.PutUint32(message[8:], kp.remote)
			}
		}
		b.inbox <- datagram{from.origin, message}
		b.heard()
		b.counts()
	})
}
