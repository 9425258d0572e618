package budget

import (
	"sync"
	"time"
)

// maxGate bounds for how long an answer may stop a whole downstream. The job that
// got the answer waits for as long as it was told.
const maxGate = time.Minute

// A Downstream is one worker's budget of calls to a downstream: retry tokens, a
// breaker, a limit of calls in flight, and a gate for when it asks to wait. It
// reads no clock and starts nothing: every method but [Downstream.Await] is told
// the time. A time before one that it was told already counts as that one. A
// Downstream is safe for concurrent use; make one with [NewDownstream].
type Downstream struct {
	began time.Time // times inside are counted from here

	mu      sync.Mutex
	at      time.Duration // the latest time it was told
	tokens  tokens
	breaker breaker
	flow    flow
	pushes  voices        // that push back
	hints   voices        // that ask to wait
	hint    time.Duration // the longest of theirs is over then
	gate    time.Duration // closed until then
	changed chan struct{} // closed when something may be granted that was not; nil if nobody waits
	calls   []call        // in flight, by the place in their permit
	free    []int         // places in calls
	serial  uint64        // of the last call
}

// call is one in flight.
type call struct {
	serial     uint64 // zero in a place that is free
	generation uint64 // of the breaker
	token      *Token // nil for a first attempt
}

// NewDownstream returns the budget of a downstream that nothing is known about:
// closed, with all slots and all retries that can be saved. Its worker counts
// as the only one until [Downstream.Share] says more. It fails if l is not
// normal; see [Limits.Normal].
func NewDownstream(l Limits, now time.Time) (*Downstream, error) {
	l, err := l.Normal()
	if err != nil {
		return nil, err
	}
	return &Downstream{
		began:   now,
		tokens:  tokens{ratio: l.Ratio, cap: l.Cap, floor: l.Floor, workers: 1, saved: l.Cap},
		breaker: breaker{phase: PhaseClosed},
		flow:    flow{slots: l.Slots, limit: float64(l.Slots)},
	}, nil
}

// Share says how many workers live, this one included: they share the floor and
// the cap, of which each has two retries at least. Fewer than one count as one,
// more than a million as a million.
func (d *Downstream) Share(now time.Time, workers int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tick(now)
	d.tokens.advance(d.at)
	d.tokens.workers = min(max(workers, 1), maxWorkers)
	d.tokens.add(0) // no more than the share
	d.stir()
}

// Start asks for all that a call needs, and takes all or nothing. retry is the
// held token of a retry, nil for a first attempt. When the call may not start,
// the permit is the zero Permit, a token is still held, and the Wait has a Why. In
// the first second in which the breaker is half-open no retry starts that is known
// to be one: a first attempt is the better probe, as it has others left.
func (d *Downstream) Start(now time.Time, retry *Token) (Permit, Wait) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tick(now)
	if retry != nil && (retry.d != d || retry.state != tokenHeld) {
		return Permit{}, Wait{Why: TokenUsed}
	}
	if w := d.held(); w.Why != "" {
		return Permit{}, w
	}
	if w := d.firstsOnly(); retry != nil && w.Why != "" {
		return Permit{}, w
	}
	// Calls from before a trip may hang for long. They do not keep a probe out,
	// but for all of them together there are no more than the slots.
	full := d.flow.current >= d.limit()
	switch {
	case full && d.breaker.phase == PhaseHalfOpen:
		return Permit{}, Wait{Why: ProbeTaken}
	case full || d.flow.all >= d.flow.slots:
		return Permit{}, Wait{Why: LimitReached}
	}
	return d.begin(retry), Wait{}
}

func (d *Downstream) begin(retry *Token) Permit {
	if retry != nil {
		retry.state = tokenUsed
	}
	if len(d.free) == 0 {
		d.free = append(d.free, len(d.calls))
		d.calls = append(d.calls, call{})
	}
	place := d.free[len(d.free)-1]
	d.free = d.free[:len(d.free)-1]
	d.serial++
	d.calls[place] = call{serial: d.serial, generation: d.breaker.generation, token: retry}
	d.flow.all++
	d.flow.current++
	return Permit{d: d, place: place, serial: d.serial}
}

// learn draws what there is to be learnt about the downstream from the end of c.
func (d *Downstream) learn(c call, o Outcome) {
	before, r := d.breaker.phase, o.Result
	d.breaker.end(d.at, o)
	switch {
	case d.breaker.phase == PhaseOpen:
		d.flow.current = 0 // those in flight will end late
	case before == PhaseHalfOpen:
	case r.answered():
		d.flow.widen()
	case r.pushedBack() && d.pushes.second(o.User, d.at, d.at+windowSpan):
		d.flow.cut(d.at, c.serial, d.serial)
	}
}

// asked closes the gate when a throttled call was asked to wait. One user's alone
// does not; when others' were, too, in the last seconds or with a hint that is not
// over, it closes for the longest hint of all.
func (d *Downstream) asked(o Outcome) {
	hint := min(o.Hint, maxGate)
	d.hint = max(d.hint, d.at+hint)
	if d.hints.second(o.User, d.at, d.at+max(hint, windowSpan)) {
		d.gate = d.hint
	}
}

// Held returns why nothing is to be pulled for the downstream, and until when
// at least; the zero Wait if it is not held.
func (d *Downstream) Held(now time.Time) Wait {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tick(now)
	return d.held()
}

func (d *Downstream) held() Wait {
	open := d.breaker.phase == PhaseOpen
	switch {
	case open && d.breaker.refused:
		return Wait{Why: CredentialRefused, Until: d.time(max(d.breaker.until, d.gate))}
	case open:
		return Wait{Why: BreakerOpen, Until: d.time(max(d.breaker.until, d.gate))}
	case d.at < d.gate:
		return Wait{Why: GateClosed, Until: d.time(d.gate)}
	}
	return Wait{}
}

// State returns how the downstream stands.
func (d *Downstream) State(now time.Time) State {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tick(now)
	d.tokens.advance(d.at)
	s := State{Breaker: d.breaker.shown(), Limit: d.limit(), InFlight: d.flow.all, Tokens: d.tokens.saved}
	if d.at < d.gate {
		s.GateUntil = d.time(d.gate)
	}
	s.OneUser = d.breaker.spared(d.at)
	return s
}

// limit is how many calls of this generation may be in flight.
func (d *Downstream) limit() int {
	switch d.breaker.phase {
	case PhaseOpen:
		return 0
	case PhaseHalfOpen:
		return min(d.breaker.room(), d.flow.slots)
	}
	return int(d.flow.limit)
}

// tick lets time pass, never backwards: of two callers at once the later to be
// served may have looked at the clock earlier.
func (d *Downstream) tick(now time.Time) {
	d.at = max(d.at, now.Sub(d.began))
	if d.breaker.turn(d.at) {
		d.flow.narrow()
	}
}

func (d *Downstream) time(at time.Duration) time.Time { return d.began.Add(at) }
