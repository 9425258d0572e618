package storm

import (
	"math"
	"slices"
	"time"
)

// Measures are what one run of a policy through a case came to, or the means of
// several. Jobs of the poison user are left out of all that is said of jobs.
type Measures struct {
	Jobs float64 `json:"jobs"`
	Dead float64 `json:"dead"` // given up
	// Success is the share of the jobs that were done in the end.
	Success float64 `json:"success"`
	// InFault and After are how many attempts a job has that arrived during the
	// fault, and after it.
	InFault float64 `json:"attempts_per_job_in_fault"`
	After   float64 `json:"attempts_per_job_after"`
	// Wasted is the share of the servers' working time, in the whole run, that went
	// to calls whose client had given up by then, or that failed.
	Wasted float64 `json:"wasted"`
	// Recovery is how long after the fault successes keep up with arrivals for good:
	// from then on there is no interval in which less than 95 % of what arrives is
	// done, but for as many jobs as arrive in half a second, and five. Nil: never.
	Recovery *float64 `json:"recovery_s"`
	// Drained is how long after the fault, at least a second, no job is open that is
	// older than a second. Nil: never.
	Drained *float64 `json:"drained_s"`
	// P50 and P99 are of the time from a job's arrival until it was done.
	P50 float64 `json:"p50_s"`
	P99 float64 `json:"p99_s"`
}

// Second is what happened within a second of the run.
type Second struct {
	Attempts  float64 `json:"attempts"`
	Successes float64 `json:"successes"`
}

// What is counted over time.
type counted int

const (
	arrivals counted = iota
	attempts
	successes
	kinds
)

// bin is how exact counts over time are.
const bin = 100 * time.Millisecond

// perSecond is how many bins are in a second.
const perSecond = int(time.Second / bin)

// series counts over time, until the horizon.
type series [kinds][]float64

func newSeries(horizon time.Duration) (s series) {
	for i := range s {
		s[i] = make([]float64, horizon/bin)
	}
	return s
}

func (s series) count(at time.Duration, what counted) {
	if i := int(at / bin); i < len(s[what]) {
		s[what][i]++
	}
}

func (s series) seconds() []Second {
	var out []Second
	for i := 0; i < len(s[attempts]); i += perSecond {
		out = append(out, Second{sum(s[attempts][i : i+perSecond]), sum(s[successes][i : i+perSecond])})
	}
	return out
}

func sum(of []float64) (n float64) {
	for _, x := range of {
		n += x
	}
	return n
}

// measure is what a run came to.
func (w *world) measure() Measures {
	var m Measures
	var took []time.Duration
	var inFault, after cohort
	for _, j := range w.jobs {
		if j.user == poisonUser {
			continue
		}
		m.Jobs++
		if j.done {
			took = append(took, j.settled.Sub(j.arrived))
		} else {
			m.Dead++
		}
		switch at := j.arrived.Sub(w.began); {
		case w.c.faulty(at), w.c.Herd > 0 && at == w.c.From:
			inFault.add(j)
		case at >= w.c.To:
			after.add(j)
		}
	}
	m.Success = 1 - m.Dead/m.Jobs
	m.InFault, m.After = inFault.mean(), after.mean()
	m.Wasted = w.provider.wasted.Seconds() / w.provider.worked.Seconds()
	m.Recovery, m.Drained = w.recovery(), w.drained()
	slices.Sort(took)
	m.P50, m.P99 = quantile(took, 0.5), quantile(took, 0.99)
	return m
}

type cohort struct{ jobs, attempts int }

func (c *cohort) add(j *job) { c.jobs, c.attempts = c.jobs+1, c.attempts+j.attempts }
func (c *cohort) mean() float64 {
	return float64(c.attempts) / float64(max(c.jobs, 1))
}

func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1))].Seconds()
}

// lastSeconds of the run are too few to say that anything is for good.
const lastSeconds = 10

// recovery goes back from the horizon: owed is by how much successes were short
// of arrivals since the fault ended, and most is the largest of it later on.
func (w *world) recovery() *float64 {
	from := int(w.c.To / bin)
	arrived, succeeded := w.series[arrivals], w.series[successes]
	owed := make([]float64, len(arrived)+1) // at the beginning of each bin
	for i := from; i < len(arrived); i++ {
		owed[i+1] = owed[i] + 0.95*arrived[i] - succeeded[i]
	}
	allowed := w.c.rate()/2 + 5
	most, first := math.Inf(-1), len(arrived)
	for i := len(arrived); i >= from; i-- {
		most = max(most, owed[i])
		if most-owed[i] <= allowed {
			first = i
		}
	}
	return sinceFault(first, from, len(arrived))
}

// drained looks for the first time at which no job is open that arrived over a
// second ago; those of the fault's last moment are as old a second after it.
func (w *world) drained() *float64 {
	from, bins := int(w.c.To/bin), int(w.c.Horizon/bin)
	old := make([]int, bins+1) // by how many more jobs are old since the bin before
	for _, j := range w.jobs {
		if j.user == poisonUser {
			continue
		}
		begins, ends := int((j.arrived.Sub(w.began)+time.Second)/bin), int(j.settled.Sub(w.began)/bin)
		if begins < ends && begins < bins {
			old[begins]++
			old[min(ends, bins)]--
		}
	}
	open := 0
	for i := range bins {
		open += old[i]
		if i >= from+perSecond && open == 0 {
			return sinceFault(i, from, bins)
		}
	}
	return nil
}

func sinceFault(at, from, bins int) *float64 {
	if at > bins-lastSeconds*perSecond {
		return nil
	}
	s := float64(at-from) / float64(perSecond)
	return &s
}
