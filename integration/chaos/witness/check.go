package witness

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// A Report is what the checker found.
type Report struct {
	// Violations: each is one line with the invariant, the key, what was expected
	// and what was seen.
	Violations []string `json:"violations"`

	Tried    int `json:"tried"` // keys
	Acked    int `json:"acked"`
	Sent     int `json:"sent"`    // messages, those sent again included
	Refused  int `json:"refused"` // of them
	Done     int `json:"done"`
	Finished int `json:"finished"` // done at the first attempt, and pure: nothing is kept of it
	// Recovered are done, but not at the first attempt.
	Recovered int                     `json:"recovered"`
	Dead      map[mulligan.Reason]int `json:"dead"`
	Discarded int                     `json:"discarded"`
	Replayed  int                     `json:"replayed"`
	Resolved  int                     `json:"resolved"`
	Calls     int                     `json:"calls"`
	Retries   int                     `json:"retries"` // calls but the first of an attempt count
	Effects   int                     `json:"effects"` // of keyed and once kinds
	Hints     int                     `json:"hints"`   // that a retry followed
	// Excused are calls that a fault of their worker or of the servers has hit: less
	// is asked of them.
	Excused int `json:"excused"`
	// ExcusedLetters are those whose reason only a fault justifies.
	ExcusedLetters int            `json:"excused_letters"`
	Letters        int            `json:"letters"` // all that were judged
	Faults         map[string]int `json:"faults"`
	// Budget is the largest part of what was allowed that failed retries used, in
	// any window of ten of them.
	Budget float64 `json:"budget"`
}

// checker is one check.
type checker struct {
	Report
	e       *Evidence
	faults  faults
	stories map[string]*story
	tasked  map[string][]*story // by task
	users   map[string][]*story // by user
}

// Check compares what publishers were told, what the downstream saw and what the
// streams hold. It asks no clock and nobody else, and changes nothing.
func Check(e Evidence) Report {
	c := &checker{Report: Report{Dead: map[mulligan.Reason]int{}, Faults: map[string]int{}}, e: &e, stories: stories(&e)}
	c.faults = strikes(e.Faults, workersOf(e.Calls))
	c.tasked = c.by(func(p Published) string { return p.Task })
	c.users = c.by(func(p Published) string { return p.User })
	if e.Left != "" {
		c.violate("I1", "the streams", "nothing left to do", e.Left)
	}
	for _, what := range e.Unreadable {
		c.violate("I6", "the streams", "what can be read", what)
	}
	for _, key := range slices.Sorted(maps.Keys(c.stories)) {
		s := c.stories[key]
		c.count(s)
		c.fate(s)
		c.effects(s)
		c.attempts(s)
		c.hints(s)
		c.notBefore(s)
		c.letters(s)
		c.history(s)
	}
	c.tasks()
	c.budgets()
	c.rates()
	c.outages()
	c.excuses()
	for _, f := range e.Faults {
		c.Faults[f.What]++
	}
	return c.Report
}

// fewExcused letters may be excused in any run; in long ones a tenth. It was less
// than a hundredth in all that were looked at.
const fewExcused = 20

// excuses checks that not all reasons are taken on trust.
func (c *checker) excuses() {
	if most := max(fewExcused, c.Letters/10); c.ExcusedLetters > most {
		c.violate("I6", "the letters", fmt.Sprintf("at most %d whose reason only a fault justifies", most), fmt.Sprintf("%d of %d", c.ExcusedLetters, c.Letters))
	}
}

// by sorts the keys by something that was published with them, if it was.
func (c *checker) by(what func(p Published) string) map[string][]*story {
	sorted := map[string][]*story{}
	for _, s := range c.stories {
		if len(s.tries) > 0 && what(s.tries[0].Line) != "" {
			sorted[what(s.tries[0].Line)] = append(sorted[what(s.tries[0].Line)], s)
		}
	}
	return sorted
}

func workersOf(calls []Call) (names []string) {
	for _, c := range calls {
		names = append(names, c.Worker)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (c *checker) violate(invariant, key, want, got string) {
	c.Violations = append(c.Violations, strings.Join(strings.Fields(fmt.Sprintf("%s %s: expected %s, saw %s", invariant, key, want, got)), " "))
}

// count counts what there is of a key.
func (c *checker) count(s *story) {
	c.Sent, c.Refused = c.Sent+s.sent, c.Refused+s.refusals
	if s.sent > 0 {
		c.Tried++
	}
	if len(s.acks) > 0 {
		c.Acked++
	}
	c.Discarded += s.did(Discard, "")
	c.Replayed += s.did(Replay, "")
	c.Resolved += s.did(ResolveDone, "") + s.did(ResolveNotDone, "")
	for _, l := range append(slices.Clone(s.letters), s.conflicts...) {
		c.Dead[l.Reason]++
	}
	switch good := slices.ContainsFunc(s.calls, (*Call).succeeded); {
	case s.record != nil && s.record.State == mulligan.Done:
		c.Done++
		if s.record.Attempts > 1 {
			c.Recovered++
		}
	case s.record == nil && s.kind.effect == mulligan.Pure && good:
		c.Finished++
	}
	for _, call := range s.calls {
		c.Calls++
		if call.Attempt > 1 {
			c.Retries++
		}
		if call.Answer.Effect && s.kind.effect != mulligan.Pure {
			c.Effects++
		}
		if c.faults.hit(call) {
			c.Excused++
		}
	}
}

// String is the report for people: a line for each violation, then the figures.
func (r Report) String() string {
	var b strings.Builder
	for _, v := range r.Violations {
		fmt.Fprintln(&b, v)
	}
	fmt.Fprintf(&b, "keys %d tried, %d acked; %d messages sent, %d refused\n", r.Tried, r.Acked, r.Sent, r.Refused)
	fmt.Fprintf(&b, "ended %d done (%d recovered) and %d pure ones at once; dead%s; %d discarded, %d replayed, %d resolved\n",
		r.Done, r.Recovered, r.Finished, listed(r.Dead), r.Discarded, r.Replayed, r.Resolved)
	fmt.Fprintf(&b, "calls %d, of which %d retries and %d excused by faults; %d effects; %d hints\n",
		r.Calls, r.Retries, r.Excused, r.Effects, r.Hints)
	fmt.Fprintf(&b, "letters %d, the reasons of %d justified only by faults (%.1f %%)\n", r.Letters, r.ExcusedLetters, 100*float64(r.ExcusedLetters)/float64(max(r.Letters, 1)))
	fmt.Fprintf(&b, "budget used %.0f %% at most\nfaults%s\n", 100*r.Budget, listed(r.Faults))
	if len(r.Violations) == 0 {
		fmt.Fprintln(&b, "no violation")
	} else {
		fmt.Fprintf(&b, "%d violations\n", len(r.Violations))
	}
	return b.String()
}

func listed[K ~string](counts map[K]int) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&b, " %s=%d", string(name), counts[name])
	}
	if b.Len() == 0 {
		return " none"
	}
	return b.String()
}

// clock is a time for people.
func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }
