package native

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs a test on a pair of nodes with a clock of its own, which goes on
// when all sleep.
func bubble(t *testing.T, test func(t *testing.T, a, b *node)) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		test(t, a, b)
	})
}

// pass lets time pass and all that is due happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// greet has a begin a session, in which b answers: nobody waits for anything.
func greet(t *testing.T, a, b *node) {
	t.Helper()
	a.say(b, "hello")
	wantHeard(t, b, "hello")
	b.say(a, "hello")
	wantHeard(t, a, "hello")
}

func wantHeard(t *testing.T, n *node, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := n.heard(); !slices.Equal(got, want) {
		t.Errorf("%v heard %q, want %q", n.at, got, want)
	}
}

func wantSent(t *testing.T, n *node, kind, least, most int) {
	t.Helper()
	if got := n.counts()[kind]; got < least || got > most {
		t.Errorf("%v sent %d messages of type %d, want %d to %d", n.at, got, kind, least, most)
	}
}

func TestPacketsWaitForTheHandshake(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		a.say(b, "one")
		a.say(b, "two")
		wantHeard(t, b, "one", "two")
		if sent := a.counts(); sent != [5]int{1: 1, 4: 2} {
			t.Errorf("sent %v, want an initiation and two packets", sent)
		}
		b.say(a, "three")
		wantHeard(t, a, "three")
		if sent := b.counts(); sent != [5]int{2: 1, 4: 1} {
			t.Errorf("answered %v, want a response and a packet", sent)
		}
	})
}

// REKEY_AFTER_TIME: the initiator, and only it, begins the next session, and no
// packet is lost.
func TestASessionIsRenewedByItsInitiator(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		var want []string
		a.say(b, "hello")
		want = append(want, "hello")
		synctest.Wait()
		a.counts()
		b.counts()
		for range 300 {
			pass(time.Second)
			b.say(a, "answer")
			a.say(b, "word")
			want = append(want, "word")
		}
		wantHeard(t, b, want...)
		wantSent(t, a, typeInitiation, 2, 2)
		wantSent(t, b, typeInitiation, 0, 0)
	})
}

// The receiver of a stream that began the session renews it before its end, too.
func TestASessionIsRenewedWhileOnlyReceiving(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		a.say(b, "hello")
		synctest.Wait()
		a.counts()
		b.lookup(a.public()).patient.Store(true) // it does not call
		for range 175 {
			pass(time.Second)
			b.say(a, "word")
		}
		wantSent(t, a, typeInitiation, 1, 1)
	})
}

// REKEY_TIMEOUT, REKEY_ATTEMPT_TIME: it is tried every five seconds, with
// jitter, for ninety seconds; then what waits is dropped.
func TestAHandshakeIsRepeatedForNinetySeconds(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		a.lose = func([]byte) bool { return true }
		a.say(b, "lost")
		pass(4900 * time.Millisecond)
		wantSent(t, a, typeInitiation, 1, 1)
		pass(500 * time.Millisecond)
		wantSent(t, a, typeInitiation, 1, 1)
		pass(10 * time.Minute)
		wantSent(t, a, typeInitiation, 17, 19)
		a.lose = nil
		pass(time.Hour)
		wantHeard(t, b)
		a.say(b, "later")
		wantHeard(t, b, "later")
	})
}

// Packets that come all the time do not take the place of the alarm, which counts
// and says that there is trouble.
func TestPacketsDoNotRepeatAHandshake(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		a.lose = func([]byte) bool { return true }
		told := 0
		a.told = func() { told++ }
		for range 300 {
			a.say(b, "word")
			pass(100 * time.Millisecond)
		}
		if told < 5 {
			t.Errorf("trouble was told %d times in 30 s", told)
		}
		wantSent(t, a, typeInitiation, 6, 6)
	})
}

// KEEPALIVE_TIMEOUT: who only receives says after ten seconds that it is there.
func TestAPassiveKeepalive(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		a.say(b, "hello")
		synctest.Wait()
		a.counts()
		b.counts()
		pass(9900 * time.Millisecond)
		wantSent(t, b, typeTransport, 0, 0)
		pass(200 * time.Millisecond)
		wantSent(t, b, typeTransport, 1, 1)
		pass(time.Hour)
		wantSent(t, b, typeTransport, 0, 0)
		if sent := a.counts(); sent[typeTransport] != 0 {
			t.Errorf("a keepalive was answered: %v", sent)
		}
	})
}

func TestThePersistentKeepalive(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		p := a.lookup(b.public())
		p.keepalive.Store(int64(25 * time.Second))
		p.settle(true)
		synctest.Wait()
		a.counts()
		for range 4 {
			pass(25 * time.Second)
			wantSent(t, a, typeTransport, 1, 1)
		}
		a.say(b, "hello")
		a.counts()
		pass(24 * time.Second)
		wantSent(t, a, typeTransport, 0, 0) // it counts from the last packet
		p.keepalive.Store(0)
		pass(10 * time.Minute)
		wantSent(t, a, typeTransport, 0, 0)
	})
}

// A peer that has lost its state, as by a restart, is found in six seconds of
// traffic. Our own; WireGuard takes fifteen.
func TestALostSessionIsFoundInSixSeconds(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		talkAndLose(a, b)
		for range 6 {
			a.say(b, "word")
			pass(time.Second)
		}
		a.say(b, "found")
		wantHeard(t, b, "found")
	})
}

// One packet without an answer may have needed none. The next is a repetition: TCP,
// when it has waited long already, repeats itself seldom.
func TestALostSessionIsFoundByARareRepetition(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		talkAndLose(a, b)
		a.say(b, "word")
		pass(7 * time.Second)
		a.say(b, "word")
		pass(time.Second)
		a.say(b, "found")
		wantHeard(t, b, "found")
	})
}

// talkAndLose has b lose its state after it talked with a.
func talkAndLose(a, b *node) {
	for range 20 {
		a.say(b, "word")
		b.say(a, "answer")
		pass(time.Second)
	}
	a.heard()
	b.heard()
	pass(30 * time.Second)
	lost := b.lookup(a.public())
	lost.mu.Lock()
	defer lost.mu.Unlock()
	lost.forgetKeys()
	lost.timestamp[0] = 0
}

// A peer that only listens is called once, and then left to its keepalives.
func TestAListenerIsNotCalledAgainAndAgain(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		for range 100 {
			a.say(b, "word")
			pass(time.Second)
		}
		wantSent(t, a, typeInitiation, 1, 2)
		if n := len(b.heard()); n != 100 {
			t.Errorf("%d words heard, want 100", n)
		}
	})
}

// REJECT_AFTER_TIME: an old session carries nothing, either way.
func TestAnOldSessionIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		greet(t, a, b)
		pass(rejectAfterTime - time.Second)
		b.lose = func([]byte) bool { return true } // no new one
		kp := a.lookup(b.public()).current.Load()
		a.counts()
		a.out.box.add(kp, a.lookup(b.public()).endpoint.Load(), testPacket(a.addr, b.addr, "in time"), a.now())
		a.out.box.flush(a.now())
		wantHeard(t, b, "in time")
		pass(time.Second)
		a.out.box.add(kp, a.lookup(b.public()).endpoint.Load(), testPacket(a.addr, b.addr, "too late"), a.now())
		a.out.box.flush(a.now())
		wantHeard(t, b)
		a.counts()
		a.say(b, "waits")
		wantSent(t, a, typeTransport, 0, 0)
	})
}

// REJECT_AFTER_MESSAGES and REKEY_AFTER_MESSAGES.
func TestTheCounterEndsASession(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		greet(t, a, b)
		pass(10 * time.Second)
		a.counts()
		kp := a.lookup(b.public()).current.Load()
		kp.counter.Store(rekeyAfterMessages + 1)
		a.say(b, "many")
		wantHeard(t, b, "many")
		wantSent(t, a, typeInitiation, 1, 1)
		if next := a.lookup(b.public()).current.Load(); next == kp {
			t.Error("the session goes on")
		}
		kp.counter.Store(rejectAfterMessages - 1)
		var n nonce
		if kp.seal(make([]byte, 0, 100), nil, &n) == nil || kp.seal(make([]byte, 0, 100), nil, &n) != nil || kp.seal(make([]byte, 0, 100), nil, &n) != nil {
			t.Error("a counter was used that must not be")
		}
	})
}

// After three times REJECT_AFTER_TIME without a new session, no key is left, and
// no timer either: an idle tunnel sleeps.
func TestAnIdlePeerHasNeitherKeysNorTimers(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		greet(t, a, b)
		pass(3*rejectAfterTime + time.Second)
		for _, n := range []*node{a, b} {
			for _, p := range n.all() {
				if p.current.Load() != nil || p.previous != nil || p.next != nil || p.handshake != nil {
					t.Errorf("%v has keys", n.at)
				}
				if set := p.timers.set.Load(); set != notDue {
					t.Errorf("%v has a timer, at %v", n.at, time.Duration(set))
				}
			}
			if len(n.sessions.slots) != 0 {
				t.Errorf("%v has sessions", n.at)
			}
		}
	})
}

// When both begin at once, both sessions stand, and nothing is lost.
func TestBothBeginAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		to, err := endpointOf(a.at)
		if err != nil {
			t.Fatal(err)
		}
		b.lookup(a.public()).endpoint.Store(to)
		for i := range 3 {
			a.say(b, "from a")
			b.say(a, "from b")
			synctest.Wait()
			wantHeard(t, b, "from a")
			wantHeard(t, a, "from b")
			_ = i
		}
		pass(time.Second)
		if sent := a.counts()[typeInitiation]; sent != 1 {
			t.Errorf("%d initiations", sent)
		}
	})
}

func TestTheLogTellsOfHandshakesAndHoldsNoKeys(t *testing.T) {
	bubble(t, func(t *testing.T, a, b *node) {
		a.say(b, "hello")
		synctest.Wait()
		log := a.logged() + b.logged()
		for _, want := range []string{"sending handshake initiation", "received handshake initiation", "received handshake response"} {
			if !strings.Contains(log, want) {
				t.Errorf("no %q in\n%s", want, log)
			}
		}
	})
}
