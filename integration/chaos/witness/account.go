package witness

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// An account is a history, each entry beside the call that it tells of.
type account []entry

type entry struct {
	mulligan.Attempt
	call *Call         // nil if the downstream saw none
	left time.Duration // of the policy's total when it began
}

// failed reports whether the entry tells of an attempt that failed, and not of a
// deferral, or of what a person did.
func (e entry) failed() bool {
	return e.ErrorType != "" && e.Verb != mulligan.Replay && e.Verb != mulligan.Resolve
}

// answered is the status that the entry says it was answered with; zero if it says
// that no answer came.
func (e entry) answered() int {
	status, _ := strings.CutPrefix(e.ErrorType, "http_")
	n, _ := strconv.Atoi(status) // other words are no answers
	return n
}

// tooLate reports whether the attempt failed when its key had been spent for having
// no end: the failure took the place of that, and is not what the key was spent for.
func (e entry) tooLate() bool { return e.failed() && e.Verb == mulligan.Spend && e.Reason == "" }

// planned reports whether a retry followed, for which the budgets were asked.
func (e entry) planned() bool {
	return e.failed() && (e.Verb == mulligan.Nak || e.Verb == mulligan.Park || e.Verb == mulligan.Defer)
}

func (e entry) end() time.Time { return e.At.Add(e.Took) }

// told is the history of the key: that of its record, which goes on, else of its
// letter.
func (s *story) told() []mulligan.Attempt {
	switch {
	case s.record != nil:
		return s.record.History
	case len(s.letters) > 0:
		return s.letters[0].History
	}
	return nil
}

// account finds the call of each entry. Answers choose first: one that was given
// fits one call, silence fits many.
func (c *checker) account(s *story, history []mulligan.Attempt) account {
	a, spent := make(account, len(history)), time.Duration(0)
	for i, h := range history {
		a[i] = entry{Attempt: h, left: s.kind.total - spent}
		if spent += h.Took + h.Delay; h.Verb == mulligan.Replay || h.Verb == mulligan.Resolve {
			spent = 0
		}
	}
	left := slices.Clone(s.calls)
	for _, answered := range []bool{true, false} {
		for i, e := range a {
			if !e.failed() || answered != (e.answered() > 0) {
				continue
			}
			if n := c.nearest(left, e); n >= 0 {
				a[i].call = left[n]
				left = slices.Delete(left, n, n+1)
			}
		}
	}
	return a
}

// nearest is the call that fits an entry best; below zero is none. An attempt is
// counted when it ends: those of other messages may have been before it.
func (c *checker) nearest(calls []*Call, e entry) (n int) {
	n = -1
	for i, call := range calls {
		status := e.answered()
		late := call.Began.After(e.end().Add(onTheWay))
		switch {
		case call.Attempt > e.Number || call.Began.Before(e.At.Add(-onTheWay)):
			continue
		case status > 0 && (status != call.Answer.Status || late), late && !c.inHand(call, e.end()):
			continue
		}
		if n < 0 || e.closer(call, calls[n]) {
			n = i
		}
	}
	return n
}

// closer reports whether an entry is rather that of call than of other. An attempt
// ends with its answer, while calls of several may arrive late and together; without
// an answer it is known by its beginning.
func (e entry) closer(call, other *Call) bool {
	if e.answered() > 0 {
		return call.end().Sub(e.end()).Abs() < other.end().Sub(e.end()).Abs()
	}
	return call.Began.Sub(e.At).Abs() < other.Began.Sub(e.At).Abs()
}

// life is what happened since a person last had the key begin again.
func (a account) life() account {
	for i := len(a) - 1; i >= 0; i-- {
		if a[i].Verb == mulligan.Replay || a[i].Verb == mulligan.Resolve {
			return a[i+1:]
		}
	}
	return a
}

// count is how many entries are like that.
func (a account) count(like func(e entry) bool) (n int) {
	for _, e := range a {
		if like(e) {
			n++
		}
	}
	return n
}

// last is the last attempt that failed; the zero entry if none did.
func (a account) last() (last entry) {
	for _, e := range a {
		if e.failed() {
			last = e
		}
	}
	return last
}

// tries is how many attempts failed.
func (a account) tries() (n int) {
	for _, e := range a {
		if e.failed() {
			n += max(e.Tries, 1)
		}
	}
	return n
}

// history checks that the record, or the letter, tells of the calls which the
// downstream saw and of no others (I7).
func (c *checker) history(s *story) {
	a, stand := c.account(s, s.told()), map[*Call]bool{}
	for _, e := range a {
		stand[e.call] = true
		if (e.Verb == mulligan.Nak || e.Verb == mulligan.Park) && e.ErrorType == "" {
			c.violate("I7", s.key, "why it was tried again, with each retry", "none with attempt "+strconv.Itoa(e.Number))
		}
		if e.failed() && !c.holds(s, e) {
			c.violate("I7", s.key, "a history of what the downstream saw, or a fault kept from it", e.ErrorType+" of attempt "+strconv.Itoa(e.Number)+" at "+clock(e.At)+", "+e.Took.String()+" long")
		}
	}
	if len(a) >= keptEntries {
		return // older ones were forgotten
	}
	for _, call := range s.calls {
		if !stand[call] && c.mustStand(s, call) {
			c.violate("I7", s.key, "each failed call in the history", call.Answer.Class+" of call "+strconv.Itoa(call.Nth)+" by "+call.Worker+" at "+clock(call.Began))
		}
	}
}

// keptEntries is how many entries of a history are kept.
const keptEntries = 32

// holds reports whether what an entry says fits what the downstream saw. An answer
// must have been given. Silence is the downstream's own, or comes of a fault that
// lay between the two then, or of a time that ran out.
func (c *checker) holds(s *story, e entry) bool {
	switch call := e.call; {
	case e.answered() > 0:
		return call != nil
	case e.ErrorType == "no_end":
		return c.unended(s, e)
	case call == nil:
		return c.between(e) || s.cutShort(e)
	case call.Answer.Status == 0 || call.Ended.IsZero() || call.Gone:
		return true
	case c.faults.unheard(call) || c.between(e):
		return true
	default: // the caller was gone when the answer came
		late := !call.end().Add(onTheWay).Before(e.end())
		return late && e.ErrorType == "timeout" && (e.Took >= callTimeout || s.cutShort(e))
	}
}

// between reports whether a fault lay on the way of some worker to the downstream
// during an attempt: an entry does not say of which.
func (c *checker) between(e entry) bool {
	return c.faults.any(e.At.Add(-linger), e.end().Add(linger), linger, func(s strike) bool { return s.someWorker || s.of("downstream") })
}

// unended reports whether a fault explains that nobody knows of a start how it
// ended: of its worker, or of the servers, which gave its message to another.
func (c *checker) unended(s *story, e entry) bool {
	if e.call != nil {
		return c.faults.hit(e.call)
	}
	return c.faults.any(e.At.Add(-linger), e.At.Add(callTimeout+linger), settle, func(s strike) bool { return s.someWorker || s.servers })
}

// cutShort reports whether an attempt had so little time left, before its deadline
// or of its total, that no call may have come of it.
func (s *story) cutShort(e entry) bool {
	near := func(p Said[Published]) bool {
		return !p.Line.Deadline.IsZero() && e.At.Add(callTimeout).After(p.Line.Deadline)
	}
	return e.Took < callTimeout && (slices.ContainsFunc(s.tries, near) || e.left < callTimeout)
}

// mustStand reports whether a call failed and its worker lived to record it. A
// good answer that came without knowing of such a failure ends the key before it, as
// does any for a worker that was frozen with the job in hand. By its number it knew of
// fewer failures than there were, while servers kept a worker from recording one.
func (c *checker) mustStand(s *story, call *Call) bool {
	frozen := c.faults.thawed(call)
	over := func(other *Call) bool {
		unrecorded := s.failedBefore(other) >= other.Attempt && c.faults.away(call.Ended, other.Began)
		return other.succeeded() && (other.Attempt <= call.Attempt || frozen || unrecorded) && !s.reopened(call.Began, other.Began)
	}
	return !call.succeeded() && !call.Ended.IsZero() && !c.faults.struck(call) && !slices.ContainsFunc(s.calls, over)
}

// failedBefore is how many calls of the same life had failed before another began.
func (s *story) failedBefore(other *Call) (n int) {
	for _, c := range s.calls {
		if !c.succeeded() && !c.Ended.IsZero() && c.Ended.Before(other.Began) && !s.reopened(c.Began, other.Began) {
			n++
		}
	}
	return n
}
