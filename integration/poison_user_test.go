package integration

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
)

// The poison user's jobs all fail if they are told to, the other's never do. By
// default a user has one retry per second, with a burst of ten.
const (
	poisonUser, otherUser      = "eve", "ada"
	poisonClass                = "poison"
	userBurst, userRetryEvery  = 10, time.Second
	poisonPerSecond            = 300
	otherPerSecond             = 30
	headStart                  = 2 * time.Second // of the other, so that the downstream is known to work
	poisoned, poisonedForSpeed = 3000, 10_000
)

// pair is a poison user and another, whose jobs go through one fleet.
type pair struct {
	*fleet
	poison, other stream
}

// newPair makes a fleet whose provider answers the poison user's jobs with 500,
// or does them, too. The poison user's jobs have a deadline; zero means none.
func newPair(t testing.TB, fail bool, deadline time.Duration) *pair {
	t.Helper()
	p := newProvider(t)
	p.took = 2 * time.Millisecond
	p.fails = func(v visit) int {
		if fail && strings.HasPrefix(v.id, poisonClass) {
			<-time.After(p.took) // like a call that succeeds
			return http.StatusInternalServerError
		}
		return 0
	}
	w := &pair{fleet: newFleet(t, p, 3)}
	until := time.Time{}
	if deadline != 0 {
		until = time.Now().Add(deadline)
	}
	w.poison = stream{poisonPerSecond, numbered(func(n int) mulligan.Job {
		return mulligan.Job{ID: fmt.Sprint(poisonClass, "-", n), User: poisonUser, Deadline: until}
	})}
	w.other = stream{otherPerSecond, numbered(func(n int) mulligan.Job {
		return mulligan.Job{ID: fmt.Sprint(fine, "-", n), User: otherUser}
	})}
	return w
}

// numbered counts on where a stream goes on later.
func numbered(job func(n int) mulligan.Job) func(int) mulligan.Job {
	n := 0
	return func(int) mulligan.Job {
		n++
		return job(n)
	}
}

// arriving is for how long n jobs of the poison user arrive.
func arriving(n int) time.Duration {
	return time.Duration(n)*time.Second/poisonPerSecond + time.Millisecond
}

func TestAPoisonUserIsKeptToTheRateOfAUserAndNobodyElseNotices(t *testing.T) {
	t.Parallel()
	const deadline = 20 * time.Second // so that all that waits for a place has ended by then
	w := newPair(t, true, deadline)
	over := time.Now().Add(deadline)
	w.arrive(t, time.Now().Add(headStart), w.other)
	w.arrive(t, time.Now().Add(arriving(poisoned)), w.poison, w.other)
	w.arrive(t, over, w.other)
	streams{w.JS}.settled(t, time.Minute)

	log, counts := w.p.log(), w.counts(t)
	t.Run("the other user's jobs are done at the first attempt", func(t *testing.T) { w.checkOther(t) })
	t.Run("no breaker tripped", func(t *testing.T) {
		if trips := counts["mulligan_breaker_trips_total"]; trips.sum() != 0 {
			t.Errorf("breakers tripped: %v", trips)
		}
	})
	t.Run("the retries kept to the user's rate", func(t *testing.T) { checkUserRate(t, log) })
	t.Run("the budget, the metrics, the records and the provider's log agree", func(t *testing.T) { w.checkPoison(t, counts) })
}

func (w *pair) checkOther(t *testing.T) {
	calls, jobs := w.p.byJob(), 0
	for id := range w.published {
		if !strings.HasPrefix(id, fine) {
			continue
		}
		jobs++
		if v := calls[fleetKind+"/"+id]; len(v) != 1 || v[0].attempt != 1 || v[0].status != http.StatusOK {
			t.Errorf("%s was called as %+v, want one good attempt", id, v)
		}
	}
	t.Logf("%d jobs of the other user, publish to answer: %v", jobs, w.waits(fine))
}

// checkUserRate checks that the poison user's nth retry came no sooner than the
// rate allows: the first failure opens the account with a whole burst.
func checkUserRate(t *testing.T, log []visit) {
	var opened time.Time
	var retries []time.Time
	for _, v := range log {
		if v.status == http.StatusOK {
			continue
		}
		if opened.IsZero() || v.at.Before(opened) {
			opened = v.at
		}
		if v.attempt > 1 {
			retries = append(retries, v.at)
		}
	}
	slices.SortFunc(retries, time.Time.Compare)
	for i, at := range retries {
		if soonest := opened.Add(time.Duration(i+1-userBurst) * userRetryEvery); at.Before(soonest) {
			t.Errorf("retry %d came %v after the first failure, want %v at least", i+1, at.Sub(opened), soonest.Sub(opened))
		}
	}
	if len(retries) <= userBurst {
		t.Errorf("%d retries: no rate is to be seen", len(retries))
	}
	t.Logf("%d retries within %v after the first failure", len(retries), retries[len(retries)-1].Sub(opened))
}

func (w *pair) checkPoison(t *testing.T, counts map[string]counted) {
	calls, retries := map[int]int{}, 0
	for _, v := range w.p.log() {
		calls[v.status]++
		if v.attempt > 1 {
			retries++
		}
	}
	recorded, states, unasked := 0, map[string]int{}, 0
	for key, r := range w.Records(t) {
		if strings.HasPrefix(key, fleetKind+"."+poisonClass) {
			states[string(r.State)+" "+string(r.Reason)]++
		}
		if last := r.Last(); last.Verb == mulligan.Spend && last.Reason == mulligan.Expired {
			unasked++ // it failed so late that no place was asked for
		}
		recorded += r.Attempts
	}
	s := decode[budget.UserState](t, command(t, "budget", "user", poisonUser, "--server", w.URL, "--json"))
	attempts, spent, deferred := counts["mulligan_attempts_total"], counts["mulligan_spent_total"], counts["mulligan_deferred_total"]
	t.Logf("%d calls %v, %d of them retries; the user was granted %d, had %d reserved and was denied %d; jobs ended as %v, %d of them without asking; counted: %v, %v, %v, %v",
		len(w.p.log()), calls, retries, s.Granted, s.Reserved, s.Denied, states, unasked, attempts, counts["mulligan_retries_total"], deferred, spent)
	for _, same := range []struct {
		what      string
		got, want int
	}{
		{"failed attempts in the metrics", attempts.sum(`outcome="http_500"`), calls[http.StatusInternalServerError]},
		{"attempts in the metrics", attempts.sum(), len(w.p.log())},
		{"attempts in the records", recorded, len(w.p.log())},
		// A place that comes up at the deadline may be too late for its job.
		{"retries granted and reserved", s.Granted + s.Reserved, retries + spent.sum(`reason="expired"`) - unasked},
		{"retries in the metrics", counts["mulligan_retries_total"].sum(), s.Granted},
		{"jobs put off, in the metrics", deferred.sum(`reason="user_budget"`), s.Reserved},
		{"jobs put off for anything, in the metrics", deferred.sum(), s.Reserved},
		{"jobs spent for want of a place, in the metrics", spent.sum(`reason="user_budget"`), s.Denied},
		{"letters", int(w.letters(t)), spent.sum()},
		{"jobs that ended in the metrics", spent.sum() + counts["mulligan_done_total"].sum(), len(w.published)},
	} {
		if same.got != same.want {
			t.Errorf("%s: %d, want %d", same.what, same.got, same.want)
		}
	}
}

// spread is how long jobs of a class waited, from before they were published to
// the provider's first answer.
type spread struct{ p50, p99 time.Duration }

func (s spread) String() string { return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms", ms(s.p50), ms(s.p99)) }

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

func (w *pair) waits(class string) spread {
	var took []time.Duration
	for _, v := range w.p.log() {
		if strings.HasPrefix(v.id, class) && v.attempt == 1 && !v.answered.IsZero() {
			took = append(took, v.answered.Sub(w.published[v.id]))
		}
	}
	slices.Sort(took)
	return spread{took[len(took)/2], took[len(took)*99/100]}
}

// round is a part of a benchmark with an end of its own.
type round struct {
	testing.TB
	ends []func()
}

func (r *round) Cleanup(end func()) { r.ends = append(r.ends, end) }

func (r *round) end() {
	for _, end := range slices.Backward(r.ends) {
		end()
	}
}

// BenchmarkAPoisonUserBesideAnother compares how long the jobs of a user wait
// while 10,000 jobs of another fail with how long they do while as many succeed,
// in turn, by the medians of several rounds. The rate is one that two cores carry
// with some room, together with the server, the provider and the publisher: at
// the limit the failures' greater cost would show as a queue of all. It takes six
// minutes.
func BenchmarkAPoisonUserBesideAnother(b *testing.B) {
	const rounds = 5
	for range b.N {
		var all [2][]spread // succeeding, failing
		for range rounds {
			for i, fail := range []bool{false, true} {
				all[i] = append(all[i], beside(b, fail))
			}
		}
		var pairs []float64 // of rounds that follow each other, when the machine is in the same mood
		for i := range rounds {
			pairs = append(pairs, all[1][i].p99.Seconds()/all[0][i].p99.Seconds())
		}
		slices.Sort(pairs)
		good, bad := medians(all[0]), medians(all[1])
		b.ReportMetric(ms(good.p50), "succeeding-p50-ms")
		b.ReportMetric(ms(good.p99), "succeeding-p99-ms")
		b.ReportMetric(ms(bad.p50), "failing-p50-ms")
		b.ReportMetric(ms(bad.p99), "failing-p99-ms")
		b.ReportMetric(bad.p50.Seconds()/good.p50.Seconds(), "p50-ratio")
		b.ReportMetric(bad.p99.Seconds()/good.p99.Seconds(), "p99-ratio")
		b.ReportMetric(pairs[rounds/2], "p99-ratio-of-pairs")
	}
}

// beside is one round.
func beside(b *testing.B, fail bool) spread {
	r := &round{TB: b}
	defer r.end()
	w := newPair(r, fail, 0)
	w.arrive(r, time.Now().Add(headStart), w.other)
	w.arrive(r, time.Now().Add(arriving(poisonedForSpeed)), w.poison, w.other)
	eventually(r, time.Minute, "all jobs were called", func() bool { return len(w.p.byJob()) == len(w.published) })
	s := w.waits(fine)
	b.Logf("failing %v: %d calls, the other user's %v, the poison user's own %v", fail, len(w.p.log()), s, w.waits(poisonClass))
	return s
}

func medians(all []spread) spread {
	var p50, p99 []time.Duration
	for _, s := range all {
		p50, p99 = append(p50, s.p50), append(p99, s.p99)
	}
	slices.Sort(p50)
	slices.Sort(p99)
	return spread{p50[len(p50)/2], p99[len(p99)/2]}
}
