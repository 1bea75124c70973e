package native

import (
	"math/rand/v2"
	"sync"
)

// sessions finds what a message is for by the index that we gave the peer for
// it: at first a handshake, later the session that comes of it.
type sessions struct {
	mu    sync.RWMutex
	slots map[uint32]slot
}

type slot struct {
	peer    *peer
	keypair *keypair // nil: a handshake
}

// reserve returns an index for a handshake.
func (s *sessions) reserve(p *peer) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		// It need not be secret; chance keeps old messages from meeting a
		// session that they are not for.
		index := rand.Uint32()
		if _, taken := s.slots[index]; !taken {
			s.slots[index] = slot{peer: p}
			return index
		}
	}
}

// install has the index of kp lead to it.
func (s *sessions) install(kp *keypair) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slots[kp.local] = slot{kp.peer, kp}
}

// drop ends a session; nil is none.
func (s *sessions) drop(kp *keypair) {
	if kp != nil {
		s.release(kp.local)
	}
}

func (s *sessions) release(index uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.slots, index)
}

func (s *sessions) find(index uint32) slot {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.slots[index]
}
