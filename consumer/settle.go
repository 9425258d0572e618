package consumer

import (
	"slices"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// ending is a handler call that has ended.
type ending struct {
	facts
	run     string // identifies the call
	input   []byte // the payload that it was given
	limit   int    // of the results that are kept, in bytes
	stepped bool   // it used steps
	started time.Time
	took    time.Duration
	err     error
	chance  mulligan.Chance
	called  // within it
}

// notStarted reports that the effect certainly did not happen.
func (e ending) notStarted() bool { return !e.begun && mulligan.MeaningOf(e.err).NotStarted }

// asker asks the budgets for a retry that the rules would make.
type asker func(v verdict) (mulligan.Grant, error)

// fail notes a failed attempt in the record of its key and decides what becomes
// of the message. Only for a retry does it ask the budgets. When the record has
// the attempt already, since the answer to an earlier write was lost, the
// verdict is the one noted then.
func fail(r *mulligan.Record, e ending, ask asker) (v verdict, store bool, err error) {
	if noted := r.Noted(e.run); noted != nil {
		if e.behind(r) {
			return e.standBack(r), false, nil
		}
		return remembered(r, noted), false, nil
	}
	switch {
	case r.State == mulligan.Done && r.Payload == e.payload:
		return verdict{Verb: ack}, false, nil
	case r.State != "" && r.Payload != e.payload:
		return verdict{Verb: spend, Reason: mulligan.KeyConflict, Error: "the key belongs to another payload"}, false, nil
	}
	begin(r, e.facts)
	number := e.ends(r)
	v = e.policy.Judge(e.attempt(r, number), e.err, e.chance)
	planned, tries := v.Verb == retry, e.tries()
	if r.FirstCall.IsZero() && e.effect != mulligan.Pure && !e.notStarted() && (v.Reason != mulligan.Snoozed || tries > 1) {
		r.FirstCall = e.started
	}
	if v.Verb == deferred { // a snooze is not an attempt; those before it in the same call are
		number, tries = number-1, tries-1
	}
	if tries > 0 {
		r.Attempts, r.Spent = max(r.Attempts, number), r.Spent+e.took
	}
	switch {
	case r.State == mulligan.Spent || r.State == mulligan.Dead:
		// Ended meanwhile: a late failure adds its facts and follows the record. It is
		// not what the key was spent for.
		v.Verb, v.Reason, v.Delay = spend, "", 0
		r.Note(e.entry(r, v))
		return ended(r), true, nil
	case e.behind(r):
		r.Note(e.entry(r, v))
		return e.standBack(r), true, nil
	}
	g, err := ask(v)
	if err != nil {
		return v, false, err
	}
	v = v.Under(g)
	r.Note(e.entry(r, v))
	if planned {
		r.Spent += v.Delay // none if it was refused
	}
	if v.Changed != nil {
		r.Changed = v.Changed
		r.Changes = append(r.Changes, mulligan.FingerprintOf(v.Changed))
	}
	return decide(r, e.facts, v), true, nil
}

// behind reports whether another call of the key has started, where only one may
// be under way.
func (e ending) behind(r *mulligan.Record) bool {
	return e.marks() && r.Open() != nil && r.Start.Delivery != e.start
}

// standBack is the verdict on a message whose call is behind another: to wait for
// the end of that one, or, if it is of the same message, to leave it alone: a nak
// of the older delivery would take the message out of the other's hands.
func (e ending) standBack(r *mulligan.Record) verdict {
	if r.Start.Address == e.address.String() {
		return verdict{Verb: drop}
	}
	return verdict{Verb: nak, Reason: mulligan.InProgress, Due: e.now.Add(shortWait)}
}

// ends takes the call's own start back and returns its number, or that of its
// last attempt if it stands for several. Another's start stays: of a first
// delivery without a mark none is noted, and whatever ended then stands for all
// before it.
func (e ending) ends(r *mulligan.Record) (number int) {
	if !e.marks() || r.Start != nil && r.Start.Delivery == e.start {
		r.Starts = 0
	}
	more := e.tries() - 1
	noted := r.Noted(unended(e.start))
	if noted == nil {
		return r.Attempts + 1 + more
	}
	number = noted.Number + more
	r.History = slices.DeleteFunc(r.History, func(a mulligan.Attempt) bool { return a.Run == unended(e.start) })
	return number
}

// attempt is the call as the rules see it.
func (e ending) attempt(r *mulligan.Record, number int) mulligan.Ended {
	a := mulligan.Ended{Number: number, Spent: r.Spent + e.took, Effect: e.effect, NoKey: e.noKey, Stepped: e.stepped, Tried: tried(r),
		Begun: e.begun, Uncalled: e.ran == 0, Hint: e.hint}
	if last := r.Last(); last.Verb == deferred && (last.Reason == mulligan.Credential || last.Reason == mulligan.Held) {
		a.Deferred = max(last.Times, 1)
	}
	if s := r.OpenStep(); s != nil {
		a.OpenStep = s.Name
	}
	return a
}

// succeed notes a success: the first to record it wins, and it overrides every
// other end. The verdict is to acknowledge the message, or, where there may be a
// dead letter of the key, to have a scheduler take it back.
func succeed(r *mulligan.Record, e ending, result []byte) (v verdict, store bool) {
	v = verdict{Verb: ack}
	if r.State == mulligan.Done || r.State != "" && r.Payload != e.payload {
		return v, false
	}
	if r.State == mulligan.Dead || r.Replay != "" { // of a replayed key an older letter may be left
		r.Letter = true
		v = verdict{Verb: settle, Reason: r.Reason}
		if v.Reason == "" { // the scheduler goes by the record, which says done
			v.Reason = mulligan.InDoubt
		}
	}
	begin(r, e.facts)
	r.Attempts = max(r.Attempts, e.ends(r))
	r.Spent += e.took
	r.Note(e.entry(r, verdict{Verb: ack}))
	r.State, r.Reason, r.Starts, r.Move, r.Changed = mulligan.Done, "", 0, nil, nil
	r.Result = mulligan.NewResult(result, e.started.Add(e.took)).Within(e.limit - kept(r))
	return v, true
}

// kept is how many bytes of results the steps keep.
func kept(r *mulligan.Record) (n int) {
	for i := range r.Steps {
		if result := r.Steps[i].Result; result != nil {
			n += len(result.Data)
		}
	}
	return n
}

// entry is what the history says of this call.
func (e ending) entry(r *mulligan.Record, v verdict) mulligan.Attempt {
	a := mulligan.Attempt{Number: r.Attempts, Run: e.run, At: e.started, Took: e.took, Reason: v.Reason, Delay: v.Delay}
	if v.Verb != ack {
		a.Verb, a.ErrorType, a.Error = v.Verb, v.ErrorType, v.Error
		a.NotStarted, a.Throttled = e.notStarted(), mulligan.MeaningOf(e.err).Throttled
	}
	if tries := e.tries(); tries > 1 {
		a.Tries = tries
	}
	if v.Changed != nil {
		a.Change = mergePatch(e.input, v.Changed)
	}
	if v.Verb == deferred {
		a.Delay = v.Due.Sub(e.now)
	}
	return a
}

// remembered is the verdict that was noted with an attempt.
func remembered(r *mulligan.Record, a *mulligan.Attempt) verdict {
	if r.State == mulligan.Done {
		return verdict{Verb: ack}
	}
	if r.State == mulligan.Spent || r.State == mulligan.Dead {
		return ended(r)
	}
	v := verdict{Verb: a.Verb, Reason: a.Reason, Delay: a.Delay, ErrorType: a.ErrorType, Error: a.Error}
	if r.Move != nil {
		v.Due = r.Move.Due
	}
	return v
}

func tried(r *mulligan.Record) []mulligan.Fingerprint {
	return append([]mulligan.Fingerprint{r.Payload}, r.Changes...)
}
