package budget

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// A Load is what is configured of a downstream, to tell whether a storm of
// retries could last there.
type Load struct {
	Downstream string
	Limits     Limits // zero fields are the defaults
	// Capacity is how many calls per second the downstream can serve; zero for
	// not known, and then there is nothing to say.
	Capacity float64
	// Peak is how many first attempts per second come at most; zero for not known,
	// and then only the floor counts.
	Peak float64
	// Timeout is that of one call; zero for not known.
	Timeout time.Duration
}

// What a downstream is asked at most, of what it can do: above, it has nothing
// left to recover with.
const (
	safeRate  = 0.9
	safeCalls = 0.8
)

// Between these a rate is told as it is; more counts as that, and less is shown as
// none.
const (
	leastRate = 1e-6
	mostRate  = 1e9
)

// StormWarnings says, a line each, which downstreams could be kept down by the
// load that was meant to be served, and what to change:
//
//   - peak·(1+ratio) + workers·floor ≥ 0.9·capacity: with its retries the peak
//     leaves nothing to recover with. Workers share the floor, but after a
//     start or a split each may believe itself alone.
//   - slots·workers > 0.8·capacity·timeout: so many calls are in flight at once
//     that a slow downstream answers them when nobody waits any more, by
//     Little's law.
func StormWarnings(workers int, loads ...Load) []string {
	workers = min(max(workers, 1), maxWorkers)
	var lines []string
	for _, l := range loads {
		limits, err := l.Limits.Normal()
		if err != nil || !(l.Capacity > 0) {
			continue
		}
		l.Limits, l.Capacity, l.Peak = limits, min(l.Capacity, mostRate), min(l.Peak, mostRate)
		if line := l.rate(workers); line != "" {
			lines = append(lines, line)
		}
		if line := l.crowd(workers); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// rate warns of more calls per second than are safe.
func (l Load) rate(workers int) string {
	floors := float64(workers) * l.Limits.Floor
	safe := safeRate * l.Capacity
	asked := l.Peak*(1+l.Limits.Ratio) + floors
	if !(asked >= safe) {
		return ""
	}
	remedy := fmt.Sprintf("lower ratio, floor or the number of workers, or have a capacity of over %s/s", short(asked/safeRate))
	if peak := (safe - floors) / (1 + l.Limits.Ratio); peak >= leastRate {
		remedy = fmt.Sprintf("keep the peak under %s/s, or have a capacity of over %s/s", short(peak), short(asked/safeRate))
	}
	return fmt.Sprintf("downstream %s: a peak of %s/s is %s/s with its retries, and %s/s are safe: %s",
		l.Downstream, short(l.Peak), short(asked), short(safe), remedy)
}

// crowd warns of more calls at once than are safe.
func (l Load) crowd(workers int) string {
	calls := l.Limits.Slots * workers
	safe := safeCalls * l.Capacity * l.Timeout.Seconds()
	if l.Timeout <= 0 || float64(calls) <= safe {
		return ""
	}
	remedy := fmt.Sprintf("lower its concurrency to 1, with a worker count of at most %d", int(safe))
	switch each := math.Floor(safe / float64(workers)); {
	case each >= 1:
		remedy = fmt.Sprintf("lower its concurrency to %d", int(each))
	case safe < 1:
		remedy = "give its calls a longer timeout"
	}
	return fmt.Sprintf("downstream %s: %d workers with a concurrency of %d make %d calls at once, and within %v it answers %s safely: %s",
		l.Downstream, workers, l.Limits.Slots, calls, l.Timeout, short(safe), remedy)
}

// short is x with three figures, or all those before the point.
func short(x float64) string {
	if x < leastRate {
		return "0"
	}
	scale := math.Pow(10, max(2-math.Floor(math.Log10(x)), 0))
	return strconv.FormatFloat(math.Round(x*scale)/scale, 'f', -1, 64)
}
