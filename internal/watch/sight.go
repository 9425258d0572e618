package watch

// Why jobs wait in vain; the set is closed, the same in metrics and states.
const (
	stuckMissing     = "missing"     // there is no consumer
	stuckFault       = "config"      // the consumer is not as it should be
	stuckPassed      = "passed_over" // jobs lie where the consumer looks no more
	stuckPaused      = "paused"      // an operator paused the consumer
	stuckRefused     = "refused"     // every request fails
	stuckUndelivered = "undelivered" // the server is asked and gives nothing
	stuckNoAnswer    = "no_answer"   // the server says nothing
	stuckHandlers    = "handlers"    // every slot has a handler that does not end
	stuckNotAsking   = "not_asking"  // the process does not ask, and has no reason
)

// Own is what a process knows itself, since the look before.
type Own struct {
	Overdue bool // every slot has a handler whose time is up
	Held    bool // the downstream is held, or retries have no token
	Busy    bool // jobs are in hand
}

// sight is what one look finds. What belongs to the consumer is zero if it was
// not asked about.
type sight struct {
	// In this process, since the look before.
	Own
	asked   int   // pulls that were under way
	came    int   // messages that they brought
	refused error // how the last one failed

	asleep  bool  // the consumer was not asked about
	missing error // that there is none
	silent  error // that there was no answer
	fault   string
	passed  string // the subject of a message
	paused  bool
	waiting uint64 // jobs to be delivered
	unacked int
	moved   bool // it has delivered since the look before, to whomever
}

// why judges a sight: why jobs wait in vain, or nothing. A downstream that is
// held, retries without tokens and slots at work are no fault, and neither is a
// consumer that gives its jobs to others.
func (s sight) why() string {
	switch {
	case s.Overdue:
		return stuckHandlers
	case s.Held || s.asleep:
		return ""
	case s.missing != nil:
		return stuckMissing
	case s.silent != nil && s.came == 0:
		return stuckNoAnswer
	case s.fault != "":
		return stuckFault
	case s.passed != "":
		return stuckPassed
	case s.paused && (s.waiting > 0 || s.unacked > 0):
		return stuckPaused
	case s.came > 0 || s.moved || s.waiting == 0:
		return ""
	case s.refused != nil:
		return stuckRefused
	case s.asked > 0:
		return stuckUndelivered
	case s.Busy:
		return ""
	}
	return stuckNotAsking
}

// quiet reports whether jobs may be waiting though this process could run some.
func (s sight) quiet() bool { return s.came == 0 && (s.asked > 0 || !s.Busy) && !s.Held }
