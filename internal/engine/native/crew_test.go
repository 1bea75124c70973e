package native

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A workshop is hands that take numbers, of which there are some at a time.
type workshop struct {
	t       *testing.T
	crew    *crew
	batches []int // what there is at a time: so many, and then the bell is awaited

	next      int          // of the leader
	taking    atomic.Int32 // at once
	giving    atomic.Int32
	hired     atomic.Int32
	given     []int
	all       int
	done      chan struct{}
	work      func(number int)
	workersOf map[*worker]int // batches
}

type worker struct {
	*workshop
	number int
	early  bool
	kept   []int
}

func (w *worker) take() (found, dry bool, err error) {
	if w.taking.Add(1) != 1 {
		w.t.Error("two take at once")
	}
	defer w.taking.Add(-1)
	if len(w.batches) == 0 {
		return false, true, nil
	}
	w.number = w.next
	w.next++
	w.workersOf[w]++
	if w.batches[0]--; w.batches[0] == 0 {
		w.batches = w.batches[1:]
		dry = true
		w.crew.bell.ring() // there is more by the time the thread would sleep
	}
	return true, dry, nil
}

func (w *worker) work(t *turn) {
	w.workshop.work(w.number)
	if w.early = w.number%7 == 0; w.early {
		t.await()
		w.keep()
	}
}

func (w *worker) keep() { w.kept = append(w.kept, w.number) }

func (w *worker) give(all bool) {
	if w.giving.Add(1) != 1 {
		w.t.Error("two give at once")
	}
	defer w.giving.Add(-1)
	if w.number >= 0 && !w.early {
		w.keep()
	}
	w.number, w.early = -1, false
	if !all {
		return
	}
	w.given = append(w.given, w.kept...)
	w.kept = nil
	if len(w.given) == w.all {
		close(w.done)
		w.all = -1
	}
}

// man starts a crew of so many on batches, and returns when all is given.
func man(t *testing.T, threads, patience int, batches []int, work func(number int)) *workshop {
	t.Helper()
	c, err := newCrew(threads, patience)
	if err != nil {
		t.Fatal(err)
	}
	w := &workshop{t: t, crew: c, batches: slices.Clone(batches), work: work, done: make(chan struct{}), workersOf: make(map[*worker]int)}
	for _, n := range batches {
		w.all += n
	}
	all := w.all
	c.fd = c.lead.fd // there is never anything in it
	c.bell.ring()
	var wg sync.WaitGroup
	c.hire = func() {
		w.hired.Add(1)
		wg.Go(func() {
			if err := c.run(&worker{workshop: w, number: -1}); err != nil {
				t.Error(err)
			}
		})
	}
	c.man()
	select {
	case <-w.done:
	case <-time.After(30 * time.Second):
		t.Error("not all is given")
	}
	c.stop()
	wg.Wait()
	c.close()
	if len(w.given) != all {
		t.Errorf("%d of %d batches are given", len(w.given), all)
	}
	for i, n := range w.given {
		if n != i {
			t.Fatalf("batch %d is given as number %d", n, i)
		}
	}
	return w
}

// However long each takes, all is given, in order.
func TestCrewKeepsOrder(t *testing.T) {
	t.Parallel()
	for _, threads := range []int{1, 2, 4} {
		var batches []int
		for range 300 {
			batches = append(batches, 1+rand.IntN(20))
		}
		for _, p := range []int{0, patience} {
			man(t, threads, p, batches, func(int) {
				for until := time.Now().Add(rand.N(50 * time.Microsecond)); time.Now().Before(until); {
				}
			})
		}
	}
}

// While there is more than one thread can do, all work at once.
func TestCrewWorksAtOnce(t *testing.T) {
	t.Parallel()
	const threads = 3
	var met sync.WaitGroup
	met.Add(threads)
	w := man(t, threads, patience, []int{patience - 1 + threads}, func(number int) {
		if number >= patience-1 {
			met.Done()
			met.Wait() // the others work, too
		}
	})
	if len(w.workersOf) != threads {
		t.Errorf("%d threads have worked, want %d", len(w.workersOf), threads)
	}
}

// While one thread can do it, there are no others.
func TestCrewOfOneWhileItIsEnough(t *testing.T) {
	t.Parallel()
	batches := make([]int, 1000)
	for i := range batches {
		batches[i] = patience
	}
	w := man(t, 4, patience, batches, func(int) {})
	if n := w.hired.Load(); n != 1 {
		t.Errorf("there are %d threads", n)
	}
}

type endless struct{ taken atomic.Int64 }

func (e *endless) take() (found, dry bool, err error) {
	e.taken.Add(1)
	return true, false, nil
}
func (*endless) work(*turn) {}
func (*endless) give(bool)  {}

// A crew that always has something to do ends when it is told to, and answers its bell.
func TestCrewEndsInAFlood(t *testing.T) {
	t.Parallel()
	for _, threads := range []int{1, 3} {
		c, err := newCrew(threads, patience)
		if err != nil {
			t.Fatal(err)
		}
		c.fd = c.lead.fd
		var h endless
		var wg sync.WaitGroup
		c.bell.ring()
		c.hire = func() {
			wg.Go(func() {
				if err := c.run(&h); err != nil {
					t.Error(err)
				}
			})
		}
		c.man()
		eventually(t, func() bool { return h.taken.Load() > 100 })
		<-c.bell.heard
		c.bell.ring()
		<-c.bell.heard
		c.stop()
		wg.Wait()
		c.close()
	}
}

var errTaken = errors.New("taken away")

type broken struct{ worker }

func (*broken) take() (found, dry bool, err error) { return false, false, errTaken }

// If there is nothing any more to take from, each thread ends, and says why.
func TestCrewEnds(t *testing.T) {
	t.Parallel()
	c, err := newCrew(3, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	c.fd = c.lead.fd
	c.bell.ring()
	var wg sync.WaitGroup
	c.hired = len(c.turns)
	for range c.turns {
		wg.Go(func() {
			if err := c.run(&broken{}); !errors.Is(err, errTaken) {
				t.Errorf("ended: %v", err)
			}
		})
	}
	wg.Wait()
}
