package consumer

import (
	"strconv"
	"strings"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
)

// maxStarts is how many starts without an end a key may have before it is spent
// as crashed: so many processes have ended in its handler.
const maxStarts = 3

// facts are what admit needs to know of a message besides the record.
type facts struct {
	address   address
	payload   mulligan.Fingerprint
	now       time.Time
	deadline  time.Time
	notBefore time.Time
	due       time.Time // when it was to come back, if it was parked
	start     string    // identifies this delivery
	effect    mulligan.Effect
	keyTTL    time.Duration // for how long the downstream of a keyed kind remembers a key
	place     budget.Place  // the user's, once it was asked for
	policy    *mulligan.Policy
	again     bool // delivered before
	noKey     bool // its publisher gave no ID, and the effect needs one
	alone     bool // no other suspect runs in this worker
	hasUser   bool
	fromJobs  bool // lies in the stream of jobs, so it is not a retry that is due
	deferred  bool // has come back from a deferral, and was pulled without a token
}

// address is where a message lies.
type address struct {
	stream   string
	sequence uint64
}

// token is the address as one token of a subject.
func (a address) token() string { return a.stream + "-" + strconv.FormatUint(a.sequence, 10) }

// String is the address as records have it.
func (a address) String() string { return mulligan.Address(a.stream, a.sequence) }

// marks reports whether every start of the message must be in the record before
// its handler runs, because it must not be run again for a start without an end.
func (f facts) marks() bool { return f.effect == mulligan.Once || f.noKey }

// starts is how many starts without an end there are. A first delivery that needs
// no mark is not in the record: it counts for a message that is delivered again,
// unless a nak says how it ended.
func (f facts) starts(r *mulligan.Record) int {
	if f.again && !f.marks() && !f.mine(r) {
		return r.Starts + 1
	}
	return r.Starts
}

// mine reports whether the last move decided was of this message.
func (f facts) mine(r *mulligan.Record) bool {
	return r.Move != nil && r.Move.Address == f.address.String()
}

// paid reports whether a token was taken for the retry of the message, when it
// was nak'd.
func (f facts) paid(r *mulligan.Record) bool { return f.mine(r) && r.Move.Verb == mulligan.Nak }

// admit decides about a message before it runs, given the record of its key
// (without a state if there is none), and notes in the record what must be
// known if this process ends. It reports whether the record must be stored.
func admit(r *mulligan.Record, f facts) (v verdict, store bool) {
	f.deadline = later(f.deadline, r.Deadline)
	if v := follow(r, f); v.Verb != run {
		return v, false
	}
	if f.marks() && r.Open() != nil && r.Start.Delivery != f.start && !f.resumes(r) {
		return afterStart(r, f)
	}
	if own := r.Open(); own != nil && own.Delivery == f.start && !f.now.Before(f.deadline) {
		f.takeBack(r) // noted for a call that does not come
	}
	if v := over(r, f); v.Verb != run {
		return decide(r, f, v), true
	}
	switch {
	case r.Move != nil && r.Move.Due.After(f.now) && !f.mine(r) && f.due.Before(r.Move.Due):
		// The key's retry waits, and this is another message of it: published
		// again, or left behind by a crash. One that was parked until then or later
		// is exempt: it is due by the server's clock. By then the retry is recorded,
		// though it takes as long as it may.
		return verdict{Verb: wait, Reason: mulligan.InProgress, Due: r.Move.Due.Add(f.policy.Timeout + shortWait)}, false
	case f.deferred && r.Retried() && !f.paid(r):
		// Another message of its key has failed since it was deferred. It waits where
		// nothing is pulled without a token.
		return verdict{Verb: wait, Reason: mulligan.InProgress, Due: f.now}, false
	case (f.fromJobs || r.State == "") && f.now.Before(f.notBefore): // without a record: adopted
		return decide(r, f, verdict{Verb: deferred, Reason: mulligan.NotYet, Due: f.notBefore}), true
	case r.Open() != nil && r.Start.Delivery == f.start:
		return verdict{Verb: run}, false // noted before; the answer was lost
	case f.starts(r) >= maxStarts:
		return decide(r, f, verdict{Verb: spend, Reason: mulligan.Crashed, ErrorType: "crashed", Error: "its handler ended the process again and again"}), true
	case f.again && r.Starts > 0 && !f.alone:
		return verdict{Verb: suspect}, false
	}
	if v, store := underPlace(r, f); v.Verb != run {
		return v, store
	}
	if !f.again && !f.marks() {
		return verdict{Verb: run}, false
	}
	start(r, f)
	return verdict{Verb: run}, true
}

// follow is the verdict on a message whose key has ended, or whose move was
// decided before.
func follow(r *mulligan.Record, f facts) verdict {
	mine := f.mine(r)
	switch {
	case r.State == mulligan.Done && r.Payload == f.payload && r.Letter:
		return verdict{Verb: settle, Reason: mulligan.InDoubt}
	case r.State == mulligan.Done && r.Payload == f.payload:
		return verdict{Verb: ack}
	case r.State != "" && r.Payload != f.payload:
		return verdict{Verb: spend, Reason: mulligan.KeyConflict, Error: "the key belongs to another payload"}
	case mine && r.State == mulligan.Parked:
		// The move was decided and interrupted.
		return verdict{Verb: park, Due: r.Move.Due, Reason: r.Move.Reason, ErrorType: r.Move.ErrorType, Error: r.Move.Error}
	case mine && r.Move.Verb == mulligan.Nak && r.Move.Due.After(f.now):
		// Redelivered before its time, since who had it has ended, or by whose clock it
		// is due.
		return verdict{Verb: nak, Due: f.now.Add(min(r.Move.Due.Sub(f.now), mulligan.MaxNak))}
	case r.State == mulligan.Spent || r.State == mulligan.Dead:
		// Interrupted, or a message that outlived the end of its key.
		return ended(r)
	}
	return verdict{Verb: run}
}

// over is the verdict on a message whose time or attempts are over.
func over(r *mulligan.Record, f facts) verdict {
	switch {
	case f.forgotten(r):
		return verdict{Verb: spend, Reason: mulligan.InDoubt, ErrorType: "key_ttl",
			Error: "its key went to the downstream first at " + r.FirstCall.UTC().Format(time.RFC3339) + ", which may have forgotten it"}
	case !f.now.Before(f.deadline), !f.notBefore.Before(f.deadline):
		return verdict{Verb: spend, Reason: mulligan.Expired}
	case r.Attempts >= f.policy.Attempts:
		return verdict{Verb: spend, Reason: mulligan.AttemptsExhausted}
	case r.Spent >= f.policy.Total:
		return verdict{Verb: spend, Reason: mulligan.TimeExhausted}
	}
	return verdict{Verb: run}
}

// start notes that the message begins to run.
func start(r *mulligan.Record, f facts) {
	begin(r, f)
	if f.marks() {
		r.State = mulligan.Live // whatever was decided for the message before, by now it runs
	}
	if r.Move != nil {
		r.Move.Unasked = false // it was asked, or it needs no asking
	}
	r.Deadline = later(r.Deadline, f.deadline)
	r.Starts, r.Start = r.Starts+1, &mulligan.Start{Delivery: f.start, Address: f.address.String(), At: f.now}
}

// takeBack takes the message's own start back.
func (f facts) takeBack(r *mulligan.Record) {
	r.Starts--
	if f.marks() {
		r.Starts = 0 // any recorded end clears them
	}
}

// forgotten reports whether the downstream of a keyed job may have forgotten its
// key. A start without an end counts as a call.
func (f facts) forgotten(r *mulligan.Record) bool {
	if start := r.Open(); start != nil && r.FirstCall.IsZero() {
		r.FirstCall = start.At
	}
	return f.effect == mulligan.Keyed && !r.FirstCall.IsZero() && f.now.Sub(r.FirstCall) > f.keyTTL
}

// resumes reports whether the message may run again after its own start without
// an end: whatever must not happen twice was in steps, and none of these is
// without its end.
func (f facts) resumes(r *mulligan.Record) bool {
	return !f.noKey && r.Start.Stepped && r.OpenStep() == nil && r.Start.Address == f.address.String()
}

// afterStart is the verdict on a message that must not run because there is a
// start of its key whose end is not known. If it is its own, nobody knows
// whether the effect happened. Another's is waited for, but not for ever.
func afterStart(r *mulligan.Record, f facts) (v verdict, store bool) {
	v = verdict{Verb: spend, Reason: mulligan.InDoubt, ErrorType: "no_end", Error: "the attempt that began at " + r.Start.At.UTC().Format(time.RFC3339Nano) + " ended without a word"}
	if steps := r.OpenSteps(); len(steps) > 0 {
		v.Error += ", within its step " + strings.Join(steps, " and its step ")
	}
	if f.noKey || r.Start.Address == f.address.String() {
		if r.FirstCall.IsZero() {
			r.FirstCall = r.Start.At
		}
	}
	switch {
	case r.Start.Address == f.address.String() && f.now.Sub(r.Start.At) < mulligan.AckWait/2:
		// Delivered again though AckWait is not over, as by a server that has just begun
		// to lead: who started it is at it. Left alone, the message comes again if not.
		return verdict{Verb: drop}, false
	case f.noKey:
		v.Reason = mulligan.NoKey
	case r.Start.Address != f.address.String() && f.now.Before(f.deadline):
		due := f.now.Add(max(f.policy.Timeout, shortWait))
		if due.After(f.deadline) {
			due = f.deadline
		}
		return verdict{Verb: wait, Reason: mulligan.InProgress, Due: due}, false
	}
	r.Attempts++
	r.Note(mulligan.Attempt{Number: r.Attempts, Run: unended(r.Start.Delivery), At: r.Start.At, ErrorType: v.ErrorType, Error: v.Error, Verb: mulligan.Spend, Reason: v.Reason})
	return decide(r, f, v), true
}

// unended is the run under which an attempt is noted whose end is not known. It
// is taken back should its end be recorded after all.
func unended(delivery string) string { return "start:" + delivery }

// underPlace is what the user's budget makes of a retry that is due, if it was
// not asked when the retry was planned.
func underPlace(r *mulligan.Record, f facts) (v verdict, store bool) {
	switch {
	case !f.hasUser || r.Move == nil || !r.Move.Unasked:
	case f.place.Denied:
		return decide(r, f, verdict{Verb: spend, Reason: mulligan.UserBudget}), true
	case f.place.At.IsZero():
		return verdict{Verb: askUser}, false
	case f.place.At.After(f.now):
		v := verdict{Verb: deferred, Reason: mulligan.UserBudget, Due: f.place.At}
		r.Note(mulligan.Attempt{Number: r.Attempts, Run: f.start, At: f.now, Verb: mulligan.Defer, Reason: v.Reason, Delay: v.Due.Sub(f.now)})
		return decide(r, f, v), true
	}
	return verdict{Verb: run}, false
}

// ended is the verdict on a message whose key is spent or dead.
func ended(r *mulligan.Record) verdict {
	v := verdict{Verb: spend, Reason: r.Reason}
	if r.Move != nil {
		v.ErrorType, v.Error = r.Move.ErrorType, r.Move.Error
	}
	return v
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func begin(r *mulligan.Record, f facts) {
	r.Effect = f.effect
	if r.State == "" {
		r.State, r.Payload = mulligan.Live, f.payload
	}
}

// decide notes in the record what becomes of the message, so that whoever finds
// it again finishes the same move.
func decide(r *mulligan.Record, f facts, v verdict) verdict {
	begin(r, f)
	r.Deadline = later(r.Deadline, f.deadline)
	r.Move = &mulligan.Move{Address: f.address.String(), Verb: v.Verb, Reason: v.Reason, Due: v.Due, Unasked: v.Unasked, ErrorType: v.ErrorType, Error: v.Error}
	switch v.Verb {
	case spend:
		if v.Error == "" { // the last failure explains it best
			last := r.Last()
			r.Move.ErrorType, r.Move.Error = last.ErrorType, last.Error
			v.ErrorType, v.Error = last.ErrorType, last.Error
		}
		r.State, r.Reason, r.Changed = mulligan.Spent, v.Reason, nil
	case park, deferred:
		r.State = mulligan.Parked
	default:
		r.State = mulligan.Live
	}
	return v
}
