package budget

import "fmt"

// Limits are those of one downstream, in each worker. A zero field means the
// default, so there is no downstream without limits.
type Limits struct {
	// Ratio is how much of a retry each success at a first attempt earns, at
	// most 1; default 0.1. Google's SRE book (Handling Overload) has the same
	// tenth as its retry budget per client.
	Ratio float64
	// Cap is how many retries all workers together can save up, two each at least;
	// default 10.
	Cap float64
	// Floor is how many retries per second all workers together may have
	// whether or not anything succeeds; default 1.
	Floor float64
	// Slots is how many calls may be in flight; default [DefaultSlots].
	Slots int
}

// DefaultSlots is how many calls of a downstream a worker may have in flight.
const DefaultSlots = 16

const (
	maxRetries = 1e6 // saved, or per second: more is no limit
	minFloor   = 1e-3
	maxSlots   = 10_000
	maxWorkers = 1e6 // so that a wait for the lowest floor can still be told
)

// Normal returns l with defaults filled in, or an error that names the field
// which would be no limit, or would let no retry through at all.
func (l Limits) Normal() (Limits, error) {
	orDefault(&l.Ratio, 0.1)
	orDefault(&l.Cap, 10)
	orDefault(&l.Floor, 1)
	orDefault(&l.Slots, DefaultSlots)
	switch { // NaN is between no two numbers
	case !(l.Ratio > 0 && l.Ratio <= 1):
		return l, fmt.Errorf("downstream ratio %v is not over 0 and at most 1", l.Ratio)
	case !(l.Cap >= 1 && l.Cap <= maxRetries):
		return l, fmt.Errorf("downstream cap of %v retries is not between 1 and %v", l.Cap, maxRetries)
	case !(l.Floor >= minFloor && l.Floor <= maxRetries):
		return l, fmt.Errorf("downstream floor of %v retries per second is not between %v and %v", l.Floor, minFloor, maxRetries)
	case l.Slots < 1 || l.Slots > maxSlots:
		return l, fmt.Errorf("downstream slots %d is not between 1 and %d", l.Slots, maxSlots)
	}
	return l, nil
}

func orDefault[N int | float64](n *N, def N) {
	if *n == 0 {
		*n = def
	}
}
