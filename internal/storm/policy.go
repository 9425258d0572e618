package storm

import (
	"time"

	"github.com/mulligan-queue/mulligan"
)

// A Policy is how a client retries.
type Policy struct {
	Name string
	// Mulligan: workers as they ship; the other fields are of clients that call as
	// soon as a job arrives, all at once if need be, and ignore hints.
	Mulligan bool
	attempts int                                      // of a job, at most
	delay    func(n int, u float64) (d time.Duration) // before retry n, for u in [0,1)
	ratio    float64                                  // of a retry that a success earns; zero for no budget
}

// saves is how many retries the budget of such a client can save up.
const saves = 10

// Policies are those to compare.
func Policies() []Policy {
	p := mulligan.DefaultPolicy()
	at := func(d time.Duration) func(int, float64) time.Duration {
		return func(int, float64) time.Duration { return d }
	}
	backoff := func(n int, _ float64) time.Duration { return p.Delay(n, 0.5) }
	return []Policy{
		{Name: "no retry", attempts: 1},
		{Name: "immediate ×4", attempts: 4, delay: at(0)},
		{Name: "backoff ×4", attempts: 4, delay: backoff},
		{Name: "backoff + jitter ×4", attempts: 4, delay: p.Delay},
		{Name: "jitter + 10 % budget", attempts: 4, delay: p.Delay, ratio: 0.1},
		{Name: "Mulligan", Mulligan: true},
	}
}

// clients returns what a job does that arrives.
func (p Policy) clients(w *world) func(*job) {
	if p.Mulligan {
		return newFleet(w).arrive
	}
	n := &naive{w: w, p: p, saved: make([]float64, w.c.Workers)}
	for i := range n.saved {
		n.saved[i] = saves
	}
	return n.arrive
}

// naive are clients without workers: each job is a call at once. The budget is of
// one process, of which there are as many as there would be workers.
type naive struct {
	w     *world
	p     Policy
	saved []float64 // retries of each process
	came  int
}

func (n *naive) arrive(j *job) {
	n.came++
	n.attempt(j, n.came%len(n.saved))
}

func (n *naive) attempt(j *job, process int) {
	n.w.try(j, n.w.c.Timeout, func(err error) { n.ended(j, process, err) })
}

func (n *naive) ended(j *job, process int, err error) {
	saved := &n.saved[process]
	switch {
	case err == nil:
		*saved = min(*saved+n.p.ratio, saves)
		n.w.settle(j, true)
		return
	case j.attempts == n.p.attempts, n.p.ratio > 0 && *saved < 1:
		n.w.settle(j, false)
		return
	case n.p.ratio > 0:
		*saved--
	}
	n.w.after(n.p.delay(j.attempts, n.w.chance.Float64()), func() { n.attempt(j, process) })
}
