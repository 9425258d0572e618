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
	for _, l := range append(slices.Clone(s.letters), s.conflicts...) {
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
		if why := c.unjustified(s, l); why != "" {
			c.violate("I6", s.key, "the reason "+string(l.Reason)+" only where "+why, c.seen(s, l))
		}
	}
}

func (c *checker) seen(s *story, l Letter) string {
	text := fmt.Sprintf("letter %d after %d attempts, %d tries, calls", l.Seq, l.Attempts, len(s.tries))
	for _, call := range s.calls {
		text += " " + call.Answer.Class
	}
	return text
}

// unjustified says when the reason of a letter would be right, or nothing if it is.
func (c *checker) unjustified(s *story, l Letter) string {
	from, to := s.tries[0].At, l.BuriedAt.Add(c.widest())
	ended := c.faults.ended(from, to)
	// Attempts that the downstream did not see.
	unseen := c.faults.anyCutOff(from, to) || ended > 0
	pub := s.tries[0].Line
	saw := func(is func(*Call) bool) bool { return slices.ContainsFunc(s.calls, is) }
	switch l.Reason {
	case mulligan.PermanentFailure:
		return unless(saw(func(call *Call) bool { return call.Answer.Class == refused }), "the downstream refused it for good")
	case mulligan.InDoubt:
		doubt := saw((*Call).doubtful) || saw(c.faults.unheard) || unseen || c.faults.away(from, to) ||
			c.couldTake(s) >= s.kind.total // its caller may have gone just when it was answered
		return unless(s.kind.effect == mulligan.Once && doubt, "it is a once job whose call ended in doubt")
	case mulligan.Crashed:
		return unless(ended >= 3, "workers ended three times")
	case mulligan.AttemptsExhausted:
		return unless(l.Attempts >= s.kind.attempts && (len(s.calls)+cutShort(s, l) >= s.kind.attempts || unseen), "all attempts were used")
	case mulligan.TimeExhausted:
		return unless(c.couldTake(s) >= s.kind.total || unseen, "calls and delays can have used the total")
	case mulligan.Expired:
		return unless(c.couldExpire(s, l), "no attempt could start before its deadline")
	case mulligan.KeyConflict:
		return unless(s.conflicting(), "publishers sent several payloads")
	case mulligan.TaskBudget:
		return unless(pub.Task != "" && (c.taskUsed(pub.Task) >= taskRetries || c.faults.anyCutOff(time.Time{}, to)), "the retries of its task are used")
	case mulligan.UserBudget:
		return unless(pub.User != "" && !pub.Deadline.IsZero(), "its user's next place is past its deadline")
	}
	return "anything else happened than what this run does"
}

// cutShort counts attempts of a letter that began so near a deadline that no call
// may have come of them.
func cutShort(s *story, l Letter) (n int) {
	for _, a := range l.History {
		if slices.ContainsFunc(s.tries, func(p Said[Published]) bool {
			return !p.Line.Deadline.IsZero() && a.At.Add(onTheWay).After(p.Line.Deadline)
		}) {
			n++
		}
	}
	return n
}

func unless(ok bool, why string) string {
	if ok {
		return ""
	}
	return why
}

// couldTake is what calls took, and the delays after them at most.
func (c *checker) couldTake(s *story) (took time.Duration) {
	for i, call := range s.calls {
		took += call.end().Sub(call.Began) + onTheWay + s.kind.longestDelay(i+1, call.Answer.Hint)
	}
	return took
}

// longestDelay is the longest that the policy plans after attempt n.
func (k kind) longestDelay(n int, hint time.Duration) time.Duration {
	most := func(first time.Duration) time.Duration {
		return min(k.max, time.Duration(float64(first)*math.Pow(2, float64(n-1))))
	}
	if hint == 0 {
		return most(k.first) * 3 / 2
	}
	w := most(time.Second)
	return max(hint, w*3/2) + max(hint/10, w/2)
}

// couldExpire reports whether the deadline was so near that the next retry could
// not start before it. Waiting for a place of the user is told otherwise.
func (c *checker) couldExpire(s *story, l Letter) bool {
	first := time.Time{}
	for _, p := range s.tries {
		if d := p.Line.Deadline; !d.IsZero() && (first.IsZero() || d.Before(first)) {
			first = d
		}
	}
	if first.IsZero() {
		return false
	}
	slack := time.Duration(0)
	for i, call := range s.calls {
		slack = max(slack, s.kind.longestDelay(i+1, call.Answer.Hint))
	}
	for _, a := range l.History {
		if a.Throttled && c.faults.anyCutOff(a.At, a.At) { // what stands in for the downstream says 503 and logs nothing
			slack = max(slack, s.kind.longestDelay(a.Number, 1))
		}
	}
	return !l.BuriedAt.Add(slack + 2*c.widest()).Before(first)
}

// widest is how wrong a clock is at most, of whichever process it was.
func (c *checker) widest() (most time.Duration) {
	for _, f := range c.faults {
		if f.skews() {
			most = max(most, f.For, -f.For)
		}
	}
	return most
}

// taskUsed is how many retries of a task there were, or may have been: one that
// was granted may have come to nothing by a fault or by a deadline.
func (c *checker) taskUsed(task string) (n int) {
	for _, s := range c.tasked[task] {
		for _, call := range s.calls {
			if call.Attempt > 1 || c.faults.hit(call) {
				n++
			}
		}
		for _, l := range s.letters {
			if l.Reason == mulligan.Expired {
				n++
			}
		}
		for _, o := range s.operated { // whose letter is gone
			if o.Line.Reason == mulligan.Expired && o.Line.Answer == "" {
				n++
			}
		}
	}
	return n
}

// history checks that the calls which the downstream saw stand in the record or
// the letter (I7).
func (c *checker) history(s *story) {
	var entries []mulligan.Attempt
	switch {
	case s.record != nil:
		entries = s.record.History
	case len(s.letters) > 0:
		entries = s.letters[0].History
	}
	for _, a := range entries {
		if (a.Verb == mulligan.Nak || a.Verb == mulligan.Park) && a.ErrorType == "" {
			c.violate("I7", s.key, "why it was tried again, with each retry", fmt.Sprintf("none with attempt %d", a.Number))
		}
	}
	if len(entries) >= keptEntries {
		return // older ones were forgotten
	}
	if stood, must := stood(entries), c.mustStand(s); stood < must {
		c.violate("I7", s.key, fmt.Sprintf("%d failed calls in the history", must), fmt.Sprint(stood))
	}
}

// keptEntries is how many entries of a history are kept.
const keptEntries = 32

// stood counts the attempts that a history tells of, and that failed.
func stood(entries []mulligan.Attempt) (n int) {
	for _, a := range entries {
		if a.ErrorType != "" && a.Verb != mulligan.Replay && a.Verb != mulligan.Resolve {
			n += max(a.Tries, 1)
		}
	}
	return n
}

// mustStand counts the calls that failed and whose worker lived to record it. A
// good answer that came without knowing of such a failure ends the key before it.
func (c *checker) mustStand(s *story) (n int) {
	for _, call := range s.calls {
		over := func(other *Call) bool {
			return other.succeeded() && other.Attempt <= call.Attempt && !s.reopened(call.Began, other.Began)
		}
		if !call.succeeded() && !call.Ended.IsZero() && !c.faults.struck(call) && !slices.ContainsFunc(s.calls, over) {
			n++
		}
	}
	return n
}
