// Package budget bounds the load that retries add. Those of users and tasks are
// shared by all workers and asked only for a retry. That of a downstream is in
// each worker's memory and asked before every call: a downstream that fails is
// held, and gets no first attempts either.
package budget

import (
	"fmt"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// A Rate is how many retries each user may have, over all kinds. A zero field
// means the default: one per second, with a burst of ten.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Normal returns r with defaults filled in, or an error if it has no limit.
func (r Rate) Normal() (Rate, error) {
	if r.PerSecond == 0 {
		r.PerSecond = 1
	}
	if r.Burst == 0 {
		r.Burst = 10
	}
	if !(r.PerSecond > 0 && r.PerSecond <= 1e6) || r.Burst < 1 || r.Burst > 1e6 {
		return r, fmt.Errorf("user rate of %v per second with a burst of %d is not between 0 and 1e6 each", r.PerSecond, r.Burst)
	}
	// Beyond, no deadline is as far away as the next place.
	if float64(r.Burst)/r.PerSecond > mulligan.MaxDeadline.Seconds() {
		return r, fmt.Errorf("user rate of %v per second takes more than 30 days for a burst of %d", r.PerSecond, r.Burst)
	}
	return r, nil
}

func (r Rate) interval() time.Duration {
	return time.Duration(float64(time.Second) / r.PerSecond)
}

// place returns when the next retry may run, given when the allowance would be
// whole again, and that time once the place is taken. It is the generic cell
// rate algorithm of ITU-T I.371, in its virtual-scheduling form: one timestamp
// is the whole state.
func (r Rate) place(whole, now time.Time) (at, next time.Time) {
	if whole.Before(now) {
		whole = now
	}
	at = whole.Add(-time.Duration(r.Burst-1) * r.interval())
	if at.Before(now) {
		at = now
	}
	return at, whole.Add(r.interval())
}
