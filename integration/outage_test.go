package integration

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// What the documentation of budgets says, with all settings left out.
const (
	windowSpan    = 10 * time.Second // of calls that a breaker remembers
	tripRow       = 20               // failures in a row that open a breaker
	tokenRatio    = 0.1              // of a retry, by a success at a first attempt
	tokenCap      = 10.0             // saved by all workers together
	tokenFloor    = 1.0              // per second, of all workers
	costThrottled = 0.35             // of a retry after a 503
	shortestOpen  = time.Second
)

// outage is a time in which the provider answers every call with 503, at once.
type outage struct{ from, to time.Time }

func (o outage) at(t time.Time) bool { return !t.Before(o.from) && t.Before(o.to) }

// 200 jobs per second arrive before, during and after an outage of 20 seconds,
// every other of them a user's.
func TestAnOutageOfTheProviderCostsItFewCallsAndNoJobItsLife(t *testing.T) {
	t.Parallel()
	const workers, perSecond, before, lasts, after, within = 3, 200, 10 * time.Second, 20 * time.Second, 9 * time.Second, time.Minute
	p := newProvider(t)
	p.took = 5 * time.Millisecond
	var o outage
	p.fails = func(v visit) int {
		if o.at(v.at) {
			return http.StatusServiceUnavailable
		}
		return 0
	}
	f := newFleet(t, p, workers)
	o.from = time.Now().Add(before)
	o.to = o.from.Add(lasts)
	f.arrive(t, o.to.Add(after), stream{perSecond, func(n int) mulligan.Job {
		job := mulligan.Job{ID: fmt.Sprint(fine, "-", n)}
		if n%2 == 0 { // so many that none of them fails more often than a user may at once
			job.User = fmt.Sprint("user-", n%1000)
		}
		return job
	}})
	streams{f.JS}.settled(t, time.Until(o.to.Add(within)))
	log := p.log()
	t.Logf("%d jobs, %d calls; all were done %.1f s after the outage, during the last %v of which jobs still arrived",
		len(f.published), len(log), time.Since(o.to).Seconds(), after)

	t.Run("the provider was let alone", func(t *testing.T) { f.checkLetAlone(t, o) })
	t.Run("no job died and every job is done", func(t *testing.T) { f.checkDone(t) })
	t.Run("records, metrics and the provider's log agree", func(t *testing.T) { f.checkCounts(t) })
	t.Run("retries stayed within their budget", func(t *testing.T) { checkRetryBudget(t, log, workers) })
}

// checkLetAlone checks how many calls the provider saw while it failed. A worker
// may make
//   - what opens its breaker: 20 failures without a success between them;
//   - the calls that were in flight when the first of these failed, and those
//     when the last did, one a slot at most;
//   - one probe whenever it was open for its time, a second at first and longer
//     each time, so that a second or more lies between two of them.
//
// Retries are among these, and checkRetryBudget bounds them further.
func (f *fleet) checkLetAlone(t *testing.T, o outage) {
	const most = tripRow + 2*slots
	saw, probed := 0, 0
	for _, name := range f.names {
		good, rush, probes := 0, 0, 0
		var last time.Time
		for _, v := range f.p.log() { // in the order of arrival
			switch {
			case v.worker != name:
			case !o.at(v.at):
				if v.at.Before(o.from) && o.from.Sub(v.at) <= windowSpan {
					good++
				}
			case v.at.Sub(last) < shortestOpen || last.IsZero():
				rush, last = rush+1, v.at
			default:
				probes, last = probes+1, v.at
			}
		}
		saw, probed = saw+rush+probes, probed+probes
		t.Logf("%s: %d calls in the ten seconds before the outage, %d until its breaker was open, %d probes", name, good, rush, probes)
		if rush > most {
			t.Errorf("%s made %d calls of the outage one upon the other, want %d at most", name, rush, most)
		}
	}
	arrived := 0
	for _, at := range f.published {
		if o.at(at) {
			arrived++
		}
	}
	t.Logf("during the outage the provider saw %d calls, %d of them probes, and %d jobs arrived; by the second: %v", saw, probed, arrived, bySecond(f.p.log(), o))
	if limit := len(f.names) * (most + int(o.to.Sub(o.from)/shortestOpen)); saw > limit {
		t.Errorf("the provider saw %d calls during the outage, want %d at most", saw, limit)
	}
}

// bySecond counts the calls of each second of the outage.
func bySecond(log []visit, o outage) []int {
	n := make([]int, int(o.to.Sub(o.from)/time.Second))
	for _, v := range log {
		if o.at(v.at) {
			n[v.at.Sub(o.from)/time.Second]++
		}
	}
	return n
}

// checkDone checks that all jobs are done, and that nothing was ever given up.
func (f *fleet) checkDone(t *testing.T) {
	records, attempts := f.Records(t), map[int]int{}
	for id := range f.published {
		r := records[mulligan.RecordKey(fleetKind, mulligan.Token(id))]
		if r == nil || r.State != mulligan.Done {
			t.Errorf("%s is %+v, want it done", id, r)
			continue
		}
		attempts[r.Attempts]++
	}
	t.Logf("jobs by the attempts that they took: %v", attempts)
	if spent := f.counts(t)["mulligan_spent_total"]; spent.sum() != 0 {
		t.Errorf("jobs were given up: %v", spent)
	}
	if n := f.letters(t); n != 0 {
		t.Errorf("%d letters were written", n)
	}
}

// letters is how many dead letters were ever written.
func (f *fleet) letters(t testing.TB) uint64 {
	t.Helper()
	s, err := f.JS.Stream(t.Context(), f.Topology.DeadStream())
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

// checkCounts checks that the provider's log, the metrics and the records tell
// the same of attempts and retries, and each worker of its breaker.
func (f *fleet) checkCounts(t *testing.T) {
	log, counts := f.p.log(), f.counts(t)
	byStatus, retries := map[int]int{}, 0
	for _, v := range log {
		byStatus[v.status]++
		if v.attempt > 1 {
			retries++
		}
	}
	recorded, planned := 0, map[mulligan.Verb]int{}
	for _, r := range f.Records(t) {
		recorded += r.Attempts
		for _, a := range r.History {
			planned[a.Verb]++
		}
	}
	counted := counts["mulligan_attempts_total"]
	t.Logf("%d calls (%v), %d of them retries; attempts recorded: %d, counted: %v; planned by the records: %v; counted: %v, put off: %v",
		len(log), byStatus, retries, recorded, counted, planned, counts["mulligan_retries_total"], counts["mulligan_deferred_total"])
	for _, same := range []struct {
		what      string
		got, want int
	}{
		{"attempts that succeeded, in the metrics", counted.sum(`outcome="ok"`), byStatus[http.StatusOK]},
		{"attempts that failed, in the metrics", counted.sum(`outcome="http_503"`), byStatus[http.StatusServiceUnavailable]},
		{"attempts in the metrics", counted.sum(), len(log)},
		{"attempts in the records", recorded, len(log)},
		{"retries in the metrics", counts["mulligan_retries_total"].sum(), retries},
		{"retries in the records", planned[mulligan.Nak] + planned[mulligan.Park], retries},
		{"jobs put off, in the metrics", counts["mulligan_deferred_total"].sum(), planned[mulligan.Defer]},
		{"jobs done, in the metrics", counts["mulligan_done_total"].sum(), len(f.published)},
		{"facts that could not be recorded", counts["mulligan_lost_evidence_total"].sum(), 0},
	} {
		if same.got != same.want {
			t.Errorf("%s: %d, want %d", same.what, same.got, same.want)
		}
	}
	for i, w := range f.workers {
		if n := metricsOf(t, w)["mulligan_breaker_trips_total"]; n.sum(`why="open"`) != 1 || n.sum() != 1 {
			t.Errorf("the breaker of %s tripped %v, want once", f.names[i], n)
		}
	}
}

// checkRetryBudget checks that within any span of time no more was spent on
// retries that failed than the successes of first attempts, the floor and what
// all workers had saved can pay for. A retry is paid for at some time between
// the end of the attempt before and its own call; only what was certainly paid
// for within the span is counted. A success counts in a span that begins up to a
// second after the provider's answer: the worker learns of it later.
func checkRetryBudget(t *testing.T, log []visit, workers int) {
	const late = time.Second
	type paid struct {
		from, to time.Time
		cost     float64
	}
	var failed []paid
	var earned []time.Time
	last := map[string]visit{}
	for _, v := range log {
		before := last[v.id]
		last[v.id] = v
		switch {
		case v.attempt == 1 && v.status == http.StatusOK:
			earned = append(earned, v.answered)
		case v.attempt > 1 && v.status != http.StatusOK:
			cost := 1.0
			if before.status == http.StatusServiceUnavailable {
				cost = costThrottled
			}
			failed = append(failed, paid{before.answered, v.at, cost})
		}
	}
	slices.SortFunc(earned, time.Time.Compare)
	after := func(at time.Time) int { // the successes before
		n, _ := slices.BinarySearchFunc(earned, at, time.Time.Compare)
		return n
	}
	slices.SortFunc(failed, func(a, b paid) int { return a.to.Compare(b.to) })
	saved := max(tokenCap, float64(workers))
	closest := saved
	for _, first := range failed {
		spent := 0.0
		for _, r := range failed {
			if r.from.Before(first.from) {
				continue
			}
			spent += r.cost
			successes := after(r.to) - after(first.from.Add(-late))
			may := tokenRatio*float64(successes) + tokenFloor*r.to.Sub(first.from).Seconds() + saved
			if closest = min(closest, may-spent); spent > may {
				t.Errorf("within %v from %v on %.2f was spent on retries, of %.2f", r.to.Sub(first.from), first.from, spent, may)
				return
			}
		}
	}
	t.Logf("%d retries failed; of what they may cost within any span %.2f was left at least", len(failed), closest)
}
