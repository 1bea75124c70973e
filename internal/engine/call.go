package engine

import "context"

// Call has the engine start a handshake with each peer whose endpoint is known,
// as a packet for the peer would.
func (e *Engine) Call(ctx context.Context) error {
	e.mu.Lock()
	d := e.device
	e.mu.Unlock()
	return e.Set(ctx, calls(d).Body())
}
