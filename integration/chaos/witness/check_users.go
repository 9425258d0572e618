package witness

import (
	"fmt"
	"maps"
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

// A turn is a retry of a user: its place lies between the end of the attempt before
// it and its call, whatever happened in between.
type turn struct{ planned, called time.Time }

// rates checks that no user had more places in a window than the rate allows (I8).
// No fault excuses that: a place that came to nothing is wasted.
func (c *checker) rates() {
	rate := c.e.UserRate
	for _, user := range slices.Sorted(maps.Keys(c.users)) {
		var turns []turn
		for _, s := range c.users[user] {
			turns = append(turns, c.turns(s)...)
		}
		if window := rate.over(turns); window != "" {
			c.violate("I8", "user "+user, fmt.Sprintf("at most %d retries at once and %v a second", rate.Burst, rate.PerSecond), window)
		}
	}
}

// turns are the retries of a key that were called, by its history.
func (c *checker) turns(s *story) (turns []turn) {
	for _, e := range c.account(s, s.told()) {
		if at := s.next(e.Number, e.end()); e.planned() && !at.IsZero() && !s.reopened(e.end(), at) {
			turns = append(turns, turn{e.end(), at})
		}
	}
	return turns
}

// over is the window that is furthest over a rate, in words.
func (r Rate) over(turns []turn) (window string) {
	slices.SortFunc(turns, func(a, b turn) int { return a.called.Compare(b.called) })
	furthest := 0.0
	for _, first := range turns {
		n := 0.0
		for _, t := range turns {
			if t.planned.Before(first.planned) {
				continue
			}
			n++
			allowed := float64(r.Burst) + r.PerSecond*(t.called.Sub(first.planned)+clockSlack).Seconds()
			if n-allowed > furthest {
				furthest = n - allowed
				window = fmt.Sprintf("%.0f from %s to %s, allowed are %.1f", n, clock(first.planned), clock(t.called), allowed)
			}
		}
	}
	return window
}
