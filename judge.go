package mulligan

import (
	"errors"
	"slices"
	"syscall"
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

// credentialDelay is how long a job waits, before jitter, after the downstream
// refused the credential. Until then others probe it.
const credentialDelay = 30 * time.Second

// minSnooze keeps a job that always snoozes from going round and round.
const minSnooze = time.Second

// maxChanges is how often a job may ask for another payload.
const maxChanges = 2

// Judge says what becomes of a job after attempt a ended with err. It is the
// whole rule of retrying, but for the budgets, the deadline and the choice
// between a nak and a park: see [Verdict.Under]. p must be normal; see
// [Policy.Normal].
func (p Policy) Judge(a Ended, err error, c Chance) Verdict {
	if err == nil {
		return Verdict{Verb: Ack}
	}
	v := Verdict{ErrorType: ErrorType(err), Error: ErrorText(err)}
	if a.doubts(err) {
		return v.spent(InDoubt)
	}
	var (
		permanent *PermanentError
		unusable  *UnusableError
		changed   *ChangedError
		snooze    *SnoozeError
		refused   *CredentialError
	)
	switch {
	case errors.As(err, &permanent):
		return v.spent(PermanentFailure)
	case errors.As(err, &refused):
		v.Verb, v.Reason, v.Delay = Defer, Credential, scale(credentialDelay, 0.5+c.U)
		return v
	case errors.As(err, &changed):
		if reason := a.refuses(changed, err); reason != "" {
			return v.spent(reason)
		}
		v.Changed = append([]byte{}, changed.Payload...) // no payload is one, too
	case errors.As(err, &unusable):
		return v.spent(NoChange)
	case errors.As(err, &snooze):
		v.Verb, v.Reason, v.Delay = Defer, Snoozed, max(snooze.Delay, minSnooze)
		return v
	}
	if call := endedBy(err); call != nil && v.Changed == nil {
		return v.spent(call.Reason)
	}
	switch {
	case a.NoKey:
		return v.spent(NoKey)
	case a.Number >= p.Attempts:
		return v.spent(AttemptsExhausted)
	}
	v.Verb, v.Delay = Retry, p.delay(a.Number, err, c)
	if v.Delay >= p.Total-a.Spent {
		return v.spent(TimeExhausted)
	}
	return v
}

// doubts reports whether nobody knows after err if the effect happened, where
// it must not happen twice. What the handler says of the whole, that it failed
// for good or is to run later, it knows; what a step left open it cannot know.
func (a Ended) doubts(err error) bool {
	switch {
	case errors.Is(err, ErrInDoubt):
		return true
	case a.Effect != Once || a.Stepped && a.OpenStep == "":
		return false
	case a.OpenStep != "":
		return true
	}
	var (
		permanent *PermanentError
		unusable  *UnusableError
		snooze    *SnoozeError
	)
	return !DidNotStart(err) && !errors.As(err, &permanent) && !errors.As(err, &unusable) && !errors.As(err, &snooze)
}

// DidNotStart reports whether err says that the effect certainly did not happen:
// by [NotStarted], or because the connection or the credential was refused. A
// call by [Policy.Do] says so of all its attempts.
func DidNotStart(err error) bool {
	var (
		said      *NotStartedError
		refused   *CredentialError
		call, its *CallError
	)
	if errors.As(err, &call) {
		// What is said of the call as a whole counts, not what its last attempt said.
		if errors.As(err, &said) && errors.As(said.Err, &its) && its == call {
			return true
		}
		return call.NotStarted
	}
	return errors.As(err, &said) || errors.As(err, &refused) || errors.Is(err, syscall.ECONNREFUSED)
}

func (v Verdict) spent(why Reason) Verdict {
	v.Verb, v.Reason, v.Delay, v.Changed = Spend, why, 0, nil
	return v
}

func (p Policy) delay(n int, err error, c Chance) time.Duration {
	if hint, throttled := hintOf(err); throttled {
		return p.ThrottledDelay(n, hint, c.U, c.V)
	}
	return p.Delay(n, c.U)
}

// refuses says why a changed payload is not tried, or nothing.
func (a Ended) refuses(e *ChangedError, err error) Reason {
	switch {
	case a.Effect.NeedsID() && !DidNotStart(err):
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
