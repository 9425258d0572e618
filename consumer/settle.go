package consumer

import (
	"time"

	"github.com/mulligan-queue/mulligan"
)

// ending is a handler call that has ended.
type ending struct {
	facts
	run     string // identifies the call
	started time.Time
	took    time.Duration
	err     error
	effect  mulligan.Effect
	chance  chance
}

// asker asks the budgets for a retry that the rules would make.
type asker func(v verdict) (grant, error)

// fail notes a failed attempt in the record of its key and decides what becomes
// of the message. Only for a retry does it ask the budgets. When the record has
// the attempt already, since the answer to an earlier write was lost, the
// verdict is the one noted then.
func fail(r *mulligan.Record, e ending, ask asker) (v verdict, store bool, err error) {
	if noted := r.Noted(e.run); noted != nil {
		return remembered(r, noted), false, nil
	}
	switch {
	case r.State == mulligan.Done && r.Payload == e.payload:
		return verdict{verb: ack}, false, nil
	case r.State != "" && r.Payload != e.payload:
		return verdict{verb: spend, reason: mulligan.KeyConflict, errText: "the key belongs to another payload"}, false, nil
	}
	begin(r, e.facts)
	r.Starts = 0
	number := r.Attempts + 1
	v = judge(e.policy, attempt{Number: number, Spent: r.Spent + e.took, Effect: e.effect, Tried: tried(r)}, e.err, e.chance)
	if v.verb != deferred { // a snooze is not an attempt
		r.Attempts, r.Spent = number, r.Spent+e.took
	}
	if r.State == mulligan.Spent || r.State == mulligan.Dead {
		// Ended meanwhile: a late failure adds its facts and follows the record.
		r.Note(e.entry(r, v))
		return ended(r), true, nil
	}
	g, err := ask(v)
	if err != nil {
		return v, false, err
	}
	v = v.under(g)
	r.Note(e.entry(r, v))
	if v.verb != spend && v.reason != mulligan.Snoozed {
		r.Spent += v.delay
	}
	if v.changed != nil {
		r.Changed = v.changed
		r.Changes = append(r.Changes, mulligan.FingerprintOf(v.changed))
	}
	return decide(r, e.facts, v), true, nil
}

// succeed notes a success: the first to record it wins, and it overrides every
// other end.
func succeed(r *mulligan.Record, e ending, result []byte) (store bool) {
	if r.State == mulligan.Done || r.State != "" && r.Payload != e.payload {
		return false
	}
	begin(r, e.facts)
	r.Attempts++
	r.Spent += e.took
	r.Note(e.entry(r, verdict{verb: ack}))
	r.State, r.Reason, r.Starts, r.Move, r.Changed = mulligan.Done, "", 0, nil, nil
	r.Result = mulligan.NewResult(result, e.started.Add(e.took))
	return true
}

// entry is what the history says of this call.
func (e ending) entry(r *mulligan.Record, v verdict) mulligan.Attempt {
	a := mulligan.Attempt{Number: r.Attempts, Run: e.run, At: e.started, Took: e.took, Reason: v.reason, Delay: v.delay}
	if v.verb != ack {
		a.Verb, a.ErrorType, a.Error = mulligan.Verb(v.verb), v.errType, v.errText
	}
	if v.verb == deferred {
		a.Delay = v.due.Sub(e.now)
	}
	return a
}

// remembered is the verdict that was noted with an attempt.
func remembered(r *mulligan.Record, a *mulligan.Attempt) verdict {
	if r.State == mulligan.Done {
		return verdict{verb: ack}
	}
	if r.State == mulligan.Spent || r.State == mulligan.Dead {
		return ended(r)
	}
	v := verdict{verb: verb(a.Verb), reason: a.Reason, delay: a.Delay, errType: a.ErrorType, errText: a.Error}
	if r.Move != nil {
		v.due = r.Move.Due
	}
	return v
}

func tried(r *mulligan.Record) []mulligan.Fingerprint {
	return append([]mulligan.Fingerprint{r.Payload}, r.Changes...)
}
