package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// A story is a scenario that was lived through: what publishers were told, what
// handlers saw, and what the streams hold in the end.
type story struct {
	scenario
	*tape
	stuck     string // what was left, if it did not come to an end
	over      time.Time
	records   map[string]*mulligan.Record
	revisions []revision
	letters   []mulligan.Letter
}

// A violation is what must not be.
type violation struct{ rule, what string }

func (v violation) String() string { return "\n" + v.rule + ": " + v.what }

// blame notes a violation of a rule.
type blame func(rule, format string, args ...any)

func (s *story) violations() (found []violation) {
	for _, check := range []func(blame){s.nothingIsLost, s.nothingStays, s.effectsAreFew, s.doneIsDone, s.doubtsStay, s.attemptsAreFew, s.crashesAreFew, s.totalsAreKept, s.timesAreKept, s.hintsAreKept,
		s.taskIsBounded, s.userIsBounded, s.downstreamIsBounded, s.lettersTell, s.retriesAreOnRecord} {
		check(func(rule, format string, args ...any) {
			found = append(found, violation{rule, fmt.Sprintf(format, args...)})
		})
	}
	return found
}

func (s *story) String() string { return strings.Join(s.lines, "\n") }

// keys are the records' keys of the scenario.
func (s *story) keys() (all []string) {
	for i := range s.Keys {
		all = append(all, s.recordKey(i))
	}
	return all
}

// job is the job of a key.
func (s *story) job(record string) mulligan.Job {
	for i, k := range s.Keys {
		if s.recordKey(i) == record {
			return mulligan.Job{Kind: kindOf(k), ID: idOf(i)}
		}
	}
	panic("no key " + record)
}

// downKeys are those under which the downstream sees a job.
func (s *story) downKeys(record string) []string {
	j := s.job(record)
	if !s.keyNamed(record).Steps {
		return []string{j.Key()}
	}
	var keys []string
	for _, name := range stepNames() {
		keys = append(keys, j.StepKey(name))
	}
	return keys
}

// sentOf are the messages of a key that may have been stored.
func (s *story) sentOf(key string) (all []mulligan.Job) {
	for _, m := range s.sent {
		refused := slices.ContainsFunc(s.told, func(t told) bool { return t.message == m.message && t.refused })
		if m.key == key && !refused {
			all = append(all, m.job)
		}
	}
	return all
}

// deedsOf are what a person did with the letters of a key, before a time.
func (s *story) deedsOf(key string, before time.Time) (all []deed) {
	for _, d := range s.deeds {
		if d.key == key && !d.at.After(before) {
			all = append(all, d)
		}
	}
	return all
}

// wanted reports whether a person had a key run again within a time, or at its ends.
func (s *story) wanted(key string, from, to time.Time) bool {
	return slices.ContainsFunc(s.deedsOf(key, to), func(d deed) bool {
		return d.again() && (d.over.IsZero() || !d.over.Before(from))
	})
}

// lives is how often a key may have begun anew before a time.
func (s *story) lives(key string, before time.Time) (n int) {
	for _, d := range s.deedsOf(key, before) {
		if d.again() {
			n++
		}
	}
	return 1 + n
}

// shaken reports whether a process was, lately enough for what it does at a time
// to have been decided before.
func (r *run) shaken(at time.Time) bool {
	const lately = 2 * time.Minute
	r.process.mu.Lock()
	defer r.process.mu.Unlock()
	return slices.ContainsFunc(r.process.shaken, func(t time.Time) bool { return !t.After(at) && at.Sub(t) < lately })
}

// faulty reports whether a fault happened within a time.
func (s *story) faulty(from, to time.Time, what ...mishap) bool {
	return s.faultsIn(from, to, what...) > 0
}

func (s *story) faultsIn(from, to time.Time, what ...mishap) (n int) {
	for _, f := range s.faults {
		if !f.at.Before(from) && !f.at.After(to) && (len(what) == 0 || slices.Contains(what, f.What)) {
			n++
		}
	}
	return n
}

// A retry is an attempt that was not a key's first. One that is run again, after
// a crash, is the same.
type retry struct {
	*run
	planned *run // with whose end it was planned, at the earliest; nil if that is not known
}

// retries are those of the keys that match, in the order in which they began.
func (s *story) retries(match func(key) bool) (all []retry) {
	type name struct {
		key          string
		life, number int
	}
	seen := map[name][]*run{}
	for _, r := range s.runs {
		n := name{r.key, s.lives(r.key, r.begun), r.attempt}
		if r.attempt > 1 && len(seen[n]) == 0 && match(s.keyNamed(r.key)) {
			all = append(all, retry{r, firstToEnd(seen[name{n.key, n.life, n.number - 1}], r.begun)})
		}
		seen[n] = append(seen[n], r)
	}
	return all
}

// firstToEnd is the run that ended first, if one did before a time.
func firstToEnd(runs []*run, before time.Time) (first *run) {
	for _, r := range runs {
		if !r.ended.IsZero() && !r.ended.After(before) && (first == nil || r.ended.Before(first.ended)) {
			first = r
		}
	}
	return first
}

// spare is how many messages of the keys that match came besides the first ones:
// each has a run of its own coming, whatever the record says of the others.
func (s *story) spare(match func(key) bool) (n int) {
	for i, k := range s.Keys {
		if match(k) {
			n += max(len(s.sentOf(s.recordKey(i)))-1, 0)
		}
	}
	return n
}

// entries are all that records and letters ever said of a key's attempts, by run.
func (s *story) entries(key string) map[string]mulligan.Attempt {
	all := map[string]mulligan.Attempt{}
	add := func(history []mulligan.Attempt) {
		for _, a := range history {
			all[a.Run] = a
		}
	}
	for _, r := range s.revisions {
		if r.key == key {
			add(r.rec.History)
		}
	}
	if r := s.records[key]; r != nil {
		add(r.History)
	}
	for _, l := range s.letters {
		if l.RecordKey() == key {
			add(l.History)
		}
	}
	return all
}

// noted are the entries about the call that began at a time. One that says that it
// has no end is taken back once it has.
func (s *story) noted(r *run) (all []mulligan.Attempt) {
	entries := s.entries(r.key)
	for _, run := range slices.Sorted(maps.Keys(entries)) {
		if a := entries[run]; a.At.Equal(r.begun) && a.Verb != mulligan.Replay && a.Verb != mulligan.Resolve {
			all = append(all, entries[run])
		}
	}
	noEnd := func(a mulligan.Attempt) bool { return a.ErrorType == "no_end" }
	if ended := slices.DeleteFunc(slices.Clone(all), noEnd); len(ended) > 0 {
		return ended
	}
	return all
}

// since is when a record first said what matches, and whether it did.
func (s *story) since(key string, match func(*mulligan.Record) bool) (at time.Time, ok bool) {
	for _, r := range s.revisions {
		if r.key == key && match(r.rec) {
			return r.at, true
		}
	}
	return at, false
}
