package budget

import "time"

// What a retry costs. One that the downstream pushed back unserved costs it
// less than one that it tried and failed.
const (
	retryCost     = 1.0
	throttledCost = 0.35
)

func costAfter(r Result) float64 {
	if r == Throttled {
		return throttledCost
	}
	return retryCost
}

// tokens is a bucket of retries. It is the retry quota of the AWS SDKs, filled
// by successes and given back what a retry that succeeds has cost, in the
// proportion of Google's retry budget, with the floor per second of Finagle's
// RetryBudget. What is saved is never negative and never over this worker's share
// of the cap, whence over any window, for all workers together,
//
//	spent - given back ≤ ratio·successes + floor·time + cap
//
// but for a cap of less than two retries for each worker.
type tokens struct {
	ratio, cap, floor float64
	workers           int           // that share the floor and the cap
	saved             float64       // at the time of at
	at                time.Duration // until when the floor is in saved
}

// earn is what the floor brings this worker in a second.
func (t *tokens) earn() float64 { return t.floor / float64(t.workers) }

func (t *tokens) advance(at time.Duration) {
	t.add(t.earn() * (at - t.at).Seconds())
	t.at = at
}

func (t *tokens) add(n float64) { t.saved = min(t.saved+n, t.most()) }

// most is what this worker can save up: its share of the cap, but two retries at
// least, of which one is with the pull that waits for retries that are due.
func (t *tokens) most() float64 {
	return max(t.cap/float64(t.workers), min(t.cap, 2*retryCost))
}

// take takes cost, or nothing and says when the floor alone will have brought it.
func (t *tokens) take(at time.Duration, cost float64) (ok bool, then time.Duration) {
	t.advance(at)
	if missing := cost - t.saved; missing > 0 {
		// A microsecond more, lest rounding has the caller come for nothing.
		return false, at + time.Duration(missing/t.earn()*float64(time.Second)) + time.Microsecond
	}
	t.saved -= cost
	return true, 0
}

// A Token is the permission of one retry. It is held until [Downstream.Start]
// uses it; the retry's end decides whether its cost is given back. Only a held
// token can be given back or started, so neither can happen twice. A Token is
// safe for concurrent use. The nil *Token stands for a first attempt.
type Token struct {
	d       *Downstream
	cost    float64
	foreign bool // the cost was not taken here
	state   tokenState
}

type tokenState uint8

const (
	tokenHeld tokenState = iota
	tokenUsed            // its retry is in flight
	tokenGone
)

// Take takes the token of a retry, before the retry is pulled or planned as a
// nak. after is how the attempt before it ended: a retry of a throttled one
// costs less. Before a pull nobody knows; take one after Failed then, and see
// [Token.After]. Without enough saved, Take returns nil, takes nothing, and the
// Wait says when the floor will have brought it; a success may sooner. Whatever
// is saved, there is no token while the breaker is open, and none in the first
// second in which it is half-open: a job that is tried again and again while
// nothing works has no attempt left when something does.
func (d *Downstream) Take(now time.Time, after Result) (*Token, Wait) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tick(now)
	if w := d.firstsOnly(); w.Why != "" {
		return nil, w
	}
	cost := costAfter(after)
	if ok, then := d.tokens.take(d.at, cost); !ok {
		return nil, Wait{Why: NoToken, Until: d.time(then)}
	}
	return &Token{d: d, cost: cost}, Wait{}
}

// firstsOnly is why no retry is granted whatever is saved, if so.
func (d *Downstream) firstsOnly() Wait {
	until := d.breaker.until + firstProbes
	switch {
	case d.breaker.phase == PhaseOpen:
		return d.held()
	case d.breaker.phase == PhaseHalfOpen && d.at < until:
		return Wait{Why: ProbeTaken, Until: d.time(until)}
	}
	return Wait{}
}

// Paid is the token of a retry that was paid for when it was planned, perhaps
// by another worker: it comes back from a nak. It costs nothing here, and what
// it cost there is given to this worker if the retry succeeds.
func (d *Downstream) Paid(after Result) *Token {
	return &Token{d: d, cost: costAfter(after), foreign: true}
}

// After makes a held token that of a retry after r, if that is cheaper, and
// gives back the difference.
func (t *Token) After(now time.Time, r Result) {
	if t == nil {
		return
	}
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	if t.state == tokenHeld {
		t.lower(now, costAfter(r))
	}
}

// lower makes t cost no more than that.
func (t *Token) lower(now time.Time, cost float64) {
	if cost < t.cost {
		t.refund(now, t.cost-cost)
		t.cost = cost
	}
}

// Back gives a held token back: nothing was pulled, or it was no retry after
// all, or another budget denied it. Of any other token it does nothing.
func (t *Token) Back(now time.Time) {
	if t == nil {
		return
	}
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	if t.state != tokenHeld {
		return
	}
	t.state = tokenGone
	t.refund(now, t.cost)
}

// refund gives back what was taken here.
func (t *Token) refund(now time.Time, cost float64) {
	if t.foreign {
		return
	}
	t.d.tick(now)
	t.d.tokens.advance(t.d.at)
	t.d.tokens.add(cost)
	t.d.stir()
}

// settle is the end of the retry of t, or without a token of a first attempt.
func (d *Downstream) settle(t *Token, r Result) {
	switch {
	case t == nil && r == Succeeded:
		d.tokens.add(d.tokens.ratio)
	case t == nil:
	case r == Dropped:
		t.state = tokenHeld // whether it ran, its holder knows
	case r == Succeeded:
		t.state = tokenGone
		d.tokens.add(t.cost)
	default:
		t.state = tokenGone
	}
}
