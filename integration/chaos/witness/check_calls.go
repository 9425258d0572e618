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
	recorded, excused := 0, 0
	for _, call := range s.calls {
		if c.faults.unrecorded(call) {
			excused++
		} else {
			recorded++
		}
		if call.Attempt < 1 || call.Attempt > s.kind.attempts {
			c.violate("I3", s.key, fmt.Sprintf("attempts from 1 to %d", s.kind.attempts), fmt.Sprintf("attempt %d at call %d", call.Attempt, call.Nth))
		}
	}
	first, last := s.calls[0], s.calls[len(s.calls)-1]
	_, runs := c.faults.between(first.Began, last.end())
	// Of several messages of a key each may be running when the last attempt of
	// another is recorded.
	most := s.kind.attempts*s.lives() + len(s.tries) - 1
	if recorded > most || recorded+excused > most+runs {
		c.violate("I3", s.key, fmt.Sprintf("at most %d calls, and %d more for faults", most, runs), fmt.Sprintf("%d, of which %d without a fault", len(s.calls), recorded))
	}
	c.numbers(s)
	c.deadline(s)
	c.total(s)
}

// numbers checks that the count of attempts goes on from one call to the next.
func (c *checker) numbers(s *story) {
	if len(s.tries) > 1 {
		return // several messages, each with a call of its own
	}
	for i, next := range s.calls[1:] {
		call := s.calls[i]
		if call.Ended.IsZero() || next.Began.Before(call.Ended) || call.succeeded() || c.faults.unrecorded(call) || s.reopened(call.Began, next.Began) {
			continue
		}
		if next.Attempt > call.Attempt && c.anyCutOff(call.Ended, next.Began) {
			continue // the attempts between did not arrive
		}
		if next.Attempt != call.Attempt+1 {
			c.violate("I3", s.key, fmt.Sprintf("attempt %d after attempt %d, which failed at %s", call.Attempt+1, call.Attempt, clock(call.Ended)),
				fmt.Sprintf("attempt %d by %s at %s", next.Attempt, next.Worker, clock(next.Began)))
		}
	}
}

// anyCutOff reports whether attempts in a time may have gone unseen, whichever
// worker made them.
func (c *checker) anyCutOff(from, to time.Time) bool {
	return c.faults.any(from, to, func(f Fault) (time.Duration, bool) { return linger, f.of("downstream") })
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
		behind := max(-c.faults.skew(call.Worker), 0)
		if late := call.Began.Sub(latest); late > onTheWay+behind && !c.inHand(call, latest) {
			c.violate("I3", s.key, "no call after the deadline "+clock(latest), fmt.Sprintf("call %d by %s, %v later", call.Nth, call.Worker, late.Round(time.Millisecond)))
		}
	}
}

// total checks that the calls together took no longer than the policy's total.
func (c *checker) total(s *story) {
	took := time.Duration(0)
	for _, call := range s.calls {
		if !c.faults.unheard(call) || call.Gone && !c.faults.unrecorded(call) {
			took += call.end().Sub(call.Began)
		}
	}
	// One more timeout for each message that may run beside the others.
	if most := s.kind.total*time.Duration(s.lives()) + callTimeout*time.Duration(len(s.tries)); took > most {
		c.violate("I3", s.key, fmt.Sprintf("calls of at most %v", most), took.String())
	}
}

// hints checks that a key is not called before the downstream said (I5). The
// downstream's clock is the reference.
func (c *checker) hints(s *story) {
	for i, call := range s.calls {
		if call.Answer.Hint == 0 || call.Ended.IsZero() || call.Gone || c.faults.unheard(call) {
			continue
		}
		for _, next := range s.calls[i+1:] {
			// Begun before the answer was known; or a replay, which is a person's word; or
			// another message: of a pure key it runs at once, else it may have been admitted
			// before the answer was recorded.
			wait := next.Began.Sub(call.Ended)
			if wait <= 0 || s.reopened(call.Ended, next.Began) || len(s.tries) > 1 && (s.kind.effect == mulligan.Pure || wait < race) {
				continue
			}
			c.Hints++
			early := call.Answer.Hint - wait
			switch behind := max(-c.faults.skew(call.Worker), 0); {
			case early <= 0:
			case early <= behind:
				// A retry that is parked is due at a time by the worker's clock, and comes
				// back by the server's: one that is behind brings it back too early.
				c.EarlyBySkew++
			default:
				c.violate("I5", s.key, fmt.Sprintf("no call within %v of the answer at %s", call.Answer.Hint, clock(call.Ended)), fmt.Sprintf("call %d by %s after %v", next.Nth, next.Worker, wait.Round(time.Millisecond)))
			}
			break
		}
	}
}
