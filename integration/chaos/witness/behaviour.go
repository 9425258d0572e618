package witness

import (
	"math/rand/v2"
	"strings"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// An Answer is what the downstream does with one call.
type Answer struct {
	Class string `json:"class"`
	// Status is zero where no answer is given: the connection is dropped, or
	// nothing comes until the caller goes away.
	Status  int           `json:"status,omitempty"`
	Drop    bool          `json:"drop,omitempty"`
	Wait    time.Duration `json:"wait_ns,omitempty"` // before the answer
	Hint    time.Duration `json:"hint_ns,omitempty"` // its Retry-After
	Outcome string        `json:"outcome,omitempty"` // its Mulligan-Outcome
	// Effect: the call is accepted, and what it asks for happens.
	Effect bool `json:"effect,omitempty"`
}

// notStarted is the word by which the downstream vouches that nothing happened.
const notStarted = "not-started"

// class is a way to behave, and how many of a thousand keys meet it.
type class struct {
	name  string
	share int
}

// classes are what is not plainly good. Retries that fail must stay below what
// the budgets grant, or the run would be about nothing else.
func classes() []class {
	return []class{{flaky, 60}, {refused, 25}, {throttled, 18}, {busy, 12}, {slow, 40}, {hangs, 10}, {hangsAlways, 3},
		{drops, 30}, {failsAfter, 20}, {idle, 20}, {broken, 8}}
}

const (
	good        = "ok"
	flaky       = "flaky" // fails once or a few times
	refused     = "refused"
	throttled   = "throttled"
	busy        = "busy"
	slow        = "slow"
	hangs       = "hangs" // at the first call, beyond the caller's patience
	hangsAlways = "hangs always"
	drops       = "drops"                  // has the effect, then the connection breaks
	failsAfter  = "fails after the effect" // the same with an answer
	idle        = "not started"            // says that nothing happened
	broken      = "broken"                 // for ever
	knownKey    = "known key"
	outage      = "outage" // of the whole, for a time
	deadly      = "deadly" // its worker is killed by it, see Killed
)

// deadlyJob is the ID of a job whose calls kill their worker: every fourth seed has
// one.
const deadlyJob = "deadly"

// behave is what the downstream does with call n of a key, 1 being the first: the
// seed alone decides. A calm one gives a third as much trouble.
func behave(seed uint64, calm bool, key string, n int) Answer {
	if strings.HasSuffix(key, "/"+deadlyJob) {
		return Answer{Class: deadly}
	}
	r := rand.New(chance(seed, "behaviour of "+key, 0))
	name, die := good, r.IntN(1000)
	if calm {
		die *= 3
	}
	for _, c := range classes() {
		if die >= 0 && die < c.share {
			name = c.name
		}
		die -= c.share
	}
	times := 1 + r.IntN(2)*r.IntN(3) // how often it fails: mostly once
	hint, vouch, kept := time.Duration(1+r.IntN(4))*time.Second, "", r.IntN(2) == 0
	if r.IntN(2) == 0 {
		vouch = notStarted
	}
	switch troubled := n <= times; {
	case name == flaky && troubled:
		return Answer{Class: flaky, Status: 500, Outcome: vouch}
	case name == refused:
		return Answer{Class: refused, Status: 400}
	case name == throttled && troubled:
		return Answer{Class: throttled, Status: 429, Hint: hint, Outcome: vouch}
	case name == busy && troubled:
		return Answer{Class: busy, Status: 503, Hint: hint, Outcome: vouch}
	case name == slow:
		return Answer{Class: slow, Status: 200, Effect: true, Wait: 200*time.Millisecond + time.Duration(r.IntN(1200))*time.Millisecond}
	case name == hangs && n == 1:
		return Answer{Class: hangs, Effect: kept}
	case name == hangsAlways:
		return Answer{Class: hangsAlways}
	case name == drops && n == 1:
		return Answer{Class: drops, Drop: true, Effect: true}
	case name == failsAfter && n == 1:
		return Answer{Class: failsAfter, Status: 500, Effect: true}
	case name == idle && troubled:
		return Answer{Class: idle, Status: 503, Outcome: notStarted}
	case name == broken:
		return Answer{Class: broken, Status: 500, Outcome: notStarted}
	}
	return Answer{Class: good, Status: 200, Effect: true, Wait: time.Duration(r.IntN(40)) * time.Millisecond}
}

// honours is what a provider does that honours idempotency keys, once what the
// key asks for has happened: the first answer again, and no second effect.
func honours(e mulligan.Effect, a Answer, happened bool) Answer {
	if e == mulligan.Keyed && happened {
		return Answer{Class: knownKey, Status: 200}
	}
	return a
}
