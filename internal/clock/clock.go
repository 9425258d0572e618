// Package clock has the time that all processes agree on: that of the NATS
// server, which also fires the schedules.
package clock

import (
	"sync"
	"sync/atomic"
	"time"
)

// near is by how much a machine's clock may be off without being called so.
const near = 100 * time.Millisecond

// A Clock is the latest that the server's clock can show, as far as this process
// knows: what is planned by it never comes early. Once it has been set it goes on
// by the monotonic time of the machine: whoever sets that machine's clock does not
// move it. The zero Clock is the machine's. It is safe for concurrent use.
type Clock struct {
	mu  sync.Mutex // of Set
	set atomic.Pointer[reading]
}

// reading is one moment by two clocks.
type reading struct{ machine, server time.Time }

// Now is the time, for what others read: a record, a schedule, a deadline. It has
// no monotonic part. How long something took is for time.Since.
func (c *Clock) Now() time.Time { return c.At(time.Now()) }

// At is the time at a moment of this process, by what is known now.
func (c *Clock) At(now time.Time) time.Time {
	r := c.set.Load()
	if r == nil {
		return now.Round(0)
	}
	return r.server.Add(now.Sub(r.machine))
}

// Until is how long it is until t.
func (c *Clock) Until(t time.Time) time.Duration { return t.Sub(c.Now()) }

// A Sample is what one question told about the server's clock: its time lies
// between when the machine asked and when it had the answer.
type Sample struct {
	Asked, Answered time.Time // by the machine's clock
	Server          time.Time
}

// Set puts the clock right by a sample, if that shows it to be wrong or is more
// exact. It returns by how much the machine's clock is ahead of the server's: zero
// if they agree.
func (c *Clock) Set(s Sample) (ahead time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	least, trip := s.Server.Round(0), s.Answered.Sub(s.Asked)
	most := least.Add(trip)
	if now := c.At(s.Answered); c.set.Load() == nil || now.Before(least) || now.After(most) {
		c.set.Store(&reading{s.Answered, most})
	}
	if ahead = s.Answered.Round(0).Sub(c.At(s.Answered)); ahead.Abs() <= trip+near {
		return 0
	}
	return ahead
}
