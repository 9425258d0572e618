package mulligan

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// An Ended is an attempt that has ended, as the rules see it.
type Ended struct {
	Number int           // 1 is the first
	Spent  time.Duration // what all attempts took, plus the delays chosen so far
	Effect Effect        // of the kind; the zero Effect counts as Pure
	NoKey  bool          // the effect needs a key, and the job came without
	// Stepped: all that must not happen twice is in steps. OpenStep is one whose
	// end is not known.
	Stepped  bool
	OpenStep string
	Tried    []Fingerprint // payloads tried, the published one first
	// Begun: an attempt of a call by [Policy.Do] succeeded, or left a doubt,
	// whatever the error says. Uncalled: none was made.
	Begun, Uncalled bool
	// Hint is what is left of the longest wait that a downstream asked for, where
	// the error does not say so.
	Hint time.Duration
	// Deferred is how often in a row the job was deferred, without an attempt in
	// between, for want of a credential or of a budget.
	Deferred int
}

// Chance is what the jitter is made of; each is in [0,1).
type Chance struct{ U, V float64 }

// A Verdict is the decision about one attempt that has ended.
type Verdict struct {
	// Verb is Ack, Retry, Defer or Spend by [Policy.Judge]; [Verdict.Under] makes
	// Nak, Park, Defer or Spend of Retry.
	Verb   Verb
	Reason Reason        // why it is deferred or spent
	Delay  time.Duration // that the policy or the handler chose
	Due    time.Time     // when it comes back
	// Unasked: the user's budget is to be asked then.
	Unasked bool
	// Changed is the payload of the next attempt, if not the same again.
	Changed []byte
	// ErrorType and Error are of the failure behind the verdict.
	ErrorType, Error string
}

// What a job waits, before jitter, after the downstream refused the credential,
// until others have probed it, or after a call waited in vain. Each further
// deferral in a row doubles it, up to the maximum.
const (
	credentialDelay    = 30 * time.Second
	maxCredentialDelay = 10 * time.Minute
	heldDelay          = 2 * time.Second
	maxHeldDelay       = time.Minute
	maxHeld            = 30 // in a row; a call waited in vain again is an attempt then
)

// minSnooze keeps a job that always snoozes from going round and round.
const minSnooze = time.Second

// maxChanges is how often a job may ask for another payload.
const maxChanges = 2

// Judge says what becomes of a job after attempt a ended with err. It is the
// whole rule of retrying, but for the budgets, the deadline and the choice
// between a nak and a park: see [Verdict.Under]. A zero field of p means the
// default.
func (p Policy) Judge(a Ended, err error, c Chance) Verdict {
	if err == nil {
		return Verdict{Verb: Ack}
	}
	if normal, err := p.Normal(); err == nil {
		p = normal
	}
	m := MeaningOf(err)
	m.Throttled, m.Hint = m.Throttled || a.Hint > 0, max(m.Hint, a.Hint)
	v := Verdict{ErrorType: ErrorType(err), Error: ErrorText(err)}
	switch {
	case a.doubts(m):
		return v.spent(InDoubt)
	case m.Permanent:
		return v.spent(PermanentFailure)
	case m.Refused:
		return v.deferred(Credential, deferral(credentialDelay, maxCredentialDelay, a.Deferred, c), m.Hint, c)
	case m.Changed != nil:
		if reason := a.refuses(m); reason != "" {
			return v.spent(reason)
		}
		v.Changed = append([]byte{}, m.Changed.Payload...) // no payload is one, too
	case m.Unusable:
		return v.spent(NoChange)
	case m.Snoozed != nil:
		return v.deferred(Snoozed, max(m.Snoozed.Delay, minSnooze), m.Hint, c)
	case m.ended != "":
		return v.spent(m.ended)
	case m.held && a.Uncalled && a.Deferred < maxHeld:
		return v.deferred(Held, deferral(heldDelay, maxHeldDelay, a.Deferred, c), m.Hint, c)
	}
	switch {
	case a.NoKey:
		return v.spent(NoKey)
	case a.Number >= p.Attempts:
		return v.spent(AttemptsExhausted)
	}
	v.Verb, v.Delay = Retry, p.Delay(a.Number, c.U)
	if m.Throttled {
		v.Delay = p.ThrottledDelay(a.Number, m.Hint, c.U, c.V)
	}
	if left := p.Total - a.Spent; v.Delay >= left {
		if m.Hint > 0 && m.Hint >= left {
			v.Error = ErrorText(fmt.Errorf("%w; it asked to wait %v, and the policy's total leaves %v", err, m.Hint, max(left, 0).Round(time.Millisecond)))
		}
		return v.spent(TimeExhausted)
	}
	return v
}

// doubts reports whether nobody knows if the effect happened, where it must not
// happen twice. What the handler says of the whole, that it failed for good or is
// to run later, it knows; what a step left open it cannot know, and what an error
// says of one call it does not say of those before.
func (a Ended) doubts(m Meaning) bool {
	switch {
	case m.InDoubt:
		return true
	case a.Effect != Once || a.Stepped && a.OpenStep == "":
		return false
	case a.OpenStep != "":
		return true
	case a.Begun || m.held: // what the handler did besides its calls, nobody knows
		return m.sure < told
	}
	return m.sure == doubtful
}

func (v Verdict) spent(why Reason) Verdict {
	v.Verb, v.Reason, v.Delay, v.Changed = Spend, why, 0, nil
	return v
}

// deferred is not before the hint, and spreads those who were given the same.
func (v Verdict) deferred(why Reason, d, hint time.Duration, c Chance) Verdict {
	if hint > d {
		d = saturate(hint, scale(hint/10, c.V))
	}
	v.Verb, v.Reason, v.Delay = Defer, why, d
	return v
}

func deferral(first, most time.Duration, before int, c Chance) time.Duration {
	return scale(min(most, scale(first, math.Pow(2, float64(before)))), 0.5+c.U)
}

// refuses says why a changed payload is not tried, or nothing.
func (a Ended) refuses(m Meaning) Reason {
	e := m.Changed
	switch {
	case a.Effect.NeedsID() && (!m.NotStarted || a.Begun && m.sure < told):
		return PermanentFailure // the effect may have happened with the old payload
	case len(e.Payload) > MaxChanged:
		return PermanentFailure
	case slices.Contains(a.Tried, FingerprintOf(e.Payload)):
		return NoChange
	case len(a.Tried) > maxChanges:
		return AttemptsExhausted
	}
	return ""
}

// MaxNak is the longest delay for which a message keeps its place in the
// consumer; longer ones are parked.
const MaxNak = 2 * time.Second

// A Grant is what the budgets said to a retry.
type Grant struct {
	Now      time.Time
	Deadline time.Time
	Nak      bool      // this worker has room for one more nak of the kind
	Place    time.Time // when the user may retry; zero without a user
	Denied   bool      // the user has no place before the deadline
	NoTask   bool      // the task has no retry left
	Unasked  bool      // the user's budget is asked when the retry is due
}

// Under turns the wish to try again into what the budgets and the deadline
// allow: nak, park, defer or spent. A retry that could not start before the
// deadline is not planned.
func (v Verdict) Under(g Grant) Verdict {
	if v.Verb != Retry && v.Verb != Defer {
		return v
	}
	v.Due = g.Now.Add(v.Delay)
	v.Unasked = g.Unasked
	switch {
	case g.NoTask:
		return v.spent(TaskBudget)
	case g.Denied:
		return v.spent(UserBudget)
	case !v.Due.Before(g.Deadline):
		return v.spent(Expired)
	case v.Verb == Defer:
	case g.Place.After(v.Due):
		v.Verb, v.Reason, v.Due = Defer, UserBudget, g.Place
	case v.Delay <= MaxNak && g.Nak:
		v.Verb = Nak
	default:
		v.Verb = Park
	}
	return v
}
