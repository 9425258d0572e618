package budget

import "time"

// How the limit of calls in flight is cut.
const (
	cutBy    = 0.7
	cutEvery = time.Second
)

// flow bounds the calls in flight as TCP bounds its packets: slow start, then
// additive increase and multiplicative decrease (RFC 5681), the decrease by
// CUBIC's 0.7 (RFC 9438).
type flow struct {
	slots   int
	limit   float64 // between 1 and slots
	slow    bool    // in slow start, until the first cut
	all     int     // calls in flight
	current int     // of these, begun since the breaker tripped last
	// The last cut was at cutAt, when the call cutAfter was the latest to have begun.
	cutAt    time.Duration
	cutAfter uint64
}

// narrow lets one call through, and more with each that is answered.
func (f *flow) narrow() { f.limit, f.slow = 1, true }

// widen follows a call that was answered.
func (f *flow) widen() {
	if f.slow {
		f.limit++
	} else {
		f.limit += 1 / f.limit
	}
	f.limit = min(f.limit, float64(f.slots))
}

// cut follows a call that was pushed back. The calls that were in flight at a
// cut tell no more than the one that caused it, so there is one a round trip,
// and with short ones one a second.
func (f *flow) cut(at time.Duration, serial, latest uint64) {
	if f.cutAfter > 0 && (serial <= f.cutAfter || at-f.cutAt < cutEvery) {
		return
	}
	f.limit, f.slow = max(f.limit*cutBy, 1), false
	f.cutAt, f.cutAfter = at, latest
}
