package consumer

import (
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

// shortWait is for a message whose key is in other hands just now.
const shortWait = time.Second
