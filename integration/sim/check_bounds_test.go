package sim

import (
	"slices"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// attemptsAreFew: no more than the policy's in each of a key's lives, and one more
// run for each fault meanwhile.
func (s *story) attemptsAreFew(say blame) {
	for _, key := range s.keys() {
		counted, runs := 0, s.of(key)
		for _, r := range runs {
			if r.attempt > s.Attempts {
				say("I3 (attempts)", "attempt %d of %s, of %d", r.attempt, key, s.Attempts)
			}
			if r.answer.What != snooze && r.answer.What != refused {
				counted++
			}
		}
		if len(runs) == 0 {
			continue
		}
		last := runs[len(runs)-1].begun
		most := s.lives(key, last)*s.Attempts + s.faultsIn(s.began, last)
		if s.keyNamed(key).Effect == mulligan.Pure {
			most += len(s.sentOf(key)) - 1 // each is run at once
		}
		if counted > most {
			say("I3 (runs)", "%s ran %d times, want %d at most", key, counted, most)
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
			person := len(s.deedsOf(r.key, next.begun)) > len(s.deedsOf(r.key, r.ended))
			if early && !pure && !person && !next.shaken(next.begun) && !s.faulty(r.begun, next.begun, skew) {
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
		if r.before != nil && r.before.answer.What == change {
			n++ // it counts twice
		}
	}
	if most := taskRetries + s.spare(of); n > most {
		say("I3 (task)", "%d retries of a task, want %d at most", n, most)
	}
}

// userIsBounded: from the beginning to any time, the burst and the rate.
func (s *story) userIsBounded(say blame) {
	for _, user := range []string{"ada", "bob"} {
		of := func(k key) bool { return k.User == user }
		spare := s.spare(of)
		for n, r := range s.retries(of) {
			most := spare
			for _, from := range append([]time.Time{s.began}, s.wiped()...) { // a clock that is behind gives the burst anew
				if passed := r.begun.Sub(from).Seconds(); passed >= 0 {
					most += userRate().Burst + int(passed*userRate().PerSecond)
				}
			}
			if n+1 > most {
				say("I3 (user)", "%d retries of %s by %s, want %d at most", n+1, user, s.clock(r.begun), most)
			}
		}
	}
}

func (s *story) wiped() (at []time.Time) {
	for _, f := range s.faults {
		if f.What == behind || f.What == ahead {
			at = append(at, f.at)
		}
	}
	return at
}

// downstreamIsBounded: from the beginning to any time, what retries that failed
// have cost is what the floor, the successes of first attempts and the savings of
// every worker brought. A worker may believe for ten seconds that it is alone.
func (s *story) downstreamIsBounded(say blame) {
	const throttled = 0.35
	for _, d := range []string{"here", "there"} {
		of := func(k key) bool { return k.Downstream == d }
		spent, spare := 0.0, float64(s.spare(of))
		for _, r := range s.retries(of) {
			failed := slices.Contains([]act{transient, tooLate, unstarted}, r.answer.What)
			if r.before == nil || !failed || r.before.answer.What == snooze || r.before.answer.What == refused {
				continue
			}
			if spent++; r.before.answer.What == after {
				spent -= 1 - throttled
			}
			workers, successes := s.until(d, r.begun)
			most := spare + workers*(tokenCap+10*s.Floor) + s.Floor*r.begun.Sub(s.began).Seconds() + tokenRatio*successes
			if spent > most {
				say("I4 (downstream)", "retries to %s have cost %.2f by %s, want %.2f at most", d, spent, s.clock(r.begun), most)
			}
		}
	}
}

// until is how many workers have begun by a time, and how many first attempts
// have had success.
func (s *story) until(downstream string, at time.Time) (workers, successes float64) {
	known := map[*process]bool{}
	for _, r := range s.runs {
		known[r.process] = known[r.process] || !r.begun.After(at)
		if s.keyNamed(r.key).Downstream == downstream && r.succeeded() && !r.ended.After(at) {
			successes++
		}
	}
	for _, began := range known {
		if began {
			workers++
		}
	}
	return workers + 2, successes // those that have run nothing yet
}
