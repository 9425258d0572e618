package witness

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// holdsToken is how long before its call the token of a retry is taken at most: a
// nak comes back after two seconds, and a pull waits for one, on a busy machine.
const holdsToken = 5 * time.Second

// census is how often workers count each other; until then each has its share of
// the budget by the old count.
const census = 10 * time.Second

// ledger is what a downstream saw that costs or earns retries.
type ledger struct {
	retries []spending  // those that failed, oldest first
	firsts  []time.Time // good answers to first attempts, oldest first
	unsure  []interval  // when a worker may have had more than its share, apart from each other
	begun   []time.Time // when a worker began, or began again, oldest first
	workers int
}

type spending struct {
	at   time.Time
	cost float64
}

type interval struct{ from, to time.Time }

// budgets checks that in no window the retries that failed are more than what
// first attempts earned, the floor brought and was saved before (I4). One that
// succeeds is given back, and one after a crash is none.
func (c *checker) budgets() {
	for _, d := range []string{"mail", "pay", "model"} {
		l := c.ledgerOf(d)
		if w, used := l.worst(c.faults); w != "" {
			c.violate("I4", "downstream "+d, "failed retries within the budget in each window", w)
		} else {
			c.Budget = max(c.Budget, used)
		}
	}
}

func (c *checker) ledgerOf(downstream string) (l ledger) {
	began := map[string]time.Time{}
	for _, s := range c.stories {
		if s.kind.downstream != downstream {
			continue
		}
		for i, call := range s.calls {
			if at, ok := began[call.Worker]; !ok || call.Began.Before(at) {
				began[call.Worker] = call.Began
			}
			switch {
			case call.Attempt == 1 && call.succeeded():
				l.firsts = append(l.firsts, call.Ended)
			case s.retried(i) && call.Answer.Status != 200:
				l.retries = append(l.retries, spending{call.Began, costAfter(s.calls[i-1])})
			}
		}
	}
	slices.SortFunc(l.retries, func(a, b spending) int { return a.at.Compare(b.at) })
	slices.SortFunc(l.firsts, time.Time.Compare)
	l.workers = len(began)
	l.begun = slices.Collect(maps.Values(began))
	l.suffer(c.faults, slices.Collect(maps.Keys(began)))
	return l
}

// suffer notes what faults allow: workers that began again, or counted wrong.
func (l *ledger) suffer(fs faults, workers []string) {
	var miscounted []interval
	for _, f := range fs {
		// Workers may have miscounted each other: one ended, was away, or not heard of.
		// A leader that steps down keeps nobody from hearing another.
		if f.someWorker || f.servers && f.For > linger {
			miscounted = append(miscounted, interval{f.At, f.At.Add(f.For + census)})
		}
		l.begun = append(l.begun, f.begins(workers)...)
	}
	for _, at := range l.begun {
		miscounted = append(miscounted, interval{at.Add(-census), at.Add(census)})
	}
	slices.SortFunc(l.begun, time.Time.Compare)
	l.unsure = merged(miscounted)
}

// begins is when workers begin again after a fault that ended them, one each.
func (s strike) begins(workers []string) (at []time.Time) {
	for _, w := range workers {
		if s.workers[w] && (strings.Contains(s.What, "kill") || s.What == "terminate" || s.What == "upgrade") {
			at = append(at, s.At)
		}
	}
	return at
}

// merged joins intervals that touch.
func merged(all []interval) (apart []interval) {
	slices.SortFunc(all, func(a, b interval) int { return a.from.Compare(b.from) })
	for _, i := range all {
		if n := len(apart); n > 0 && !apart[n-1].to.Before(i.from) {
			if i.to.After(apart[n-1].to) {
				apart[n-1].to = i.to
			}
			continue
		}
		apart = append(apart, i)
	}
	return apart
}

// costAfter is what a retry costs: less after one that was told to wait.
func costAfter(before *Call) float64 {
	if before.throttled() {
		return 0.35
	}
	return 1
}

// worst looks at every window that begins and ends with a retry, and returns, in
// words, the one that is furthest over what was allowed, else the largest part
// that was used of it.
func (l *ledger) worst(fs faults) (over string, used float64) {
	furthest := 0.0
	for i := range l.retries {
		from := heldSince(fs, l.retries[i].at)
		earned, _ := slices.BinarySearchFunc(l.firsts, from, time.Time.Compare)
		spent, end := 0.0, earned
		for j := i; j < len(l.retries); j++ {
			to := l.retries[j].at
			for spent += l.retries[j].cost; end < len(l.firsts) && !l.firsts[end].After(to); end++ {
			}
			allowed := l.allowed(interval{from, to}, end-earned)
			if spent > allowed && spent-allowed > furthest {
				furthest = spent - allowed
				over = fmt.Sprintf("%.2f from %s to %s, allowed are %.2f: %d first attempts succeeded, workers began %d times",
					spent, clock(l.retries[i].at), clock(to), allowed, end-earned, l.beginnings(interval{from, to}))
			}
			if j-i >= 9 {
				used = max(used, spent/allowed)
			}
		}
	}
	return over, used
}

// allowed is what may be spent in a window. A worker has saved the cap at most, once
// for each time that it began; while it counts wrong it has the whole floor.
func (l *ledger) allowed(w interval, firsts int) float64 {
	wrong, saved := 0.0, max(retryCap, 2*float64(l.workers))
	for _, u := range l.unsure {
		if from, to := later(u.from, w.from), earlier(u.to, w.to); !to.Before(from) {
			wrong += to.Sub(from).Seconds()
			saved = retryCap * float64(l.workers)
		}
	}
	return retryRatio*float64(firsts) + retryFloor*(w.to.Sub(w.from).Seconds()+wrong*float64(l.workers-1)) +
		saved + retryCap*float64(l.beginnings(w))
}

// beginnings counts the workers that began in a window.
func (l *ledger) beginnings(w interval) (n int) {
	for _, at := range l.begun {
		if !at.Before(w.from) && !at.After(w.to) {
			n++
		}
	}
	return n
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// heldSince is when the token of a retry that is called at a time may have been
// taken: longer before, where a fault kept it from being called.
func heldSince(fs faults, at time.Time) time.Time {
	since := at.Add(-holdsToken)
	for _, f := range fs {
		if hits := f.servers || f.someWorker || f.of("downstream"); hits && f.overlaps(since, at, settle) && f.At.Add(-holdsToken).Before(since) {
			since = f.At.Add(-holdsToken)
		}
	}
	return since
}

// taskRetries is how many retries the jobs of a task may have together.
const taskRetries = 5

// tasks checks what the jobs of each task had together (I4).
func (c *checker) tasks() {
	for _, task := range slices.Sorted(maps.Keys(c.tasked)) {
		n := 0
		for _, s := range c.tasked[task] {
			for i := range s.calls {
				if s.retried(i) {
					n++
				}
			}
		}
		if n > taskRetries {
			c.violate("I4", "task "+task, fmt.Sprintf("at most %d retries", taskRetries), fmt.Sprint(n))
		}
	}
}
