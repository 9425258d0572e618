package witness

import (
	"fmt"
	"slices"
	"time"
)

// notBefore checks that no call begins before its publisher said, by the
// downstream's clock, whoever published (I5). All messages of a key say the same.
func (c *checker) notBefore(s *story) {
	for _, call := range s.calls {
		if len(s.tries) == 0 {
			return
		}
		if early := s.tries[0].Line.NotBefore.Sub(call.Began); early > clockSlack {
			c.violate("I5", s.key, "no call before "+clock(s.tries[0].Line.NotBefore), fmt.Sprintf("call %d by %s, %v earlier", call.Nth, call.Worker, early.Round(time.Millisecond)))
		}
	}
}

// userUsed reports whether a user can have had no place before a deadline: so many
// were taken by then, by the rule that the README states, that the next lay behind
// it. Or the budgets were away, and a place came too late.
func (c *checker) userUsed(s *story, l Letter, last entry) bool {
	pub := s.tries[0].Line
	switch {
	case pub.User == "" || pub.Deadline.IsZero() || !last.failed(): // it is asked only for a retry
		return false
	case len(s.operated) > 0:
		return true // a replay has a deadline of its own
	}
	if !l.BuriedAt.Before(pub.Deadline) && c.faults.away(last.end(), l.BuriedAt) {
		return true
	}
	var asked []time.Time
	for _, other := range c.users[pub.User] {
		for _, at := range c.plans(other) {
			if at.IsZero() || at.After(l.BuriedAt) {
				at = l.BuriedAt
			}
			asked = append(asked, at)
		}
	}
	slices.SortFunc(asked, time.Time.Compare)
	interval, whole := time.Duration(float64(time.Second)/c.e.UserRate.PerSecond), time.Time{}
	for _, at := range asked {
		whole = later(whole, at).Add(interval)
	}
	place := whole.Add(-time.Duration(c.e.UserRate.Burst-1) * interval)
	return !place.Add(clockSlack).Before(pub.Deadline)
}

// rates checks that no user had more retries in a window than the rate allows
// (I8). A place is taken at most so long before its call as a token: a nak comes
// back within two seconds, and what is parked asks when it is due or waits for its
// place.
func (c *checker) rates() {
	rate := c.e.UserRate
	for user, stories := range c.users {
		var retries []time.Time
		for _, s := range stories {
			for i, call := range s.calls {
				if s.retried(i) && !s.reopened(s.calls[i-1].Began, call.Began) {
					retries = append(retries, call.Began)
				}
			}
		}
		slices.SortFunc(retries, time.Time.Compare)
		if window := c.over(rate, retries); window != "" {
			c.violate("I8", "user "+user, fmt.Sprintf("at most %d retries at once and %v a second", rate.Burst, rate.PerSecond), window)
		}
	}
}

// over is the window of retries that is furthest over a rate, in words.
func (c *checker) over(rate Rate, retries []time.Time) (window string) {
	furthest := 0.0
	for i, from := range retries {
		since := heldSince(c.faults, from)
		for j := i; j < len(retries); j++ {
			allowed := float64(rate.Burst) + rate.PerSecond*retries[j].Sub(since).Seconds()
			if n := float64(j - i + 1); n-allowed > furthest {
				furthest = n - allowed
				window = fmt.Sprintf("%.0f from %s to %s, allowed are %.1f", n, clock(from), clock(retries[j]), allowed)
			}
		}
	}
	return window
}
