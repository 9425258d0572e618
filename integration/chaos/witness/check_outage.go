package witness

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// What a worker's breaker promises, stated here again: it opens when of at least
// so many calls in its window half fail, first for a second, then each time for at
// least twice as long, and probes in between.
const (
	breakerWindow = 10 * time.Second
	breakerCalls  = 20
	firstOpen     = time.Second
	// probesEach is how many calls of one user may fail before a probe tells.
	probesEach = 6
	// inFlight is how long after the breaker has opened a call may arrive that was
	// begun before, and how coarse its window is.
	inFlight = time.Second
)

// outages checks that a downstream which refuses everything is called by each
// worker no more than it takes to notice that, and to probe (I4).
func (c *checker) outages() {
	type lane struct{ worker, downstream string }
	lanes := map[lane][]*Call{}
	for _, s := range c.stories {
		for _, call := range s.calls {
			l := lane{call.Worker, s.kind.downstream}
			lanes[l] = append(lanes[l], call)
		}
	}
	byName := func(a, b lane) int { return cmp.Compare(a.downstream+a.worker, b.downstream+b.worker) }
	for _, l := range slices.SortedFunc(maps.Keys(lanes), byName) {
		calls := lanes[l]
		slices.SortFunc(calls, func(a, b *Call) int { return a.Began.Compare(b.Began) })
		for from, call := range calls {
			if call.Answer.Class == outage && (from == 0 || calls[from-1].Answer.Class != outage) {
				c.outage("downstream "+l.downstream, calls, from)
			}
		}
	}
}

// outage checks one, which begins with a call of a worker.
func (c *checker) outage(downstream string, calls []*Call, from int) {
	var opened time.Time
	after := 0
	for i := from; i < len(calls) && calls[i].Answer.Class == outage; i++ {
		at := calls[i].Began
		if c.disturbed(calls[i].Worker, calls[from].Began, at) {
			return // its breaker began anew, or calls came late
		}
		switch {
		case opened.IsZero() && trips(calls[:i+1], at):
			opened = at
		case opened.IsZero() || at.Sub(opened) < inFlight:
			continue
		default:
			after++
		}
		if most := probesWithin(at.Sub(opened)); after > most {
			c.violate("I4", downstream, fmt.Sprintf("at most %d probes by %s since %s, when its breaker was open at the latest", most, calls[i].Worker, clock(opened)), fmt.Sprintf("%d calls until %s", after, clock(at)))
			return
		}
	}
}

func (c *checker) disturbed(worker string, from, to time.Time) bool {
	return c.faults.any(from.Add(-linger), to, linger, func(s strike) bool {
		return s.workers[worker] || s.ways[worker] && s.Target != "downstream"
	})
}

// trips reports whether the calls of the last window must have opened the breaker,
// however its window lies.
func trips(calls []*Call, at time.Time) bool {
	failed, good := 0, 0
	for i := len(calls) - 1; i >= 0 && at.Sub(calls[i].Began) < breakerWindow+2*inFlight; i-- {
		switch recent := at.Sub(calls[i].Began) < breakerWindow-inFlight; {
		case calls[i].Answer.Class == outage && recent:
			failed++
		case calls[i].Answer.Status > 0 && calls[i].Answer.Status < 429:
			good++
		}
	}
	return failed >= breakerCalls && failed > good
}

// probesWithin is how many calls a breaker lets through that has been open for a
// time, had it closed never: a few whenever it half-opens.
func probesWithin(open time.Duration) (n int) {
	n = probesEach
	for wait, at := firstOpen, firstOpen; at <= open; at += wait {
		n += probesEach
		wait *= 2
	}
	return n
}
