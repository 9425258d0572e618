package witness

import (
	"slices"
	"strings"
	"time"
	"unicode"
)

// A Fault is what was done to the run, and to whom.
type Fault struct {
	At  time.Time     `json:"at"`
	For time.Duration `json:"for_ns"` // until it was healed, or the process began again
	// What is for people, but for what ends a process (kill, terminate, upgrade), a
	// freeze, what is slow, and a skew: then For is how far the clock of the target is
	// ahead, over the whole run.
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

// trail is for how long what was under way still arrives: of a slow link, what
// waited in its queue.
func (f Fault) trail() time.Duration {
	if f.What == "slow" {
		return reconnect
	}
	return linger
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
	return worker != "" && named(f.Target, worker) || named(f.Target, "workers")
}

// named finds a name among others: w1 is not w12.
func named(text, name string) bool {
	return slices.Contains(strings.FieldsFunc(text, func(r rune) bool {
		return r != '-' && r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}), name)
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
type faults []strike

// strike is a fault and whom it hit, found out once.
type strike struct {
	Fault
	servers    bool
	someWorker bool
	workers    map[string]bool // those that are known
	ways       map[string]bool // to the downstream, of these workers
}

func strikes(all []Fault, workers []string) (fs faults) {
	for _, f := range all {
		s := strike{Fault: f, servers: f.ofServers(workers), workers: map[string]bool{}, ways: map[string]bool{}}
		for _, w := range workers {
			s.workers[w], s.ways[w] = f.ofWorker(w), f.ofDownstream(w)
			s.someWorker = s.someWorker || s.workers[w]
		}
		s.someWorker = !f.skews() && (s.someWorker || f.of("worker") && !f.of("downstream"))
		fs = append(fs, s)
	}
	return fs
}

func (fs faults) any(from, to time.Time, after time.Duration, hit func(s strike) bool) bool {
	return slices.ContainsFunc(fs, func(s strike) bool { return hit(s) && s.overlaps(from, to, after) })
}

// struck reports whether its worker was hit between the beginning of a call and
// what follows its end: what became of it may not stand in the record. A fault of
// the servers alone does not do that, since a worker writes until it is answered;
// for as long it can be struck.
func (fs faults) struck(c *Call) bool {
	last := fs.over(c).Add(linger)
	if until, ok := fs.shaken(c); ok && until.After(last) {
		last = until
	}
	return fs.any(c.Began.Add(-linger), last, reconnect, func(s strike) bool { return s.workers[c.Worker] })
}

// over is when the caller was through with a call: of an answer that may not have
// come back it did not know before its patience was at an end.
func (fs faults) over(c *Call) time.Time {
	if fs.cutOff(c.Worker, c.Began, c.end()) {
		return later(c.end(), c.Began.Add(callTimeout))
	}
	return c.end()
}

// shaken reports whether the servers were hit in that time, and until when what
// they know of the call may be behind: its job may have been given to another
// worker before the record was written. A fault that follows before another is over
// prolongs it.
func (fs faults) shaken(c *Call) (until time.Time, ok bool) {
	until = fs.over(c).Add(linger)
	for again := true; again; {
		again = false
		for _, f := range fs {
			over := f.At.Add(f.For + settle)
			if f.servers && f.overlaps(c.Began.Add(-linger), until, settle) && over.After(until) {
				until, ok, again = over, true, true
			}
		}
	}
	return until, ok
}

// hit is both.
func (fs faults) hit(c *Call) bool {
	_, ok := fs.shaken(c)
	return ok || fs.struck(c)
}

// repeats is how many more runs of a key the faults can have caused that hit one of
// its calls: one each, and one more whenever a server waited in vain for a sign of
// its worker.
func (fs faults) repeats(calls []*Call) (n int) {
	for _, f := range fs {
		if slices.ContainsFunc(calls, faults{f}.hit) {
			n += 1 + int((f.For+settle)/ackWait)
		}
	}
	return n
}

// ackWait is how long a server waits for a sign before it gives a job to another.
const ackWait = 30 * time.Second

// unheard reports whether the answer to a call may not have arrived.
func (fs faults) unheard(c *Call) bool {
	return c.Gone || c.Ended.IsZero() || fs.struck(c) || fs.cutOff(c.Worker, c.Began.Add(-linger), c.end().Add(linger))
}

// cutOff reports whether the downstream, or a worker's way to it, was hit in a
// time: calls may have come to nothing there, or arrived late.
func (fs faults) cutOff(worker string, from, to time.Time) bool {
	return fs.any(from, to, linger, func(s strike) bool { return s.ways[worker] })
}

// ended counts the faults of workers in a time: each may have ended a run.
func (fs faults) ended(from, to time.Time) (n int) {
	for _, f := range fs {
		if f.someWorker && f.overlaps(from, to, reconnect) {
			n++
		}
	}
	return n
}

// away reports whether the servers may not have answered some worker in a time.
func (fs faults) away(from, to time.Time) bool {
	return fs.any(from, to, settle, func(s strike) bool { return s.servers || s.someWorker })
}

// ends counts the faults that hit a worker or the servers during one of the calls.
func (fs faults) ends(calls []*Call) (n int) {
	for _, f := range fs {
		if slices.ContainsFunc(calls, faults{f}.hit) {
			n++
		}
	}
	return n
}

// end is when the downstream was through with the call; of one that was killed
// nobody knows, and the caller's patience is what is known.
func (c *Call) end() time.Time {
	if c.Ended.IsZero() {
		return c.Began.Add(callTimeout)
	}
	return c.Ended
}

// late reports whether a call may have arrived long after it was sent, as the way
// to the downstream was silent.
func (fs faults) late(c *Call) bool { return fs.cutOff(c.Worker, c.Began.Add(-linger), c.Began) }

// thawed reports whether a call was made by a worker that had just been let go on:
// with what it had in hand since before. One that arrived late was made while its way
// was silent.
func (fs faults) thawed(c *Call) bool {
	sent := c.Began.Add(-linger)
	for _, f := range fs {
		if f.ways[c.Worker] && f.overlaps(sent, c.Began, linger) && f.At.Before(sent) {
			sent = f.At
		}
	}
	return fs.any(sent, c.Began, linger, func(s strike) bool { return s.What == "freeze" && s.workers[c.Worker] })
}
