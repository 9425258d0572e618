package witness

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// letters checks what dead letters say against what the downstream saw (I6).
func (c *checker) letters(s *story) {
	faultless := *c
	faultless.faults = nil
	for _, l := range append(slices.Clone(s.letters), s.conflicts...) {
		c.Letters++
		p := slices.IndexFunc(s.tries, func(p Said[Published]) bool { return p.Line.Payload == l.Payload })
		if p < 0 {
			c.violate("I6", s.key, "a letter with a payload as published", fmt.Sprintf("letter %d with %.8s", l.Seq, l.Payload))
			continue
		}
		if was := s.tries[p].Line; l.User != was.User || l.Task != was.Task {
			c.violate("I6", s.key, fmt.Sprintf("user %q and task %q as published", was.User, was.Task), fmt.Sprintf("%q and %q", l.User, l.Task))
		}
		if l.BuriedAt.IsZero() {
			c.violate("I6", s.key, "when it was buried", "nothing")
		}
		if l.Attempts > 0 && len(l.History) == 0 {
			c.violate("I6", s.key, "the history of a letter", fmt.Sprintf("none, after %d attempts", l.Attempts))
		}
		life := c.account(s, l.History).life()
		if why := c.unjustified(s, l, life); why != "" {
			c.violate("I6", s.key, "the reason "+string(l.Reason)+" only where "+why, c.seen(s, l))
		} else if faultless.unjustified(s, l, life) != "" {
			c.ExcusedLetters++
		}
	}
}

func (c *checker) seen(s *story, l Letter) string {
	text := fmt.Sprintf("letter %d after %d attempts, %d messages, calls", l.Seq, l.Attempts, s.messages())
	for _, call := range s.calls {
		text += " " + call.Answer.Class
	}
	return text
}

// unjustified says when the reason of a letter would be right, or nothing if it
// is. The letter's own history is the account, and only what hit this key excuses.
func (c *checker) unjustified(s *story, l Letter, life account) string {
	last := life.last()
	switch l.Reason {
	case mulligan.PermanentFailure:
		return unless(slices.ContainsFunc(life, entry.refused), "the downstream refused it for good")
	case mulligan.InDoubt:
		return unless(s.kind.effect == mulligan.Once && slices.ContainsFunc(life, func(e entry) bool { return c.doubts(s, e) }), "it is a once job whose call ended in doubt")
	case mulligan.Crashed:
		return unless(c.faults.ends(s.calls) >= 2 && c.faults.ended(s.tries[0].At, l.BuriedAt) >= 3, "workers ended three times with it in hand")
	case mulligan.AttemptsExhausted:
		return unless(life.tries() >= s.kind.attempts || len(l.History) >= keptEntries, "all attempts were used")
	case mulligan.TimeExhausted:
		return unless(s.kind.couldTake(life) >= s.kind.total || len(l.History) >= keptEntries, "calls and delays can have used the total")
	case mulligan.Expired:
		return unless(c.couldExpire(s, l, last), "no attempt could start before its deadline")
	case mulligan.KeyConflict:
		return unless(s.conflicting(), "publishers sent several payloads")
	case mulligan.TaskBudget:
		task := s.tries[0].Line.Task
		return unless(task != "" && c.taskUsed(task) >= taskRetries, "the retries of its task are used")
	case mulligan.UserBudget:
		return unless(c.userUsed(s, l, last), "its user's next place is past its deadline")
	}
	return "anything else happened than what this run does"
}

// refused reports whether the attempt was spent because the downstream refused it.
// Another message of the key may have failed behind it.
func (e entry) refused() bool {
	return e.Reason == mulligan.PermanentFailure && e.call != nil && e.call.Answer.Class == refused
}

// doubts reports whether an attempt was spent in doubt, and nobody knows what
// became of its call.
func (c *checker) doubts(s *story, e entry) bool {
	if e.Reason != mulligan.InDoubt && !e.tooLate() || e.NotStarted || !c.holds(s, e) {
		return false
	}
	return e.answered() == 0 || e.call.doubtful()
}

func unless(ok bool, why string) string {
	if ok {
		return ""
	}
	return why
}

// couldTake is what attempts took with the delays that followed, and the longest
// that may follow the last.
func (k kind) couldTake(life account) (took time.Duration) {
	last := life.last()
	for _, e := range life {
		if !e.failed() {
			continue
		}
		took += e.Took + min(e.Delay, k.delayAfter(e))
	}
	return took + k.delayAfter(last)
}

// delayAfter is the longest that the policy plans after an attempt.
func (k kind) delayAfter(e entry) time.Duration {
	hint := time.Duration(0)
	if e.call != nil {
		hint = e.call.Answer.Hint
	}
	return k.longestDelay(e.Number, hint, e.Throttled)
}

// longestDelay is the longest that the policy plans after attempt n.
func (k kind) longestDelay(n int, hint time.Duration, throttled bool) time.Duration {
	most := func(first time.Duration) time.Duration {
		return min(k.max, time.Duration(float64(first)*math.Pow(2, float64(n-1))))
	}
	if hint == 0 && !throttled {
		return most(k.first) * 3 / 2
	}
	w := most(time.Second)
	return max(hint, w*3/2) + max(hint/10, w/2)
}

// deadline is the earliest that the key was published with; zero is none.
func (s *story) deadline() (first time.Time) {
	for _, p := range s.tries {
		if d := p.Line.Deadline; !d.IsZero() && (first.IsZero() || d.Before(first)) {
			first = d
		}
	}
	return first
}

// couldExpire reports whether the deadline was so near that the next retry could
// not start before it. Waiting for a place of the user is told otherwise.
func (c *checker) couldExpire(s *story, l Letter, last entry) bool {
	first := s.deadline()
	if first.IsZero() {
		return false
	}
	over := l.BuriedAt // when it came back, if it was not spent by its last attempt
	if last.Reason == mulligan.Expired {
		if !c.faults.away(last.end(), l.BuriedAt) { // else the budgets, which are asked first, did not answer
			over = earlier(over, last.end().Add(answerWithin))
		}
		over = over.Add(s.kind.delayAfter(last))
	}
	return !over.Add(clockSlack).Before(first)
}

// answerWithin is how long a question to the servers takes at most, before it is
// asked again: so long after an attempt its end may be judged.
const answerWithin = 5 * time.Second

// clockSlack is by how much the clock of a process may be ahead of the server's: it
// is the latest that this can show, so by as long as its quickest question took, on
// a busy machine.
const clockSlack = 500 * time.Millisecond

// taskUsed is how many retries of a task were planned, or may have been by a worker
// that a fault kept from recording it.
func (c *checker) taskUsed(task string) (n int) {
	for _, s := range c.tasked[task] {
		n += len(c.plans(s))
	}
	return n
}

// plans are the retries of a key that were planned, each by when its call began,
// which is when its budgets had been asked at the latest; zero if none did. Where a
// call failed and a fault kept that from the record, one may have been. A retry whose
// answer may have been lost is there twice: then it was asked once more, and counts
// twice.
func (c *checker) plans(s *story) (asked []time.Time) {
	a, stand := c.account(s, s.told()), map[*Call]bool{}
	for _, e := range a {
		stand[e.call] = true
		if e.planned() {
			asked = append(asked, s.next(e.Number, e.end()))
		}
	}
	for _, call := range s.calls {
		if !stand[call] && !call.succeeded() && c.faults.hit(call) {
			asked = append(asked, s.next(call.Attempt, call.end()))
		}
	}
	for _, at := range slices.Clone(asked) {
		if !at.IsZero() && c.faults.away(at.Add(-settle), at) {
			asked = append(asked, at)
		}
	}
	return asked
}
