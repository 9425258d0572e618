package sim

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// nothingIsLost: every accepted payload is done, dead, or, of a pure kind, was run
// with success.
func (s *story) nothingIsLost(say blame) {
	if s.stuck != "" {
		say("I1 (it ends)", "what is left: %s", s.stuck)
	}
	for _, t := range s.told {
		if t.accepted && t.verified && !s.safe(t.key, t.payload) {
			say("I1 (nothing is lost)", "%s with payload %q was accepted and is lost; its record is %s", t.key, t.payload, s.show(t.key))
		}
	}
}

func (s *story) safe(key, payload string) bool {
	r := s.records[key]
	return r != nil && r.State == mulligan.Done && r.Payload == mulligan.FingerprintOf([]byte(payload)) || s.letterOf(key, payload) != nil ||
		s.keyNamed(key).Effect == mulligan.Pure && slices.ContainsFunc(s.of(key), func(r *run) bool { return r.payload == payload && r.succeeded() })
}

func (r *run) succeeded() bool { return !r.ended.IsZero() && r.err == nil }

func (s *story) letterOf(key, payload string) *mulligan.Letter {
	for i := range s.letters {
		if s.letters[i].RecordKey() == key && string(s.letters[i].Payload) == payload {
			return &s.letters[i]
		}
	}
	return nil
}

func (s *story) show(key string) string {
	if r := s.records[key]; r != nil {
		return string(r.Encode())
	}
	return "none"
}

// nothingStays: no record waits for what will never come, and none has ended
// otherwise than its letter says.
func (s *story) nothingStays(say blame) {
	for key, r := range s.records {
		var own *mulligan.Letter
		for i, l := range s.letters {
			if l.RecordKey() == key && l.Fingerprint() == r.Payload && l.Reason != mulligan.KeyConflict {
				own = &s.letters[i]
			}
		}
		succeeded := s.keyNamed(key).Effect == mulligan.Pure && slices.ContainsFunc(s.of(key), (*run).succeeded)
		switch {
		case r.State == mulligan.Done && own != nil && !s.faulty(s.began, s.over):
			say("I6 (a done key has no letter)", "%s: %s", key, s.show(key))
		case r.State == mulligan.Done || succeeded:
		case own == nil:
			say("I1 (nothing waits in vain)", "%s has neither message nor letter: %s", key, s.show(key))
		case r.State != mulligan.Dead && !s.faulty(s.began, s.over):
			say("I6 (a letter's key is dead)", "%s: %s", key, s.show(key))
		case r.State == mulligan.Dead && r.Reason != own.Reason:
			say("I6 (record and letter agree)", "%s has a letter for %s: %s", key, own.Reason, s.show(key))
		}
	}
}

// effectsAreFew: at most one behind every key, and one behind every key that is
// said to be done, unless a person said so.
func (s *story) effectsAreFew(say blame) {
	for _, key := range s.keys() {
		if s.keyNamed(key).Effect == mulligan.Pure {
			continue
		}
		for _, down := range s.downKeys(key) {
			r, n := s.records[key], s.effects[down]
			if n > 1 {
				say("I2 (one effect)", "%d effects under %s: %s", n, down, s.show(key))
			}
			byHand := slices.ContainsFunc(s.deedsOf(key, s.over), func(d deed) bool { return strings.HasSuffix(d.verb, "done") })
			if r != nil && r.State == mulligan.Done && n == 0 && !byHand {
				say("I2 (done is done)", "no effect under %s, and its record says done: %s", down, s.show(key))
			}
			if r != nil && r.State == mulligan.Dead && n > 0 && r.Effect == mulligan.Once && !s.keyNamed(key).Steps && r.Reason != mulligan.InDoubt {
				say("I2 (a doubt is told)", "%d effects under %s, and nothing says so: %s", n, down, s.show(key))
			}
		}
	}
}

// doneIsDone: what has side effects is not run again once it is done.
func (s *story) doneIsDone(say blame) {
	for _, r := range s.runs {
		if s.keyNamed(r.key).Effect == mulligan.Pure || r.shaken(r.begun) {
			continue
		}
		at, done := s.since(r.key, func(r *mulligan.Record) bool { return r.State == mulligan.Done })
		if done && r.begun.After(at) {
			say("I2 (a done key is not run)", "%s was done at %s and ran at %s", r.key, s.clock(at), s.clock(r.begun))
		}
	}
}

// doubtsStay: a once job whose effect may have happened is not run again, unless a
// person wants it.
func (s *story) doubtsStay(say blame) {
	for i, r := range s.runs {
		doubtful := errors.Is(r.err, errFlaky) && r.answer.What == transient || errors.Is(r.err, errLate)
		if s.keyNamed(r.key).Effect != mulligan.Once || !doubtful {
			continue
		}
		for _, next := range s.runs[i+1:] {
			if next.key == r.key && next.payload == r.payload && !s.wanted(r.key, r.ended, next.begun) {
				say("I2 (a doubt is not retried)", "%s ended at %s with %v and ran at %s", r.key, s.clock(r.ended), r.err, s.clock(next.begun))
			}
		}
	}
}

func (s *story) clock(at time.Time) string { return at.Sub(s.began).String() }

// lettersTell: a letter has the payload and headers as published, the reason that
// is true, and how the attempts failed.
func (s *story) lettersTell(say blame) {
	for _, l := range s.letters {
		key := l.RecordKey()
		published := slices.ContainsFunc(s.sentOf(key), func(j mulligan.Job) bool {
			return string(j.Payload) == string(l.Payload) && j.ID == l.ID && j.User == l.User && j.Task == l.Task && j.Header.Get("X-Own") == l.Header.Get("X-Own")
		})
		if !published {
			say("I6 (as published)", "letter of %s: %+v", key, l.Job)
		}
		if l.Attempts > 0 && len(l.History) == 0 || l.Published.IsZero() || l.BuriedAt.IsZero() {
			say("I6 (history)", "letter of %s has %d attempts and history %+v", key, l.Attempts, l.History)
		}
		if !s.true(&l) {
			say("I6 (reason)", "letter of %s says %s, %s; history %+v", key, l.Reason, l.Error, l.History)
		}
	}
}

// true reports whether what happened to a key may be called by the letter's reason.
func (s *story) true(l *mulligan.Letter) bool {
	key := l.RecordKey()
	k, runs := s.keyNamed(key), s.of(key)
	answered := func(what ...act) bool {
		return slices.ContainsFunc(runs, func(r *run) bool { return slices.Contains(what, r.answer.What) })
	}
	switch l.Reason {
	case mulligan.PermanentFailure:
		return answered(permanent)
	case mulligan.AttemptsExhausted:
		return l.Attempts >= s.Attempts || answered(change)
	case mulligan.TimeExhausted:
		return s.timeOf(l) >= s.Total
	case mulligan.Expired:
		return answered(refused) || s.ends(key, l.BuriedAt.Add(30*time.Second))
	case mulligan.TaskBudget:
		return k.Task != "" && s.planned(k.Task)+s.faultsIn(s.began, l.BuriedAt) >= taskRetries-1 // a change takes two
	case mulligan.UserBudget:
		return k.User != "" && (s.faulty(s.began, l.BuriedAt, ahead) || s.ends(key, l.BuriedAt.Add(30*time.Second)))
	case mulligan.NoChange:
		return answered(unusable, change, changeTo)
	case mulligan.InDoubt:
		return k.Effect == mulligan.Once || answered(doubtful)
	case mulligan.KeyConflict:
		return slices.ContainsFunc(s.sentOf(key), func(j mulligan.Job) bool { return string(j.Payload) != string(l.Payload) })
	case mulligan.Crashed:
		return s.faultsIn(s.began, l.BuriedAt) >= 2
	}
	return false
}

// timeOf is the most that the attempts of a letter's last life can have taken, with
// the delays between them and the one that was not planned any more.
func (s *story) timeOf(l *mulligan.Letter) (all time.Duration) {
	p, err := mulligan.Policy{Attempts: s.Attempts, Total: s.Total}.Normal()
	if err != nil {
		panic(err) // the workers took it
	}
	var next time.Duration
	over := false
	for _, a := range l.History {
		if a.Verb == mulligan.Replay || a.Verb == mulligan.Resolve {
			all, next, over = 0, 0, false
			continue
		}
		if over { // a late failure
			continue
		}
		over = a.Verb == mulligan.Spend
		all += a.Took + a.Delay
		next = p.Delay(a.Number, 1)
		if a.Throttled {
			next = p.ThrottledDelay(a.Number, longest, 1, 1)
		}
	}
	return all + next
}

// planned is how many retries of a task there were to be, at most; one with a
// change counts twice.
func (s *story) planned(task string) (n int) {
	for i, k := range s.Keys {
		if k.Task != task {
			continue
		}
		cost := 1
		if slices.ContainsFunc(s.of(s.recordKey(i)), func(r *run) bool { return r.answer.What == change }) {
			cost = 2
		}
		for _, a := range s.entries(s.recordKey(i)) {
			if a.Verb == mulligan.Nak || a.Verb == mulligan.Park || a.Verb == mulligan.Defer && a.Reason == mulligan.UserBudget {
				n += cost
			}
		}
	}
	return n
}

// ends reports whether the deadline of some message of a key, or of a replay, is
// before a time, or it was not to be run before its deadline.
func (s *story) ends(key string, before time.Time) bool {
	return slices.ContainsFunc(s.sentOf(key), func(j mulligan.Job) bool {
		return j.Deadline.Before(before) || !j.NotBefore.Before(j.Deadline)
	}) || slices.ContainsFunc(s.deedsOf(key, before), func(d deed) bool { return d.at.Add(d.span).Before(before) })
}

// retriesAreOnRecord: every failure that its process outlived is one entry of the
// history, which says what followed and why.
func (s *story) retriesAreOnRecord(say blame) {
	for _, r := range s.runs {
		if r.ended.IsZero() || r.err == nil || r.answer.What == snooze || r.answer.What == refused || r.shaken(r.ended.Add(time.Minute)) {
			continue
		}
		published := slices.ContainsFunc(s.sentOf(r.key), func(j mulligan.Job) bool { return string(j.Payload) == r.payload })
		if rec := s.records[r.key]; published && rec != nil && rec.Payload != mulligan.FingerprintOf([]byte(r.payload)) {
			continue // another payload's
		}
		at, done := s.since(r.key, func(rec *mulligan.Record) bool { return rec.State == mulligan.Done })
		if done && (!at.After(r.ended) || s.faulty(r.ended.Add(-time.Minute), at, budgets, records, down)) {
			continue // it was done before the failure could be recorded
		}
		beside := 0 // that began at the same time, this one included
		for _, o := range s.of(r.key) {
			if o.begun.Equal(r.begun) {
				beside++
			}
		}
		switch entries := s.noted(r); {
		case len(entries) < 1 || len(entries) > beside:
			say("I7 (one entry)", "%s failed at %s (%v) and has %d entries: %s", r.key, s.clock(r.begun), r.err, len(entries), s.show(r.key))
		case entries[0].Verb == "" || entries[0].ErrorType == "" && entries[0].Reason == "":
			say("I7 (a reason)", "%s failed at %s, and its entry has no reason: %+v", r.key, s.clock(r.begun), entries[0])
		}
	}
}
