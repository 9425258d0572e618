package witness

import (
	"fmt"
	"slices"
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
	shares  []interval  // when a worker may have had more than its share
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
	for _, at := range began {
		l.shares = append(l.shares, interval{at.Add(-census), at.Add(census)})
	}
	l.workers = len(began)
	for _, f := range c.faults {
		// Workers may have miscounted each other: one ended, was away, or not heard of.
		// A leader that steps down keeps nobody from hearing another.
		if f.someWorker || f.servers && f.For > linger {
			l.shares = append(l.shares, interval{f.At, f.At.Add(f.For + census)})
		}
	}
	slices.SortFunc(l.shares, func(a, b interval) int { return a.from.Compare(b.from) })
	return l
}

// costAfter is what a retry costs: less after one that was told to wait.
func costAfter(before *Call) float64 {
	if before.Answer.Hint > 0 {
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
		shares := slices.DeleteFunc(slices.Clone(l.shares), func(s interval) bool { return s.to.Before(from) })
		spent, end, unsure := 0.0, earned, 0
		for j := i; j < len(l.retries); j++ {
			to := l.retries[j].at
			for spent += l.retries[j].cost; end < len(l.firsts) && !l.firsts[end].After(to); end++ {
			}
			for ; unsure < len(shares) && !shares[unsure].from.After(to); unsure++ {
			}
			allowed := l.allowed(to.Sub(from), end-earned, unsure)
			if spent > allowed && spent-allowed > furthest {
				furthest = spent - allowed
				over = fmt.Sprintf("%.2f from %s to %s, allowed are %.2f: %d first attempts succeeded, %d workers may have had another's share",
					spent, clock(l.retries[i].at), clock(to), allowed, end-earned, unsure)
			}
			if j-i >= 9 {
				used = max(used, spent/allowed)
			}
		}
	}
	return over, used
}

// allowed is what may be spent in a window. Each worker that is new, or counts
// wrong, may have saved all of the cap, and has the whole floor until the next
// census.
func (l *ledger) allowed(window time.Duration, firsts, unsure int) float64 {
	return retryRatio*float64(firsts) + retryFloor*window.Seconds() + max(retryCap, 2*float64(l.workers)) +
		float64(unsure)*(retryCap+retryFloor*census.Seconds())
}

// heldSince is when the token of a retry that is called at a time may have been
// taken: longer before, where a fault kept it from being called.
func heldSince(fs faults, at time.Time) time.Time {
	since := at.Add(-holdsToken)
	for _, f := range fs {
		if f.overlaps(since, at, settle) && f.At.Add(-holdsToken).Before(since) {
			since = f.At.Add(-holdsToken)
		}
	}
	return since
}

// taskRetries is how many retries the jobs of a task may have together.
const taskRetries = 5

// tasks checks what the jobs of each task had together (I4).
func (c *checker) tasks() {
	for task, stories := range c.tasked {
		n := 0
		for _, s := range stories {
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
