package budget

import "time"

// When the breaker trips, and how it comes back.
const (
	windowBuckets = 10
	bucketSpan    = time.Second
	tripCalls     = 20 // and half of them failing
	firstOpen     = time.Second
	maxOpen       = 30 * time.Second
	probes        = 5
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
	phase      Phase         // never PhaseCredential, see shown
	refused    bool          // the credential, by the last call that told
	until      time.Duration // while open
	openFor    time.Duration // the last time; zero once closed again
	good       int           // probes of this generation
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
func (b *breaker) end(at time.Duration, r Result) {
	switch {
	case r == Dropped:
	case r == RefusedCredential:
		b.refused = true
		b.trip(at)
	case b.phase == PhaseHalfOpen:
		b.probed(at, r)
	case b.window.count(at, r):
		b.trip(at)
	}
}

// probed takes note of a probe that the credential was good for.
func (b *breaker) probed(at time.Duration, r Result) {
	b.refused = false
	if r.failing() {
		b.trip(at)
		return
	}
	b.good++
	if b.good == probes {
		b.phase, b.openFor, b.window = PhaseClosed, 0, window{}
	}
}

func (b *breaker) trip(at time.Duration) {
	b.openFor = min(max(2*b.openFor, firstOpen), maxOpen)
	b.phase, b.until, b.good = PhaseOpen, at+b.openFor, 0
	b.generation++
}

// shown is the phase for people: a refused credential is one of its own until
// a probe was not refused.
func (b *breaker) shown() Phase {
	if b.refused {
		return PhaseCredential
	}
	return b.phase
}

// window counts calls and how many of them failed over the last seconds.
type window struct {
	buckets [windowBuckets]tally
	sum     tally
	newest  int64 // which bucket since the beginning
}

type tally struct{ calls, failing int }

// count adds a call that ended with r, and reports whether there are too many
// failures now. What is the caller's fault tells nothing about the downstream.
func (w *window) count(at time.Duration, r Result) bool {
	if r != Succeeded && !r.failing() {
		return false
	}
	w.roll(int64(at / bucketSpan))
	b := &w.buckets[w.newest%windowBuckets]
	b.calls++
	w.sum.calls++
	if !r.failing() {
		return false
	}
	b.failing++
	w.sum.failing++
	return w.sum.calls >= tripCalls && 2*w.sum.failing >= w.sum.calls
}

// roll forgets what is older than the window once bucket i is the newest.
func (w *window) roll(i int64) {
	if i-w.newest >= windowBuckets {
		*w = window{newest: i}
	}
	for w.newest < i {
		w.newest++
		old := &w.buckets[w.newest%windowBuckets]
		w.sum.calls -= old.calls
		w.sum.failing -= old.failing
		*old = tally{}
	}
}
