// Package storm shows what policies of retrying do to a provider that fails for
// a while. It is a discrete-event simulation in virtual time. Mulligan's part in
// it is the code that its worker runs: the judging of an attempt, the budgets of
// users and downstreams with their breaker, limit, gate and tokens, and the room
// for naks. What is modelled is the provider, the streams between the workers
// (first in, first out; naks that are due before fresh jobs; schedules up to
// 250 ms late) and the clients that know nothing of all this.
//
// The same case, policy and seed give the same numbers.
package storm

import (
	"math/rand/v2"
	"strconv"
	"time"
)

// users is among how many users the jobs are spread.
const users = 100

const poisonUser = "poison"

// job is one that has arrived.
type job struct {
	user     string
	arrived  time.Time
	settled  time.Time // zero while it is open
	done     bool
	attempts int
	own      retrying
}

// world is one run of a case.
type world struct {
	clock
	c        Case
	began    time.Time
	provider provider
	jobs     []*job
	series   series

	// Chance has a source for each purpose, so that policies which draw on it more
	// or less often still meet the same jobs.
	arrivals, chance *rand.Rand
}

func newWorld(c Case, seed uint64) *world {
	began := time.Unix(0, 0).UTC()
	source := func(purpose uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, purpose)) }
	w := &world{clock: clock{now: began}, c: c, began: began, arrivals: source(1), chance: source(2), series: newSeries(c.Horizon)}
	w.provider = provider{w: w, chance: source(3)}
	return w
}

// play lets the jobs arrive at a client and time pass until all are settled.
func (w *world) play(arrive func(*job)) {
	w.after(w.gap(), func() { w.next(arrive) })
	if w.c.Herd > 0 {
		w.at(w.began.Add(w.c.From), func() {
			for range w.c.Herd {
				arrive(w.job())
			}
		})
	}
	w.run()
}

// gap is the time to the next job, exponentially distributed.
func (w *world) gap() time.Duration {
	rate := w.c.rate()
	if w.c.Surge > 0 && w.c.faulty(w.time()) {
		rate *= w.c.Surge
	}
	return time.Duration(w.arrivals.ExpFloat64() / rate * float64(time.Second))
}

func (w *world) next(arrive func(*job)) {
	if w.time() >= w.c.Horizon {
		return
	}
	arrive(w.job())
	w.after(w.gap(), func() { w.next(arrive) })
}

// job is one that arrives now.
func (w *world) job() *job {
	j := &job{arrived: w.now, user: "user" + strconv.Itoa(w.arrivals.IntN(users))}
	if w.arrivals.Float64() < w.c.Poison {
		j.user = poisonUser
	}
	w.jobs = append(w.jobs, j)
	if j.user != poisonUser {
		w.series.count(w.time(), arrivals)
	}
	return j
}

// time is how long the run has lasted.
func (w *world) time() time.Duration { return w.now.Sub(w.began) }

// try calls the provider for a job, and the client's end with what came of it.
func (w *world) try(j *job, timeout time.Duration, end func(err error)) {
	j.attempts++
	w.series.count(w.time(), attempts)
	w.provider.call(j, timeout, end)
}

// settle ends a job, done or dead.
func (w *world) settle(j *job, done bool) {
	j.settled, j.done = w.now, done
	if done && j.user != poisonUser {
		w.series.count(w.time(), successes)
	}
}
