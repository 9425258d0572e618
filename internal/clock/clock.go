// Package clock has the time that all processes agree on: that of the NATS
// server, which also fires the schedules.
package clock

import (
	"sync"
	"time"
)

// near is how far this machine's clock may be from the server's, besides what
// the measurement leaves open, without being put right.
const near = 100 * time.Millisecond

// A Clock is the server's, as far as this process knows. Once it has been set it
// goes on by the monotonic time of the machine: whoever sets that machine's clock
// does not move it. The zero Clock is the machine's. It is safe for concurrent use.
type Clock struct {
	mu    sync.Mutex
	at    time.Time // of the machine
	there time.Time // by the server's clock, at the same moment
}

// Now is the time, for what others read: a record, a schedule, a deadline. It has
// no monotonic part. How long something took is for time.Since.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.then(time.Now())
}

// Until is how long it is until t.
func (c *Clock) Until(t time.Time) time.Duration { return t.Sub(c.Now()) }

func (c *Clock) then(now time.Time) time.Time {
	if c.at.IsZero() {
		return now.Round(0)
	}
	return c.there.Add(now.Sub(c.at))
}

// A Sample is what one question told about the server's clock: its time lies
// between when the machine asked and when it had the answer.
type Sample struct {
	Asked, Answered time.Time // by the machine's clock
	Server          time.Time
}

// Set puts the clock right by a sample, if that shows it to be wrong, and returns
// by how much the machine's clock is then ahead of the server's: zero if they agree.
func (c *Clock) Set(s Sample) (ahead time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	trip := s.Answered.Sub(s.Asked)
	agree := trip/2 + near
	middle := s.Server.Round(0).Add(trip / 2)
	if c.at.IsZero() { // from here on it is not the machine's any more, which may be set
		c.at, c.there = s.Answered, s.Answered.Round(0)
	}
	if off := c.then(s.Answered).Sub(middle); off.Abs() > agree {
		c.at, c.there = s.Answered, middle
	}
	if ahead = s.Answered.Round(0).Sub(c.then(s.Answered)); ahead.Abs() <= agree {
		return 0
	}
	return ahead
}
