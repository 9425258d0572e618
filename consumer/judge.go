package consumer

import (
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// verb is what becomes of a message.
type verb string

const (
	run      verb = "run"     // call the handler
	ack      verb = "ack"     // its work is done, or its key is
	retry    verb = "retry"   // try again after a delay; under says how
	nak      verb = "nak"     // the server redelivers it after the delay
	park     verb = "park"    // it is stored as a schedule
	deferred verb = "defer"   // parked, without having used an attempt
	wait     verb = "wait"    // parked until another message of its key has had its turn
	spend    verb = "spend"   // handed to the schedulers
	drop     verb = "drop"    // nothing: another delivery of it has taken over and answers for it
	settle   verb = "settle"  // its work is done, and a scheduler takes the letter of its key back
	suspect  verb = "suspect" // runs only while no other suspect does: it may be what ends the process
	askUser  verb = "ask"     // runs if the user's budget allows it now
)

// verdict is the decision about one message.
type verdict struct {
	verb    verb
	reason  mulligan.Reason
	delay   time.Duration // that the policy or the handler chose
	due     time.Time     // when it comes back
	unasked bool          // the user's budget is to be asked then
	// changed is the payload of the next attempt, if not the same again.
	changed []byte
	// errType and errText are of the failure behind the verdict.
	errType, errText string
}

// attempt is a handler call that has ended, as the rules see it.
type attempt struct {
	Number int             // 1 is the first
	Spent  time.Duration   // what all attempts took, plus the delays chosen so far
	Effect mulligan.Effect // of the kind
	NoKey  bool            // the effect needs a key, and the job came without
	// Stepped: all that must not happen twice is in steps. OpenStep is one whose
	// end is not known.
	Stepped  bool
	OpenStep string
	Tried    []mulligan.Fingerprint // payloads tried, the published one first
}

// chance is what the jitter is made of; each is in [0,1).
type chance struct{ u, v float64 }

// minSnooze keeps a job that always snoozes from going round and round.
const minSnooze = time.Second

// maxChanges is how often a job may ask for another payload.
const maxChanges = 2

// judge says what becomes of a job after attempt a ended with err. It is the
// whole rule of retrying, but for the budgets, the deadline and the choice
// between a nak and a park: see under.
func judge(p mulligan.Policy, a attempt, err error, c chance) verdict {
	if err == nil {
		return verdict{verb: ack}
	}
	v := verdict{errType: mulligan.ErrorType(err), errText: mulligan.ErrorText(err)}
	if a.doubts(err) {
		return v.spent(mulligan.InDoubt)
	}
	var (
		permanent *mulligan.PermanentError
		unusable  *mulligan.UnusableError
		changed   *mulligan.ChangedError
		snooze    *mulligan.SnoozeError
	)
	switch {
	case errors.As(err, &permanent):
		return v.spent(mulligan.PermanentFailure)
	case errors.As(err, &changed):
		if reason := a.refuses(changed, err); reason != "" {
			return v.spent(reason)
		}
		v.changed = append([]byte{}, changed.Payload...) // no payload is one, too
	case errors.As(err, &unusable):
		return v.spent(mulligan.NoChange)
	case errors.As(err, &snooze):
		v.verb, v.reason, v.delay = deferred, mulligan.Snoozed, max(snooze.Delay, minSnooze)
		return v
	}
	switch {
	case a.NoKey:
		return v.spent(mulligan.NoKey)
	case a.Number >= p.Attempts:
		return v.spent(mulligan.AttemptsExhausted)
	}
	v.verb, v.delay = retry, delay(p, a.Number, err, c)
	if v.delay >= p.Total-a.Spent {
		return v.spent(mulligan.TimeExhausted)
	}
	return v
}

// doubts reports whether nobody knows after err if the effect happened, where
// it must not happen twice. What the handler says of the whole, that it failed
// for good or is to run later, it knows; what a step left open it cannot know.
func (a attempt) doubts(err error) bool {
	switch {
	case errors.Is(err, mulligan.ErrInDoubt):
		return true
	case a.Effect != mulligan.Once || a.Stepped && a.OpenStep == "":
		return false
	case a.OpenStep != "":
		return true
	}
	var (
		permanent *mulligan.PermanentError
		unusable  *mulligan.UnusableError
		snooze    *mulligan.SnoozeError
	)
	return !notStarted(err) && !errors.As(err, &permanent) && !errors.As(err, &unusable) && !errors.As(err, &snooze)
}

// interruption reports whether err may be owed to the end of the handler's
// context: it is nothing that a handler says on purpose.
func interruption(err error) bool {
	var (
		permanent *mulligan.PermanentError
		unusable  *mulligan.UnusableError
		changed   *mulligan.ChangedError
		throttled *mulligan.ThrottledError
		snooze    *mulligan.SnoozeError
	)
	return !errors.Is(err, mulligan.ErrInDoubt) && !errors.As(err, &permanent) && !errors.As(err, &unusable) && !errors.As(err, &changed) && !errors.As(err, &throttled) && !errors.As(err, &snooze)
}

// notStarted reports whether the effect certainly did not happen.
func notStarted(err error) bool {
	var said *mulligan.NotStartedError
	return errors.As(err, &said) || errors.Is(err, syscall.ECONNREFUSED)
}

func (v verdict) spent(why mulligan.Reason) verdict {
	v.verb, v.reason, v.delay, v.changed = spend, why, 0, nil
	return v
}

func delay(p mulligan.Policy, n int, err error, c chance) time.Duration {
	var throttled *mulligan.ThrottledError
	if errors.As(err, &throttled) {
		return p.ThrottledDelay(n, throttled.Delay, c.u, c.v)
	}
	return p.Delay(n, c.u)
}

// refuses says why a changed payload is not tried, or nothing.
func (a attempt) refuses(e *mulligan.ChangedError, err error) mulligan.Reason {
	switch {
	case a.Effect != mulligan.Pure && !notStarted(err):
		return mulligan.PermanentFailure // the effect may have happened with the old payload
	case len(e.Payload) > mulligan.MaxChanged:
		return mulligan.PermanentFailure
	case slices.Contains(a.Tried, mulligan.FingerprintOf(e.Payload)):
		return mulligan.NoChange
	case len(a.Tried) > maxChanges:
		return mulligan.AttemptsExhausted
	}
	return ""
}

// maxNak is the longest delay for which a message keeps its place in the
// consumer; longer ones are parked.
const maxNak = 2 * time.Second

// grant is what the budgets said to a retry.
type grant struct {
	now      time.Time
	deadline time.Time
	nak      bool      // this worker has room for one more nak of the kind
	place    time.Time // when the user may retry; zero without a user
	denied   bool      // the user has no place before the deadline
	noTask   bool      // the task has no retry left
	unasked  bool      // the user's budget is asked when the retry is due
}

// under turns the wish to try again into what the budgets and the deadline
// allow: nak, park, defer or spent. A retry that could not start before the
// deadline is not planned.
func (v verdict) under(g grant) verdict {
	if v.verb != retry && v.verb != deferred {
		return v
	}
	v.due = g.now.Add(v.delay)
	v.unasked = g.unasked
	switch {
	case g.noTask:
		return v.spent(mulligan.TaskBudget)
	case g.denied:
		return v.spent(mulligan.UserBudget)
	case !v.due.Before(g.deadline):
		return v.spent(mulligan.Expired)
	case v.verb == deferred:
	case g.place.After(v.due):
		v.verb, v.reason, v.due = deferred, mulligan.UserBudget, g.place
	case v.delay <= maxNak && g.nak:
		v.verb = nak
	default:
		v.verb = park
	}
	return v
}
