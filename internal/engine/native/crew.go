package native

import (
	"runtime"
	"sync/atomic"
)

// A crew is the threads of one direction. One at a time takes packets, and one gives
// them on, in the order in which they were taken; what is in between, the
// cryptography, they do at once:
//
//	thread 1 │ take │    work    │ give │      │ take │    work    │
//	thread 2        │ take │    work    │ give │      │ take │
//	thread 3               │ take │    work    │ give │
//
// So one flow, of one peer, is faster, too. Who takes leads. The leader gives the lead
// away only while there is more than it can do itself: else the others sleep, or are not
// there yet, and a crew costs what one thread does.
type crew struct {
	fd    int    // what it waits for
	hire  func() // starts one more thread
	bell  *bell
	lead  *semaphore
	turns []*semaphore // to give: one for each thread that there may be, in a ring

	patience int // how many batches come in a row before the lead is given away

	stopping atomic.Bool

	// Of the leader.
	hired int
	taken int // batches
	dry   bool
	busy  int // batches in a row behind which there was more
}

// A hand is what one thread of a crew does.
type hand interface {
	// take takes a batch; dry: there is no more now.
	take() (found, dry bool, err error)
	// work works on it. It may await its turn before its end.
	work(t *turn)
	// give gives it on, in turn. All of it: else it may keep some back for company,
	// as the next batch is its own, too.
	give(all bool)
}

// patience is crew.patience: a burst is not yet more than one thread can do.
const patience = 3

func newCrew(threads, patience int) (*crew, error) {
	c := &crew{dry: true, patience: patience}
	var err error
	if c.bell, err = newBell(); err == nil {
		c.lead, err = newSemaphore(1)
	}
	for i := 0; i < threads && err == nil; i++ {
		var s *semaphore
		s, err = newSemaphore(int32(max(0, 1-i)))
		c.turns = append(c.turns, s)
	}
	if err != nil {
		return nil, err // and the engine ends
	}
	return c, nil
}

// stop has the threads end.
func (c *crew) stop() {
	c.stopping.Store(true)
	c.bell.ring()
}

func (c *crew) close() {
	c.bell.close()
	c.lead.close()
	for _, s := range c.turns {
		s.close()
	}
}

// run is one thread: it moves what there is, and sleeps while there is nothing, until
// the crew is stopped (nil) or nothing can be taken any more. It is locked, because
// else each sleep would be a chance to go on in another.
func (c *crew) run(h hand) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	t := &turn{crew: c}
	leads, kept := false, false
	for {
		if !leads {
			c.lead.acquire()
		}
		if found, err := c.take(h, kept); !found {
			c.lead.release()
			return err
		}
		t.begin()
		leads = c.busy < c.patience || len(c.turns) == 1
		kept = leads && !c.dry
		if !leads {
			c.man()
			c.lead.release()
		}
		h.work(t)
		t.await()
		h.give(!kept)
		t.end()
	}
}

// man sees to it that there is one more thread than so far, if there may be. The first
// is from the start.
func (c *crew) man() {
	if c.hired < len(c.turns) {
		c.hired++
		c.hire()
	}
}

// take waits until h has taken something; not found: it never will. What h has kept
// back is given before: there can be no other batch on its way.
func (c *crew) take(h hand, kept bool) (found bool, err error) {
	for !c.stopping.Load() {
		if c.dry {
			if err := c.bell.wait(c.fd); err != nil {
				return false, err
			}
		}
		c.bell.answer()
		found, c.dry, err = h.take()
		switch {
		case err != nil:
			return false, err
		case c.dry:
			c.busy = 0
		default:
			c.busy++
		}
		if found {
			return true, nil
		}
		if kept {
			h.give(true)
			kept = false
		}
	}
	return false, nil
}

// A turn is when a thread gives one batch on. Of nobody (nil) it is always.
type turn struct {
	crew   *crew
	number int
	came   bool
}

// begin numbers the batch; its thread leads.
func (t *turn) begin() {
	t.number, t.came = t.crew.taken%len(t.crew.turns), false
	t.crew.taken++
}

// await returns when all batches before this one are given.
func (t *turn) await() {
	if t != nil && !t.came {
		t.crew.turns[t.number].acquire()
		t.came = true
	}
}

// end is for the next.
func (t *turn) end() {
	t.crew.turns[(t.number+1)%len(t.crew.turns)].release()
}
