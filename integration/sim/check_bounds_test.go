package sim

import (
	"slices"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// attemptsAreFew: no more than the policy's in each of a key's lives, of the calls
// that could be counted.
func (s *story) attemptsAreFew(say blame) {
	for _, key := range s.keys() {
		counted, runs := 0, s.of(key)
		for _, r := range runs {
			if r.attempt > s.Attempts {
				say("I3 (attempts)", "attempt %d of %s, of %d", r.attempt, key, s.Attempts)
			}
			if r.answer.What != snooze && r.answer.What != refused && s.countable(r) {
				counted++
			}
		}
		if len(runs) == 0 {
			continue
		}
		most := s.lives(key, runs[len(runs)-1].begun) * s.Attempts
		if s.keyNamed(key).Effect == mulligan.Pure {
			most += len(s.sentOf(key)) - 1 // each is run at once
		}
		if counted > most {
			say("I3 (runs)", "%s ran %d times, want %d at most: %s", key, counted, most, s.show(key))
		}
	}
}

// countable reports whether the end of a run must be on record before another
// begins: its process outlived it, the server was there, and no other of its key
// was under way.
func (s *story) countable(r *run) bool {
	if r.ended.IsZero() || r.shaken(r.ended.Add(time.Minute)) || s.faulty(r.begun.Add(-time.Minute), r.ended.Add(time.Minute), down, records, budgets, forget, passed) {
		return false
	}
	return !slices.ContainsFunc(s.of(r.key), func(o *run) bool {
		return o != r && !o.begun.After(r.begun) && (o.ended.IsZero() || o.ended.After(r.begun))
	})
}

// crashesAreFew: what ends its process again and again is not run for ever.
func (s *story) crashesAreFew(say blame) {
	const starts = 3 // without an end, of one message
	for _, key := range s.keys() {
		n, life := 0, 1
		for _, r := range s.of(key) {
			if now := s.lives(key, r.begun); r.answer.What != poison || now != life {
				n, life = 0, now
			}
			if r.answer.What == poison {
				n++
			}
			if most := starts*len(s.sentOf(key)) + s.faultsIn(s.began, r.begun, forget, passed); n > most {
				say("I3 (crashes)", "%s ended its process %d times in a row, want %d at most", key, n, most)
			}
		}
	}
}

// totalsAreKept: no retry was planned to begin after the policy's total time.
func (s *story) totalsAreKept(say blame) {
	for key, rec := range s.records {
		var spent time.Duration
		for _, a := range rec.History {
			again := (a.Verb == mulligan.Nak || a.Verb == mulligan.Park) && a.Reason == ""
			switch {
			case a.Verb == mulligan.Replay || a.Verb == mulligan.Resolve:
				spent = 0
			case a.Verb == mulligan.Defer && a.Reason != mulligan.UserBudget: // no attempt
			default:
				spent += a.Took
				if !again {
					continue
				}
				if spent += a.Delay; spent >= s.Total {
					say("I3 (total)", "a retry of %s was planned for after %v, of %v: %s", key, spent, s.Total, s.show(key))
				}
			}
		}
	}
}

// deadline is the latest that a key had at a time, by its messages and replays.
func (s *story) deadline(key string, at time.Time) (latest time.Time) {
	for _, j := range s.sentOf(key) {
		latest = later(latest, j.Deadline)
	}
	for _, d := range s.deedsOf(key, at) {
		over := d.over
		if over.IsZero() {
			over = at
		}
		latest = later(latest, over.Add(d.span))
	}
	return latest
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// timesAreKept: nothing starts after its deadline, nor before it may.
func (s *story) timesAreKept(say blame) {
	for _, r := range s.runs {
		if r.shaken(r.begun) {
			continue
		}
		if d := s.deadline(r.key, r.begun); !r.begun.Before(d) {
			say("I3 (deadline)", "%s ran at %s, and its deadline was at %s", r.key, s.clock(r.begun), s.clock(d))
		}
		earliest := r.begun
		for _, j := range s.sentOf(r.key) {
			if j.NotBefore.Before(earliest) {
				earliest = time.Time{}
			}
		}
		if !earliest.IsZero() && len(s.sentOf(r.key)) > 0 && !slices.ContainsFunc(s.sentOf(r.key), func(j mulligan.Job) bool { return !j.NotBefore.After(r.begun) }) {
			say("I5 (not before)", "%s ran at %s", r.key, s.clock(r.begun))
		}
	}
}

// hintsAreKept: nothing is retried before a hint that was recorded, unless a person
// wants it. A pure job that is published again runs at once.
func (s *story) hintsAreKept(say blame) {
	for i, r := range s.runs {
		if r.answer.What != after || r.ended.IsZero() {
			continue
		}
		recorded, ok := s.since(r.key, func(rec *mulligan.Record) bool {
			return slices.ContainsFunc(rec.History, func(a mulligan.Attempt) bool { return a.At.Equal(r.begun) })
		})
		for _, next := range s.runs[i+1:] {
			pure := s.keyNamed(r.key).Effect == mulligan.Pure && next.attempt == 1
			early := ok && next.key == r.key && next.begun.After(recorded) && next.begun.Before(r.ended.Add(r.answer.For))
			if early && !pure && !s.wanted(r.key, r.ended, next.begun) && !next.shaken(next.begun) && !s.faulty(r.begun, next.begun, skew) {
				say("I5 (hint)", "%s was told at %s to wait %v and ran at %s", r.key, s.clock(r.ended), r.answer.For, s.clock(next.begun))
			}
		}
	}
}

// taskIsBounded: the retries of all its jobs together.
func (s *story) taskIsBounded(say blame) {
	of := func(k key) bool { return k.Task != "" }
	n := len(s.retries(of))
	for _, r := range s.retries(of) {
		if r.planned != nil && r.planned.answer.What == change {
			n++ // it counts twice
		}
	}
	if most := taskRetries + s.spare(of); n > most {
		say("I3 (task)", "%d retries of a task, want %d at most", n, most)
	}
}

// userIsBounded: within any time, the burst and the rate.
func (s *story) userIsBounded(say blame) {
	for _, user := range users() {
		of := func(k key) bool { return k.User == user }
		s.within(of, func(from, to time.Time, retries []retry) {
			most := userRate().Burst + int(to.Sub(from).Seconds()*userRate().PerSecond) + s.spare(of)
			for _, at := range s.misdated(user, from, to) { // which gives the burst anew
				most += userRate().Burst + int(to.Sub(at).Seconds()*userRate().PerSecond)
			}
			if n := len(retries); n > most {
				say("I3 (user)", "%d retries of %s from %s to %s, want %d at most", n, user, s.clock(from), s.clock(to), most)
			}
		})
	}
}

// misdated is when a user's budget was written by a clock that was off.
func (s *story) misdated(user string, from, to time.Time) (at []time.Time) {
	for _, f := range s.faults {
		if (f.What == behind || f.What == ahead) && f.user() == user && !f.at.Before(from) && !f.at.After(to) {
			at = append(at, f.at)
		}
	}
	return at
}

// downstreamIsBounded: within any time, what retries that failed have cost is what
// the floor, the successes and the savings of every worker brought. That workers
// share the floor is not asked for: for ten seconds one may believe that it is alone.
func (s *story) downstreamIsBounded(say blame) {
	const throttled = 0.35
	for _, d := range downstreams() {
		of := func(k key) bool { return k.Downstream == d }
		s.within(of, func(from, to time.Time, retries []retry) {
			spent, workers := 0.0, map[*process]bool{}
			for _, r := range retries {
				workers[r.process], workers[r.planned.process] = true, true // it paid, or that did
				switch {
				case !slices.Contains([]act{transient, tooLate, unstarted, change}, r.answer.What):
				case r.planned.answer.What == after:
					spent += throttled
				default:
					spent++
				}
			}
			// A token may be in the hands of an idle pull before, while the floor brings another.
			each := tokenCap + min(1, s.Floor*mulligan.PullWait.Seconds()) + s.Floor*to.Sub(from).Seconds()
			most := each*float64(len(workers)) + s.earned(of, from, to) + float64(s.spare(of))
			if spent > most {
				say("I4 (downstream)", "retries to %s have cost %.2f from %s to %s, want %.2f at most", d, spent, s.clock(from), s.clock(to), most)
			}
		})
	}
}

// earned is what successes brought within a time: a part of a retry each, and the
// whole of one that was paid for before, maybe by another worker.
func (s *story) earned(of func(key) bool, from, to time.Time) (n float64) {
	ended := func(r *run) bool { return r.succeeded() && !r.ended.Before(from) && !r.ended.After(to) }
	for _, r := range s.runs {
		if of(s.keyNamed(r.key)) && ended(r) {
			n += tokenRatio
		}
	}
	for _, r := range s.retries(of) {
		if ended(r.run) && (r.planned == nil || r.planned.ended.Before(from)) {
			n++
		}
	}
	return n
}

// within calls check with the retries of the keys that match that were planned and
// run within a time, for every such time.
func (s *story) within(match func(key) bool, check func(from, to time.Time, retries []retry)) {
	all := slices.DeleteFunc(s.retries(match), func(r retry) bool { return r.planned == nil })
	for _, first := range all {
		from := first.planned.ended
		var some []retry
		for _, r := range all {
			if !r.planned.ended.Before(from) {
				some = append(some, r)
				check(from, r.begun, some)
			}
		}
	}
}
