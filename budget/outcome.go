package budget

import (
	"context"
	"errors"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// A Result is how a call of a downstream ended, as far as the downstream's
// budget cares.
type Result uint8

// The results of a call.
const (
	// Dropped: it never ran, or was interrupted by us. It tells nothing about
	// the downstream, and is what the zero Outcome says.
	Dropped Result = iota
	Succeeded
	// Failed: the downstream, or the way to it, is at fault.
	Failed
	// TimedOut: failed, for want of an answer in time.
	TimedOut
	// Throttled: it asked for fewer calls (429, 503, or a hint).
	Throttled
	// CallersFault: it works, and why there is no success is the job's own affair: it
	// never will be one (any other 4xx), or not yet (a snooze).
	CallersFault
	// RefusedCredential: it does not accept who we say we are (401, 407).
	RefusedCredential
)

func (r Result) failing() bool { return r == Failed || r == TimedOut || r == Throttled }

// answered reports that the downstream is well.
func (r Result) answered() bool { return r == Succeeded || r == CallersFault }

// pushedBack reports that the downstream has too much to do.
func (r Result) pushedBack() bool { return r == Throttled || r == TimedOut }

// String returns the result in words, as for a log.
func (r Result) String() string {
	switch r {
	case Dropped:
		return "dropped"
	case Succeeded:
		return "succeeded"
	case Failed:
		return "failed"
	case TimedOut:
		return "timed out"
	case Throttled:
		return "throttled"
	case CallersFault:
		return "caller's fault"
	case RefusedCredential:
		return "refused credential"
	}
	return "unknown"
}

// An Outcome is how a call ended. The zero Outcome is a dropped call's.
type Outcome struct {
	Result Result
	// User is whose call it was, empty for nobody's. What one user's calls alone
	// say of the downstream holds nobody: where all are one's, let them be nobody's.
	User string
	// Hint is how long the downstream asked to wait (Retry-After), zero if it
	// did not say. Only that of a throttled call counts.
	Hint time.Duration
}

// A Cause is why something has to wait.
type Cause string

// The causes of a wait. The first three hold the downstream: nothing is to be
// pulled for it.
const (
	BreakerOpen       Cause = "open"
	CredentialRefused Cause = "credential"
	GateClosed        Cause = "gate"  // it asked to wait
	ProbeTaken        Cause = "probe" // others are probing
	LimitReached      Cause = "limit" // enough calls are in flight
	NoToken           Cause = "token" // too few retries are saved
	TokenUsed         Cause = "used"  // the retry's token is not held, or another downstream's
)

// A Wait is why and how long something has to wait. The zero Wait is none.
type Wait struct {
	Why Cause
	// Until is the earliest time to ask again. It is zero when no time is
	// known: after ProbeTaken and LimitReached ask again when a call of the
	// downstream has ended, after TokenUsed take another token.
	Until time.Time
}

// State is a downstream at one time, for metrics.
type State struct {
	Breaker   Phase
	Limit     int       // calls that may be in flight; while open none
	InFlight  int       // calls begun and not ended; may be over a limit that fell
	Tokens    float64   // retries saved
	GateUntil time.Time // zero if the downstream did not ask to wait
	// OneUser is for what the downstream would be held if that did not hold for
	// one user's calls alone: BreakerOpen or CredentialRefused; empty for nothing.
	OneUser Cause
}

// OutcomeOf returns how a call ended for its downstream, given what the handler
// said. What is permanent, asks for another payload or snoozes is the job's own
// affair; output that is of no use came from a downstream that works; a panic and
// a cancelled context tell nothing. Neither does the error of a call by
// [mulligan.Policy.Do]: its downstream was told already, and may be another.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return Outcome{Result: Succeeded}
	}
	m, what := mulligan.MeaningOf(err), mulligan.ErrorType(err)
	switch {
	case m.Called, what == "panic", errors.Is(err, context.Canceled):
		return Outcome{}
	case m.Permanent, m.Changed != nil, m.Snoozed != nil:
		return Outcome{Result: CallersFault}
	case m.Refused:
		return Outcome{Result: RefusedCredential}
	case m.Unusable:
		return Outcome{Result: Succeeded}
	case m.Throttled:
		return Outcome{Result: Throttled, Hint: m.Hint}
	case what == "timeout":
		return Outcome{Result: TimedOut}
	}
	return Outcome{Result: Failed}
}
