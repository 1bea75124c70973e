package supervisor

import "sync"

// A gate is where goroutines wait for what comes from outside. While it is shut none
// of them does, so that nothing comes to a process that is about to be another.
type gate struct {
	mu     sync.Mutex
	moved  sync.Cond // on mu
	shut   bool
	inside int
}

// enter waits while the gate is shut.
func (g *gate) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.shut {
		g.moved.Wait()
	}
	g.inside++
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	g.moved.Broadcast()
}

// close returns when nobody is inside. interrupt wakes those who are.
func (g *gate) close(interrupt func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	interrupt()
	for g.inside > 0 {
		g.moved.Wait()
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
	g.moved.Broadcast()
}
