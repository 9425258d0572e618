package mulligan

import "slices"

// A Reason says why a job was spent or deferred. The set is closed: it is the
// same in records, letters, events and metrics.
type Reason string

// Why a job is spent.
const (
	AttemptsExhausted Reason = "attempts_exhausted" // the policy's attempts are used
	TimeExhausted     Reason = "time_exhausted"     // the next attempt could not start within the policy's total time
	Expired           Reason = "expired"            // the next attempt could not start before the deadline
	TaskBudget        Reason = "task_budget"        // the task has no retry left
	UserBudget        Reason = "user_budget"        // the user's next place is past the deadline; also: deferred to that place
	PermanentFailure  Reason = "permanent"          // the handler said that no retry helps
	NoKey             Reason = "no_key"             // a side effect without an idempotency key is never retried
	NoChange          Reason = "no_change"          // the output itself was the failure, and nothing would change
	InDoubt           Reason = "in_doubt"           // nobody knows whether the effect happened
	KeyConflict       Reason = "key_conflict"       // the key belongs to another payload
	Malformed         Reason = "malformed"          // what was published is not a job
	Crashed           Reason = "crashed"            // its handler ended the process again and again
	Cancelled         Reason = "cancelled"          // a person discarded it; of a call: its context was cancelled
)

// Why a job is deferred, besides UserBudget.
const (
	Snoozed    Reason = "snoozed"     // the handler asked for it
	InProgress Reason = "in_progress" // another message of the key is running
	NotYet     Reason = "not_before"  // published to run later
	Credential Reason = "credential"  // the downstream refused the credential
	Held       Reason = "held"        // a call in its handler waited in vain for a budget
)

// SpentReasons lists every reason for which a job is spent.
func SpentReasons() []Reason {
	return []Reason{AttemptsExhausted, TimeExhausted, Expired, TaskBudget, UserBudget, PermanentFailure, NoKey,
		NoChange, InDoubt, KeyConflict, Malformed, Crashed, Cancelled}
}

// Valid reports whether r is a reason for which a job is spent.
func (r Reason) Valid() bool { return slices.Contains(SpentReasons(), r) }
