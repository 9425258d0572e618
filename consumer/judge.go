package consumer

import (
	"errors"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// verdict is the decision about one message. Of an attempt that has ended it is
// made by [mulligan.Policy.Judge] and [mulligan.Verdict.Under].
type verdict = mulligan.Verdict

// What becomes of a message.
const (
	run      mulligan.Verb = "run" // call the handler
	ack                    = mulligan.Ack
	retry                  = mulligan.Retry // Under says how
	nak                    = mulligan.Nak
	park                   = mulligan.Park
	deferred               = mulligan.Defer
	spend                  = mulligan.Spend
	wait     mulligan.Verb = "wait"    // parked until another message of its key has had its turn
	drop     mulligan.Verb = "drop"    // nothing: another delivery of it has taken over and answers for it
	settle   mulligan.Verb = "settle"  // its work is done, and a scheduler takes the letter of its key back
	suspect  mulligan.Verb = "suspect" // runs only while no other suspect does: it may be what ends the process
	askUser  mulligan.Verb = "ask"     // runs if the user's budget allows it now
)

// interruption reports whether err may be owed to the end of the handler's
// context: it is nothing that a handler says on purpose.
func interruption(err error) bool {
	var (
		permanent *mulligan.PermanentError
		unusable  *mulligan.UnusableError
		changed   *mulligan.ChangedError
		throttled *mulligan.ThrottledError
		snooze    *mulligan.SnoozeError
		refused   *mulligan.CredentialError
		called    *mulligan.CallError
	)
	if errors.As(err, &called) && called.Attempts > 0 {
		return false // attempts that had ended by themselves are the job's
	}
	return !errors.Is(err, mulligan.ErrInDoubt) && !errors.As(err, &permanent) && !errors.As(err, &unusable) && !errors.As(err, &changed) &&
		!errors.As(err, &throttled) && !errors.As(err, &snooze) && !errors.As(err, &refused)
}

// shortWait is for a message whose key is in other hands just now.
const shortWait = time.Second
