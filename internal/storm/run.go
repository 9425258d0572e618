package storm

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// A Report is how a policy fared in a case, over one or more seeds.
type Report struct {
	Case   string  `json:"case"`
	Load   float64 `json:"load"`
	Policy string  `json:"policy"`
	Seeds  int     `json:"seeds"`
	// Measures are the means over the seeds; of recovery and draining the mean of
	// those seeds in which it happened.
	Measures
	// Never is in how many seeds the policy did not recover.
	Never int `json:"never_recovered"`
	// Worst has the worst value of each over the seeds.
	Worst Measures `json:"worst"`
	// Seconds are the means of each second of the run.
	Seconds []Second `json:"seconds,omitempty"`
}

// Seeds are those of the runs of a report: N of them from First on.
type Seeds struct {
	First uint64
	N     int
}

// played is one run.
type played struct {
	measures Measures
	seconds  []Second
}

func play(c Case, p Policy, seed uint64) played {
	w := newWorld(c, seed)
	w.play(p.clients(w))
	return played{w.measure(), w.series.seconds()}
}

// Run runs each policy through each case with each seed, several at a time, and
// reports in the order of cases, then policies. After each run it calls ran, if
// that is not nil, with how many are left; several calls may come at once.
func Run(cases []Case, policies []Policy, seeds Seeds, ran func(left int)) []Report {
	runs := make([]played, len(cases)*len(policies)*seeds.N)
	var next, left atomic.Int64
	left.Store(int64(len(runs)))
	var busy sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		busy.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(runs); i = int(next.Add(1)) - 1 {
				pair, seed := i/seeds.N, seeds.First+uint64(i%seeds.N)
				runs[i] = play(cases[pair/len(policies)], policies[pair%len(policies)], seed)
				if l := left.Add(-1); ran != nil {
					ran(int(l))
				}
			}
		})
	}
	busy.Wait()
	var reports []Report
	for _, c := range cases {
		for _, p := range policies {
			reports = append(reports, report(c, p, runs[:seeds.N]))
			runs = runs[seeds.N:]
		}
	}
	return reports
}

// report sums up the runs of one policy in one case.
func report(c Case, p Policy, runs []played) Report {
	r := Report{Case: c.Name, Load: c.Load, Policy: p.Name, Seeds: len(runs), Seconds: make([]Second, len(runs[0].seconds))}
	of := func(field func(*Measures) *float64, less bool) {
		worst := *field(&runs[0].measures)
		total := 0.0
		for i := range runs {
			x := *field(&runs[i].measures)
			total += x
			if (x < worst) == less {
				worst = x
			}
		}
		*field(&r.Measures), *field(&r.Worst) = total/float64(len(runs)), worst
	}
	of(func(m *Measures) *float64 { return &m.Jobs }, false)
	of(func(m *Measures) *float64 { return &m.Dead }, false)
	of(func(m *Measures) *float64 { return &m.Success }, true)
	of(func(m *Measures) *float64 { return &m.InFault }, false)
	of(func(m *Measures) *float64 { return &m.After }, false)
	of(func(m *Measures) *float64 { return &m.Wasted }, false)
	of(func(m *Measures) *float64 { return &m.P50 }, false)
	of(func(m *Measures) *float64 { return &m.P99 }, false)
	r.Recovery, r.Worst.Recovery, r.Never = times(runs, func(m Measures) *float64 { return m.Recovery })
	r.Drained, r.Worst.Drained, _ = times(runs, func(m Measures) *float64 { return m.Drained })
	for i := range r.Seconds {
		for _, run := range runs {
			r.Seconds[i].Attempts += run.seconds[i].Attempts
			r.Seconds[i].Successes += run.seconds[i].Successes
		}
		r.Seconds[i].Attempts /= float64(len(runs))
		r.Seconds[i].Successes /= float64(len(runs))
	}
	return r
}

// times sums up a time that some runs may not have.
func times(runs []played, field func(Measures) *float64) (mean, worst *float64, never int) {
	total, most := 0.0, 0.0
	for _, r := range runs {
		t := field(r.measures)
		if t == nil {
			never++
			continue
		}
		total, most = total+*t, max(most, *t)
	}
	if n := len(runs) - never; n > 0 {
		total /= float64(n)
		mean = &total
	}
	if never == 0 {
		worst = &most
	}
	return mean, worst, never
}
