package budget

import "time"

// When the breaker trips, and how it comes back.
const (
	firstOpen = time.Second
	maxOpen   = 30 * time.Second
	probes    = 5
	// firstProbes is for how long a breaker that half-opens leaves its probes to
	// first attempts; then retries may probe too, should there be nothing else.
	firstProbes = time.Second
)

// A Phase is that of a downstream's breaker.
type Phase string

// The phases of a breaker.
const (
	PhaseClosed   Phase = "closed"
	PhaseOpen     Phase = "open"      // held, because it failed
	PhaseHalfOpen Phase = "half_open" // a few probes decide
	// PhaseCredential: held, because it refused our credential, until a probe is
	// not refused. Somebody has to act.
	PhaseCredential Phase = "credential"
)

// breaker holds a downstream that fails, and lets a few probes decide whether
// it works again. That of sony/gobreaker/v2 was not used: it reads the clock,
// stays open for a fixed time, cannot say until when, and lets all its probes
// through at once.
//
// Each trip begins a generation. A call that began in an earlier one ends late:
// it says nothing about the downstream as it is now and must not be shown to
// the breaker.
type breaker struct {
	phase      Phase // never PhaseCredential, see shown
	refused    bool  // the credential, by the last call that told
	refusals   voices
	until      time.Duration // while open
	openFor    time.Duration // the last time; zero to begin anew
	good, bad  int           // probes of this generation
	failed     string        // whose the last probe was that failed, empty for nobody's
	alike      int           // probes of his that failed since, in a row
	generation uint64
	window     window
}

// turn half-opens a breaker that was open for its time, and reports whether it did.
func (b *breaker) turn(at time.Duration) bool {
	if b.phase != PhaseOpen || at < b.until {
		return false
	}
	b.phase = PhaseHalfOpen
	return true
}

// room is how many probes may be in flight: one, and once it was good all that
// are missing.
func (b *breaker) room() int {
	if b.good == 0 {
		return 1
	}
	return probes - b.good
}

// end takes note of how a call of this generation ended.
func (b *breaker) end(at time.Duration, o Outcome) {
	switch {
	case o.Result == Dropped:
	case o.Result == RefusedCredential && b.refusals.second(o.User, at, at+windowSpan):
		b.refused = true
		b.trip(at)
	case b.phase == PhaseHalfOpen:
		b.probed(at, o)
	case b.window.count(at, o):
		b.trip(at)
	}
}

// probed takes note of a probe. More bad ones than good ones open the breaker
// again: were a single bad one enough, a downstream that fails now and then, which
// would never have tripped it, would hardly come back once it was open.
func (b *breaker) probed(at time.Duration, o Outcome) {
	if o.Result != RefusedCredential {
		b.refused = false
	}
	switch {
	case o.Result != RefusedCredential && !o.Result.failing():
		b.good++
		b.alike = 0
	case b.again(o.User):
		return
	default:
		b.bad++
	}
	switch {
	case b.bad > b.good:
		b.trip(at)
	case b.good == probes:
		b.phase, b.openFor, b.window, b.refusals = PhaseClosed, 0, window{}, voices{}
	}
}

// again takes note of whose a failed probe was, and reports whether it tells
// nothing new: it is of the user whose the last one was. So a user whose calls all
// fail does not keep a downstream open that works again. But where there are only
// such calls every sixth tells, lest a downstream that is down be called without
// end, and then it is open for no longer than at first: others may wait behind.
func (b *breaker) again(user string) bool {
	same := user != "" && user == b.failed
	if same && b.alike < probes {
		b.alike++
		return true
	}
	if same {
		b.openFor = 0
	}
	b.failed, b.alike = user, 0
	return false
}

func (b *breaker) trip(at time.Duration) {
	b.openFor = min(max(longer(b.openFor, at), firstOpen), maxOpen)
	b.phase, b.until, b.good, b.bad = PhaseOpen, at+b.openFor, 0, 0
	b.generation++
}

// longer is d or up to twice as long, by the chance that lies in the nanoseconds
// of the time: workers that tripped together then probe at different times, so
// that one of them soon finds a downstream that works again.
func longer(d, at time.Duration) time.Duration {
	x := uint64(at) * 0x9e3779b97f4a7c15 // mixed as SplitMix64 does
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return d + time.Duration((x^x>>31)%uint64(d+1))
}

// spared is for what the breaker is closed only because it is one user's calls.
func (b *breaker) spared(at time.Duration) Cause {
	b.window.roll(int64(at / bucketSpan))
	switch {
	case b.phase != PhaseClosed:
		return ""
	case at < b.refusals.until:
		return CredentialRefused
	case b.window.sum.all.fails(tripCalls) && !b.window.sum.fails():
		return BreakerOpen
	}
	return ""
}

// shown is the phase for people: a refused credential is one of its own until
// a probe was not refused.
func (b *breaker) shown() Phase {
	if b.refused {
		return PhaseCredential
	}
	return b.phase
}
