package watch

import (
	"context"
	"errors"
	"math"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// hostGroups are what the kernel tells of that can move a path: links with their
// MTU, addresses, routes, rules.
const hostGroups = unix.RTMGRP_LINK |
	unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV4_RULE |
	unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV6_ROUTE

// hostChanges puts a token into changes whenever something of the host's network
// has changed, until ctx ends. What it was is not said: messages may be lost, and
// the path is looked up anyway.
func hostChanges(ctx context.Context, changes chan<- struct{}) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: hostGroups})
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		_, err := conn.Receive()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !overrun(err) {
			return err
		}
		put(changes)
	}
}

// overrun tells that the kernel had more to say than the socket holds: something
// has changed, for sure.
func overrun(err error) bool { return errors.Is(err, unix.ENOBUFS) }

// clockJumps puts a token into jumps whenever the machine wakes from a suspend, or
// its clock is set, until ctx ends. The kernel ends the wait for a timer of
// CLOCK_REALTIME then (TFD_TIMER_CANCEL_ON_SET, timerfd_create(2)): it costs nothing
// while nothing happens.
func clockJumps(ctx context.Context, jumps chan<- struct{}) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("timerfd_create", err)
	}
	timer := os.NewFile(uintptr(fd), "timer")
	defer timer.Close()
	stop := context.AfterFunc(ctx, func() { timer.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	never := unix.ItimerSpec{Value: unix.Timespec{Sec: math.MaxInt}}
	for expirations := make([]byte, 8); ; {
		if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &never, nil); err != nil {
			return os.NewSyscallError("timerfd_settime", err)
		}
		_, err := timer.Read(expirations)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, unix.ECANCELED) {
			return err
		}
		put(jumps)
	}
}

// put puts a token into a channel that holds one.
func put(tokens chan<- struct{}) {
	select {
	case tokens <- struct{}{}:
	default:
	}
}

// sleepClock tells of suspends: CLOCK_BOOTTIME goes on in one, CLOCK_MONOTONIC,
// by which the timers of Go and so of the engine go, does not (clock_gettime(2)).
type sleepClock struct {
	slept func() time.Duration
	last  time.Duration
}

// longSleep is what counts as a suspend: the two clocks are read one after the
// other.
const longSleep = time.Second

func newSleepClock(slept func() time.Duration) *sleepClock {
	return &sleepClock{slept: slept, last: slept()}
}

// woke tells whether the machine has slept since it was last asked.
func (c *sleepClock) woke() bool {
	before := c.last
	c.last = c.slept()
	return c.last-before > longSleep
}

// timeAsleep returns how long the machine was suspended since it was started.
func timeAsleep() time.Duration {
	var boot, monotonic unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil {
		return 0
	}
	return time.Duration(boot.Nano() - monotonic.Nano())
}
