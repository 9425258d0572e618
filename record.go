package mulligan

import (
	"encoding/json"
	"fmt"
	"time"
)

// State is how far the job of a key has come, as its record says.
type State string

const (
	// Live: it is queued, running or waiting for a short retry.
	Live State = "live"
	// Parked: a scheduled message brings it back.
	Parked State = "parked"
	// Spent: it will not be tried again, and waits for a scheduler.
	Spent State = "spent"
	// Dead: it is in a dead letter.
	Dead State = "dead"
	// Done: it succeeded, and its result is recorded.
	Done State = "done"
)

// A Record is what the ledger knows of one key. It is the truth for attempts
// and history; how often a server delivered a message is not.
//
// A pure key has no record before its first failure, unless its kind keeps
// results. A key of a once kind has one before its handler runs.
type Record struct {
	State   State       `json:"state"`
	Effect  Effect      `json:"effect,omitempty"` // of the kind, as the worker that wrote the record knew it
	Payload Fingerprint `json:"payload"`          // of the payload as published
	// Attempts and Spent count since the job was published or last replayed:
	// handler calls and what calls by [Policy.Do] repeated in them, and what the
	// handlers took, but for waiting for budgets, plus the delays that the policy
	// chose.
	Attempts int           `json:"attempts"`
	Spent    time.Duration `json:"spent_ns"`
	// Deadline is the latest of the messages of this key: one with a shorter
	// deadline does not end the others.
	Deadline time.Time `json:"deadline,omitzero"`
	// Starts counts starts since the last recorded end: those of redelivered
	// messages, and of a once kind every one. Start is the last of them.
	Starts int    `json:"starts,omitempty"`
	Start  *Start `json:"began,omitempty"`
	// Steps are what is known of the parts of the job, in the order in which they
	// were begun. They outlive a replay.
	Steps []StepRecord `json:"steps,omitempty"`
	// FirstCall is when the first attempt began after which the effect may have
	// happened, over all replays; a person's word that it did not clears it.
	FirstCall time.Time `json:"first_call,omitzero"`
	// Replay names the last reopening, so that the next one of the same letter is
	// not taken for it.
	Replay string `json:"replay,omitempty"`
	// Letter: the key is done, and there may be a dead letter of it that a
	// scheduler is to take back.
	Letter bool `json:"letter,omitempty"`
	// Move is the last move decided; Reason why the key is spent or dead.
	Move   *Move  `json:"move,omitempty"`
	Reason Reason `json:"reason,omitempty"`
	// Changed is the payload to try next, if not the published one; Changes has
	// the fingerprints of all that were asked for.
	Changed []byte        `json:"changed,omitzero"`
	Changes []Fingerprint `json:"changes,omitempty"`
	// History has the newest attempts and deferrals, oldest first, over all
	// replays.
	History []Attempt `json:"history,omitempty"`
	Result  *Result   `json:"result,omitempty"`
}

// A Start is the beginning of a handler call.
type Start struct {
	Delivery string    `json:"delivery"` // identifies it: no two deliveries of a message have the same
	Address  string    `json:"address"`  // of the message
	At       time.Time `json:"at"`
	// Stepped: the call uses steps, so that what must not happen twice is in one.
	Stepped bool `json:"stepped,omitempty"`
}

// Retried reports whether what comes next is the retry of an attempt that failed,
// and not the first attempt, or one after the job was put off.
func (r *Record) Retried() bool {
	return r.Attempts > 0 && r.Move != nil && (r.Move.Verb == Nak || r.Move.Verb == Park || r.Move.Verb == Defer && r.Move.Reason == UserBudget)
}

// Throttled reports whether the downstream asked for fewer calls at the last
// attempt.
func (r *Record) Throttled() bool {
	last := r.Last()
	return last.Throttled
}

// Open returns the last start if its end is not recorded, else nil.
func (r *Record) Open() *Start {
	if r.Starts == 0 {
		return nil
	}
	return r.Start
}

// A Verb is what becomes of a message.
type Verb string

const (
	Ack   Verb = "ack"   // its work is done, or its key is
	Retry Verb = "retry" // try again after a delay; see [Verdict.Under]
	Nak   Verb = "nak"   // redeliver the same message after a delay
	Park  Verb = "park"  // store it as a schedule
	Defer Verb = "defer" // park, without having used an attempt
	Spend Verb = "spend" // hand it to a scheduler
)

// What a person did with a dead letter, in the history of its key.
const (
	Replay  Verb = "replay"  // published it again
	Resolve Verb = "resolve" // said whether its effect happened
)

// A Move is what was decided for one message.
type Move struct {
	Address string    `json:"address"` // stream:sequence of the message
	Verb    Verb      `json:"verb"`
	Reason  Reason    `json:"reason,omitempty"`
	Due     time.Time `json:"due,omitzero"`
	// Unasked: the user's budget is asked for this retry when it is due.
	Unasked   bool   `json:"unasked,omitempty"`
	ErrorType string `json:"error_type,omitempty"`
	Error     string `json:"error,omitempty"`
}

// An Attempt is one call of the handler, or one deferral, and what followed.
type Attempt struct {
	Number    int           `json:"number"` // of the call, or of the last one before a deferral
	Run       string        `json:"run"`    // identifies this entry: a write tried again must not count it twice
	At        time.Time     `json:"at"`
	Took      time.Duration `json:"took_ns"` // without waiting for budgets
	ErrorType string        `json:"error_type,omitempty"`
	Error     string        `json:"error,omitempty"`
	Verb      Verb          `json:"verb,omitempty"`
	Reason    Reason        `json:"reason,omitempty"`
	Delay     time.Duration `json:"delay_ns,omitempty"`
	// Tries is how many attempts it stands for, if more than one: with those
	// that calls by [Policy.Do] repeated in it. Number is that of the last.
	Tries int `json:"tries,omitempty"`
	// Times is how many deferrals in a row it stands for, if more than one; the
	// rest is of the last.
	Times int `json:"times,omitempty"`
	// NotStarted: the effect certainly did not happen.
	NotStarted bool `json:"not_started,omitempty"`
	// Throttled: the downstream asked for fewer calls.
	Throttled bool `json:"throttled,omitempty"`
	// Change is how the payload of the next attempt differs from this one's, as a
	// JSON merge patch (RFC 7386), where both are JSON and it is small enough.
	Change json.RawMessage `json:"change,omitempty"`
}

// A Result is what a handler returned. One over its kind's limit is not kept:
// its size and fingerprint are.
type Result struct {
	Data        []byte      `json:"data,omitempty"`
	Size        int         `json:"size"`
	Fingerprint Fingerprint `json:"fingerprint"`
	TooLarge    bool        `json:"too_large,omitempty"`
	At          time.Time   `json:"at"`
}

// What a record holds at most, in bytes and entries.
const (
	DefaultMaxResult = 64 << 10
	MaxChanged       = 256 << 10
	MaxChange        = 4 << 10 // of an attempt's Change
	maxHistory       = 32
	maxError         = 512
)

// NewResult makes the record's form of a result.
func NewResult(data []byte, at time.Time) *Result {
	return &Result{Data: data, Size: len(data), Fingerprint: FingerprintOf(data), At: at}
}

// Within returns r without its data if that is over a limit, in bytes.
func (r *Result) Within(limit int) *Result {
	if r.Size > max(limit, 0) {
		r.Data, r.TooLarge = nil, true
	}
	return r
}

// Ended reports whether the key is spent, dead or done: whether only a replay
// can run it again.
func (r *Record) Ended() bool { return r.State == Spent || r.State == Dead || r.State == Done }

// Note adds a to the history, which forgets its oldest entries. A deferral like
// the last one is counted with that: waiting long must not push out how the
// attempts failed.
func (r *Record) Note(a Attempt) {
	a.Error = clean(a.Error)
	if n := len(r.History); n > 0 && r.History[n-1].repeatedBy(a) {
		a.Times = max(r.History[n-1].Times, 1) + 1
		r.History[n-1] = a
		return
	}
	r.History = append(r.History, a)
	if extra := len(r.History) - maxHistory; extra > 0 {
		r.History = append([]Attempt(nil), r.History[extra:]...)
	}
}

func (a Attempt) repeatedBy(b Attempt) bool {
	if a.Reason == UserBudget {
		return false // it is a failed attempt, too
	}
	return a.Verb == Defer && b.Verb == Defer && a.Number == b.Number && a.Reason == b.Reason && a.ErrorType == b.ErrorType && a.Tries == b.Tries
}

// Noted returns the history's entry for a run, or nil: a compare-and-set whose
// answer was lost finds its own work here.
func (r *Record) Noted(run string) *Attempt {
	for i := range r.History {
		if r.History[i].Run == run {
			return &r.History[i]
		}
	}
	return nil
}

// Last returns the newest entry of the history, or the zero Attempt.
func (r *Record) Last() Attempt {
	if len(r.History) == 0 {
		return Attempt{}
	}
	return r.History[len(r.History)-1]
}

// Encode returns the stored form of r.
func (r *Record) Encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings, numbers and bytes only
	}
	return b
}

// DecodeRecord reads what Encode wrote.
func DecodeRecord(b []byte) (*Record, error) {
	r := new(Record)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	return r, nil
}
