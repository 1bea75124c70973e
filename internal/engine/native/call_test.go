package native

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"wireguard4netns/internal/uapi"
)

// Package watch calls a peer by changing the private key for a moment, so that the
// sessions end, and by turning the keepalive on. That may come between any two
// messages of a handshake. Who has something to say then is heard, at once or, if
// the next initiation is lost, after the one that follows.
func TestACallAtAnyMomentOfAHandshake(t *testing.T) {
	var cases []moment
	for n := range 64 {
		is := func(bit int) bool { return n>>bit&1 == 1 }
		for _, pause := range []time.Duration{0, 30 * time.Millisecond, time.Second} {
			cases = append(cases, moment{n & 3, is(2), is(3), is(4), is(5), pause})
		}
	}
	for _, m := range cases {
		t.Run(fmt.Sprintf("%+v", m), func(t *testing.T) { bubble(t, m.test) })
	}
}

// A moment of a handshake is when somebody calls.
type moment struct {
	messages  int           // of the handshake have arrived
	late      bool          // the next is on its way; else it is lost
	renewal   bool          // there was a session before
	initiator bool          // it is who calls
	lost      bool          // its next initiation is
	pause     time.Duration // between messages
}

func (m moment) test(t *testing.T, a, b *node) {
	b.finds(a)
	if m.renewal {
		greet(t, a, b)
		pass(rejectAfterTime + time.Second)
	}
	var held []datagram
	var to []*node
	for n, other := range map[*node]*node{a: b, b: a} {
		n.lose = func(message []byte) bool {
			held = append(held, datagram{originOf(n), bytes.Clone(message)})
			to = append(to, other)
			return true
		}
	}
	deliver := func() {
		synctest.Wait()
		messages, nodes := held, to
		held, to = nil, nil
		for i := range messages {
			nodes[i].inbox <- messages[i]
			synctest.Wait()
		}
	}
	a.say(b, "first")
	for range m.messages {
		deliver()
		pass(m.pause)
	}
	if !m.late {
		held, to = nil, nil
	}
	caller, other, within := b, a, apart+10*time.Millisecond
	if m.initiator {
		caller, other = a, b
	}
	if m.lost {
		within = apart + rekeyTimeout + rekeyJitter
	}
	lost := !m.lost
	caller.lose = func(message []byte) bool {
		first := !lost && kindOf(message) == typeInitiation
		lost = lost || first
		return first
	}
	other.lose = nil
	caller.call(other)
	deliver()
	caller.say(other, "called")
	other.say(caller, "answer")
	pass(within)
	for n, want := range map[*node]string{other: "called", caller: "answer"} {
		if heard := n.heard(); count(heard, want) != 1 {
			t.Errorf("%v heard %q, want %q", n.at, heard, want)
		}
	}
}

// Who has answered an initiation, and hears no more, calls by itself when it has
// something to say.
func TestWhoAnsweredDoesNotWaitForever(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		b.finds(a)
		called := false
		a.lose = func([]byte) bool { // all but the first message
			lost := called
			called = true
			return lost
		}
		a.say(b, "hello")
		pass(time.Second)
		b.say(a, "word")
		b.counts()
		pass(rekeyTimeout + rekeyJitter)
		wantSent(t, b, typeInitiation, 1, 1)
	})
}

// The key is gone and comes back: what waits is not forgotten.
func TestADeviceWithoutKeyGoesOnLater(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		a.lose = func([]byte) bool { return true }
		a.say(b, "hello")
		key := a.identity.Load().private
		a.setIdentity(uapi.Secret{})
		pass(12 * time.Second)
		a.lose = nil
		a.setIdentity(key)
		pass(rekeyTimeout + rekeyJitter)
		wantHeard(t, b, "hello")
	})
}

// A session that ends while a packet is on its way to be sealed does not lose it.
func TestASessionEndsUnderAPacket(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		greet(t, a, b)
		pass(apart)
		kp := a.lookup(b.public()).current.Load()
		a.out.route(testPacket(a.addr, b.addr, "short"), a.now())
		a.lose = func([]byte) bool { kp.end(); return false }
		a.out.route(testPacket(a.addr, b.addr, "longer, which sends the run of the other"), a.now())
		pass(rekeyTimeout + rekeyJitter)
		wantHeard(t, b, "short", "longer, which sends the run of the other")
	})
}

// An initiation that was read under another key is not answered.
func TestTheKeyChangesWhileAnInitiationIsRead(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		var initiation []byte
		a.lose = func(message []byte) bool { initiation = bytes.Clone(message); return true }
		a.say(b, "hello")
		c, err := b.identity.Load().readInitiation(initiation, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.setIdentity(uapi.Secret{5})
		b.lookup(a.public()).answer(c, &endpoint{origin: originOf(a)}, b.now())
		if sent := b.counts(); sent != [5]int{} {
			t.Errorf("sent %v", sent)
		}
	})
}

func count(texts []string, want string) (n int) {
	for _, text := range texts {
		if text == want {
			n++
		}
	}
	return n
}

// finds has n know where other is.
func (n *node) finds(other *node) {
	to, err := endpointOf(other.at)
	if err != nil {
		panic(err)
	}
	n.lookup(other.public()).endpoint.Store(to)
}

func originOf(n *node) origin {
	from, err := endpointOf(n.at)
	if err != nil {
		panic(err)
	}
	return from.origin
}

// call does what the request of package watch does.
func (n *node) call(other *node) {
	key := n.identity.Load().private
	n.setIdentity(uapi.Secret{})
	n.setIdentity(key)
	n.finds(other)
	n.lookup(other.public()).settle(true)
}
