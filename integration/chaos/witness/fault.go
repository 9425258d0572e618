package witness

import (
	"regexp"
	"strings"
	"time"
)

// A Fault is what was done to the run, and to whom.
type Fault struct {
	At  time.Time     `json:"at"`
	For time.Duration `json:"for_ns"` // until it was healed, or the process began again
	// What is for people, but for a skew: then For is how far the clock of the
	// target is ahead, over the whole run.
	What string `json:"what"`
	// Target names processes by what they are: worker, scheduler, downstream,
	// publisher, operator. A worker's name is the one in its config file. Anything
	// else is of the servers, which concerns all.
	Target string `json:"target"`
}

// settle is how long what follows from a fault of the servers outlasts it: leaders
// are elected, clients connect again, and what was not answered within five
// seconds is asked again.
const settle = 10 * time.Second

// reconnect is the same for one worker's connection.
const reconnect = 5 * time.Second

// linger is the same for a process: what it was about to write is not written.
const linger = time.Second

func (f Fault) skews() bool { return strings.Contains(f.What, "skew") }

func (f Fault) overlaps(from, to time.Time, after time.Duration) bool {
	return !f.skews() && !f.At.After(to) && !f.At.Add(f.For+after).Before(from)
}

func (f Fault) of(role string) bool { return strings.Contains(f.Target, role) }

// ofWorker reports whether a worker was hit: by its name, or because all were. One
// that only lost its way to the downstream goes on.
func (f Fault) ofWorker(name string) bool { return !f.of("downstream") && f.names(name) }

// ofDownstream reports whether the downstream was hit, or a worker's way to it.
func (f Fault) ofDownstream(worker string) bool {
	return f.of("downstream") && (!f.of("worker") || f.names(worker))
}

func (f Fault) names(worker string) bool {
	return named(f.Target, worker) || regexp.MustCompile(`\bworkers\b`).MatchString(f.Target)
}

// named finds a name among others: w1 is not w12.
func named(text, name string) bool {
	return name != "" && regexp.MustCompile(`(^|[^\w-])`+regexp.QuoteMeta(name)+`($|[^\w-])`).MatchString(text)
}

func (f Fault) ofServers(workers []string) bool {
	for _, role := range []string{"worker", "scheduler", "downstream", "publisher", "operator"} {
		if f.of(role) {
			return false
		}
	}
	for _, w := range workers {
		if named(f.Target, w) {
			return false
		}
	}
	return !f.skews()
}

// faults are those of a run, as the checker asks about them.
type faults struct {
	all     []Fault
	workers []string
}

func (fs faults) any(from, to time.Time, hit func(Fault) (after time.Duration, ok bool)) bool {
	for _, f := range fs.all {
		if after, ok := hit(f); ok && f.overlaps(from, to, after) {
			return true
		}
	}
	return false
}

// unrecorded reports whether what became of a call may not stand in the record:
// its worker, or the servers, were hit between its beginning and what follows its
// end.
func (fs faults) unrecorded(c *Call) bool {
	return fs.any(c.Began.Add(-linger), c.end().Add(linger), func(f Fault) (time.Duration, bool) {
		if f.ofServers(fs.workers) {
			return settle, true
		}
		return reconnect, f.ofWorker(c.Worker)
	})
}

// unheard reports whether the answer to a call may not have arrived.
func (fs faults) unheard(c *Call) bool {
	return c.Gone || c.Ended.IsZero() || fs.unrecorded(c) ||
		c.Ended.Sub(c.Began) > callTimeout/4 || // its caller may have begun to wait long before, on a busy machine
		fs.cutOff(c.Worker, c.Began.Add(-linger), c.end().Add(linger))
}

// cutOff reports whether the downstream, or a worker's way to it, was hit in a
// time: calls may have come to nothing there, or arrived late.
func (fs faults) cutOff(worker string, from, to time.Time) bool {
	return fs.any(from, to, func(f Fault) (time.Duration, bool) { return linger, f.ofDownstream(worker) })
}

// between counts what hit workers or servers in a time, each with how often in it
// a call may have come to nothing: a failure that cannot be recorded is given
// back for five seconds.
func (fs faults) between(from, to time.Time) (n, runs int) {
	for _, f := range fs.all {
		if f.overlaps(from, to, settle) && !f.of("publisher") && !f.of("operator") && !f.of("scheduler") {
			n++
			runs += 2 + int((f.For+settle)/(5*time.Second))
		}
	}
	return n, runs
}

// skew is how far a worker's clock is ahead.
func (fs faults) skew(worker string) (ahead time.Duration) {
	for _, f := range fs.all {
		if f.skews() && f.ofWorker(worker) {
			ahead = f.For
		}
	}
	return ahead
}

// end is when the downstream was through with the call; of one that was killed
// nobody knows, and the caller's patience is what is known.
func (c *Call) end() time.Time {
	if c.Ended.IsZero() {
		return c.Began.Add(callTimeout)
	}
	return c.Ended
}
