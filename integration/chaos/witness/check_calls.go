package witness

import (
	"fmt"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// attempts checks how often and how late a key was called (I3).
func (c *checker) attempts(s *story) {
	if len(s.calls) == 0 || len(s.tries) == 0 {
		return
	}
	for _, call := range s.calls {
		if call.Attempt < 1 || call.Attempt > s.kind.attempts {
			c.violate("I3", s.key, fmt.Sprintf("attempts from 1 to %d", s.kind.attempts), fmt.Sprintf("attempt %d at call %d", call.Attempt, call.Nth))
		}
	}
	// Of several messages of a key each may be running when the last attempt of
	// another is recorded.
	most, more := s.kind.attempts*s.lives()+s.messages()-1, c.faults.repeats(s.calls)
	if len(s.calls) > most+more {
		c.violate("I3", s.key, fmt.Sprintf("at most %d calls, and %d more for faults", most, more), fmt.Sprint(len(s.calls)))
	}
	c.numbers(s)
	c.deadline(s)
	c.total(s)
}

// numbers checks that the count of attempts goes on from one call to the next.
func (c *checker) numbers(s *story) {
	if s.messages() > 1 {
		return // several messages, each with a call of its own
	}
	told := c.account(s, s.told())
	for i, next := range s.calls[1:] {
		call := s.calls[i]
		if call.Ended.IsZero() || next.Began.Before(call.Ended) || call.succeeded() || c.faults.struck(call) || s.reopened(call.Began, next.Began) {
			continue
		}
		until, shaken := c.faults.shaken(call)
		unseen := func(e entry) bool {
			return (e.call == nil || e.call.Began.After(next.Began)) && e.At.Before(next.Began)
		}
		givenUp := func(e entry) bool { return e.call == next && e.Number == next.Attempt && e.end().Before(call.Began) }
		switch more := next.Attempt - call.Attempt; {
		case more == 1:
		// Recorded late, so that each before it is a call, or did not arrive until then, as
		// the history says.
		case more > 1 && next.Attempt-1 <= i+1+told.count(unseen):
		case more == 0 && shaken && !next.Began.After(until): // begun before the failure was recorded
		case next.Attempt == 1 && c.twice(s, next): // in two hands
		case more < 0 && (c.faults.late(next) || told.count(givenUp) > 0): // sent before
		case more <= 0 && c.faults.thawed(next): // in hand since before
		default:
			c.violate("I3", s.key, fmt.Sprintf("attempt %d after attempt %d, which failed at %s", call.Attempt+1, call.Attempt, clock(call.Ended)),
				fmt.Sprintf("attempt %d by %s at %s", next.Attempt, next.Worker, clock(next.Began)))
		}
	}
}

// twice reports whether a call may be a first one once more, of a pure job: a consumer
// that is created again begins anew (NumDelivered is 1 again), as does one whose new
// leader has not heard of a delivery; and whatever is in hand elsewhere, maybe held by
// a breaker, also runs at once. Each fault explains one.
func (c *checker) twice(s *story, call *Call) bool {
	if s.kind.effect != mulligan.Pure {
		return false
	}
	firsts, more := 0, 0
	for _, other := range s.calls {
		if other.Attempt == 1 && !other.Began.After(call.Began) {
			firsts++
		}
	}
	for _, f := range c.faults {
		if f.servers && f.overlaps(s.tries[0].At, call.Began, linger) {
			more++
		}
	}
	return firsts <= 1+more
}

// onTheWay is how long a request that was begun in time may take to be written
// down by a downstream on a busy machine.
const onTheWay = time.Second

// deadline checks that no call begins after the latest deadline of the key's
// messages, by the clock of the worker. A replay gives as much time as there was
// at first.
func (c *checker) deadline(s *story) {
	latest, within := time.Time{}, time.Duration(0)
	for _, p := range s.tries {
		if p.Line.Deadline.IsZero() {
			return
		}
		if p.Line.Deadline.After(latest) {
			latest = p.Line.Deadline
		}
		within = max(within, p.Line.Deadline.Sub(s.tries[0].At))
	}
	for _, o := range s.operated {
		if o.Line.What == Discard || o.Line.What == ResolveDone {
			continue
		}
		if at := o.At.Add(within + operatorWaits); at.After(latest) {
			latest = at
		}
	}
	for _, call := range s.calls {
		if late := call.Began.Sub(latest); late > onTheWay && !c.inHand(call, latest) {
			c.violate("I3", s.key, "no call after the deadline "+clock(latest), fmt.Sprintf("call %d by %s, %v later", call.Nth, call.Worker, late.Round(time.Millisecond)))
		}
	}
}

// total checks that the calls together took no longer than the policy's total.
func (c *checker) total(s *story) {
	took := time.Duration(0)
	for _, call := range s.calls {
		if !call.Ended.IsZero() && !c.faults.hit(call) && !c.faults.cutOff(call.Worker, call.Began, call.end()) {
			took += call.end().Sub(call.Began)
		}
	}
	// One more timeout for each message that may run beside the others.
	if most := s.kind.total*time.Duration(s.lives()) + callTimeout*time.Duration(s.messages()); took > most {
		c.violate("I3", s.key, fmt.Sprintf("calls of at most %v", most), took.String())
	}
}

// hints checks that a key is not called before the downstream said (I5). The
// downstream's clock is the reference.
func (c *checker) hints(s *story) {
	for i, call := range s.calls {
		if call.Answer.Hint == 0 || c.faults.unheard(call) {
			continue
		}
		known, _ := c.faults.shaken(call)
		for _, next := range s.calls[i+1:] {
			// Begun before the answer was known, or sent before it and late; or a replay,
			// which is a person's word; or another message: of a pure key it runs at once,
			// else it may have been admitted before the answer was recorded.
			wait := next.Began.Sub(call.Ended)
			if wait <= 0 || next.Attempt <= call.Attempt && (!next.Began.After(known) || c.faults.late(next)) || s.reopened(call.Ended, next.Began) ||
				s.messages() > 1 && (s.kind.effect == mulligan.Pure || wait < race) {
				continue
			}
			c.hinted(s, call, next)
			break
		}
	}
}

// hinted checks one hint, and the call that followed it.
func (c *checker) hinted(s *story, call, next *Call) {
	c.Hints++
	wait := next.Began.Sub(call.Ended)
	if wait < call.Answer.Hint {
		c.violate("I5", s.key, fmt.Sprintf("no call within %v of the answer at %s", call.Answer.Hint, clock(call.Ended)),
			fmt.Sprintf("call %d by %s after %v", next.Nth, next.Worker, wait.Round(time.Millisecond)))
	}
}
