package storm

import (
	"fmt"
	"strings"
	"time"
)

// A Case is a load, and what happens to the provider that serves it.
type Case struct {
	Name  string
	About string // what happens, in a sentence
	// Load is how many jobs arrive, as a share of what the provider serves.
	Load    float64
	Horizon time.Duration // jobs arrive until then; what is open then goes on to its end
	Workers int
	Timeout time.Duration // of one call

	Servers int           // of the provider, each with one call at a time
	Service time.Duration // the mean of a call's, exponentially distributed
	Queue   int           // calls that wait for a server; 503 when it is full
	Limit   int           // calls in a clock second, 429 for more; zero for no limit

	From, To time.Duration // of the fault
	Slow     float64       // how many times longer a call takes then
	Down     bool          // every call is answered 503 at once then
	Surge    float64       // how many times more jobs arrive then
	Herd     int           // jobs that arrive at once at From

	// Poison is the share of the jobs that are of one user, all of whose calls
	// fail. What is measured is the other jobs only.
	Poison float64
	// venom is what that user's calls come to without being served: an answer at once,
	// or errTimeout after that time. Nil: they are served, and fail.
	venom error
	// Cured: that user's calls succeed.
	Cured bool
}

// Names are those of the cases that [Named] knows.
func Names() []string {
	var names []string
	for _, c := range cases() {
		names = append(names, c.Name)
	}
	return append(names, Phase)
}

// Phase is the name of the standard case at nine loads.
const Phase = "phase"

// Named returns the cases to run for a name, at a load that is a share of what
// the provider serves, over 0 and under 1. It is one case, but two for poison: as
// it is and with that user cured; and for a phase diagram one for each load.
func Named(name string, load float64) ([]Case, error) {
	if !(load > 0 && load < 1) {
		return nil, fmt.Errorf("load %v is not between 0 and 1", load)
	}
	all := cases()
	if name == Phase {
		var out []Case
		for tenths := range 9 {
			c := all[0]
			c.Load = float64(tenths+1) / 10
			out = append(out, c)
		}
		return out, nil
	}
	for _, c := range all {
		if c.Name != name {
			continue
		}
		c.Load = load
		if c.Poison == 0 {
			return []Case{c}, nil
		}
		cured := c
		cured.Name, cured.Cured = c.Name+" cured", true
		return []Case{c, cured}, nil
	}
	return nil, fmt.Errorf("case %q is not one of %s", name, strings.Join(Names(), ", "))
}

// cases are all there are, the standard one first.
func cases() []Case {
	base := Case{
		Horizon: 150 * time.Second, Workers: 4, Timeout: time.Second,
		Servers: 10, Service: 100 * time.Millisecond, Queue: 300,
		From: 30 * time.Second, To: 40 * time.Second,
	}
	with := func(name, about string, change func(*Case)) Case {
		c := base
		c.Name, c.About = name, about
		change(&c)
		return c
	}
	return []Case{
		with("standard", "the provider is ten times slower from 30 s to 40 s", func(c *Case) { c.Slow = 10 }),
		with("outage", "the provider answers 503 at once from 30 s to 40 s", func(c *Case) { c.Down = true }),
		with("poison", "half of the jobs are of one user, all of whose calls fail", func(c *Case) { c.Poison, c.From, c.To = 0.5, 0, 0 }),
		with("herd", "a thousand jobs arrive at once at 30 s", func(c *Case) { c.Herd, c.To = 1000, c.From }),
		with("ratelimit", "three times as many jobs arrive from 30 s to 40 s, and of over 100 calls in a second the rest is answered 429 with a Retry-After", func(c *Case) {
			c.Surge, c.Limit, c.Servers = 3, 100, 20
		}),
	}
}

// rate is how many jobs arrive per second.
func (c Case) rate() float64 {
	serves := float64(c.Servers) / c.Service.Seconds()
	if c.Limit > 0 {
		serves = min(serves, float64(c.Limit))
	}
	return c.Load * serves
}

func (c Case) faulty(at time.Duration) bool { return at >= c.From && at < c.To }
