package wggo

import (
	"runtime"
	"runtime/debug"
	"sync"
)

// wireguard-go takes a buffer of 64 KiB for each packet and keeps them in
// pools that a garbage collection empties. By default collections follow the
// size of what lives, so that under load buffers are thrown away and cleared
// again, which makes all of their pages resident: up to 280 MiB at 3 Gbit/s on
// two processors. Collecting at a limit only, it is 160 MiB and as fast; a lower
// limit costs throughput (128 MiB a twentieth, 48 MiB more than half).
const (
	memoryPerProcessor = 80 << 20
	memoryPerPeer      = 64 << 10 // queues, stacks
	mostForProcessors  = 512 << 20
)

func limitMemory(peers int) {
	debug.SetGCPercent(-1)
	limit := min(int64(runtime.GOMAXPROCS(0))*memoryPerProcessor, mostForProcessors)
	debug.SetMemoryLimit(limit + int64(peers)*memoryPerPeer)
}

// restBytes is what may pass between two looks while an engine is at rest.
const restBytes = 256 << 10

// rest gives memory back to the system when traffic has ended. It looks when
// somebody asks for the state, which the supervisor does at intervals anyway.
type rest struct {
	mu     sync.Mutex
	passed uint64 // bytes, at the last look
	busy   bool
}

// look tells whether traffic has ended since the look before.
func (r *rest) look(passed uint64) (ended bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wasBusy := r.busy
	r.busy = passed-r.passed > restBytes
	r.passed = passed
	return wasBusy && !r.busy
}

func giveBack() {
	runtime.GC() // a pool survives one collection
	debug.FreeOSMemory()
}
