package consumer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/nats-io/nuid"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/dedupe"
	"github.com/mulligan-queue/mulligan/internal/call"
)

// unservedDelay is how long a job of a kind without a handler here stays away:
// during a rolling upgrade another worker has it.
const unservedDelay = time.Second

// unrecordedDelay is how long a job stays away whose record could not be
// changed.
const unrecordedDelay = 5 * time.Second

// do takes one message through this worker: it is admitted, run, judged and
// settled. ctx ends the handler.
func (w *Worker) do(ctx context.Context, d *delivery) {
	defer w.hand.drop(d)
	if d.bad != nil {
		v := verdict{Verb: spend, Reason: mulligan.Malformed, ErrorType: "malformed", Error: mulligan.ErrorText(d.bad)}
		w.report(d, 0, v)
		w.carryOut(ctx, d, v)
		return
	}
	k, ok := w.kinds[d.env.Kind]
	if !ok {
		// Not the rhythm of the pulls: the same worker would get it every time.
		delay := unservedDelay/2 + rand.N(unservedDelay)
		d.line(w.Log.Warn(), "no_handler", delay).Msg("no handler for this kind here; given back")
		w.Metrics.GivenBack(d.env.Kind, "no_handler")
		w.carryOut(ctx, d, verdict{Verb: nak, Due: w.clock.Now().Add(delay)})
		return
	}
	d.policy, d.effect = &k.Policy, k.Effect
	d.noKey, d.keyTTL = d.env.Generated && k.Effect.NeedsID(), k.KeyTTL
	if d.isNew() && (k.Effect == mulligan.Pure && !d.budgeted() || d.marks()) {
		d.seen = dedupe.Unwritten() // what is written of it first will show whether that is so
	}
	atOnce := d.runsAtOnce(k.Effect, w.clock.Now())
	var v verdict
	var rec *mulligan.Record
	if atOnce {
		v.Verb, rec = run, new(mulligan.Record)
	} else {
		v, rec = w.admit(ctx, d)
	}
	if v.Verb == suspect {
		select {
		case w.suspect <- struct{}{}:
			defer func() { <-w.suspect }()
			d.alone = true
			v, rec = w.admit(ctx, d)
		default:
			v = verdict{Verb: nak, Due: w.clock.Now().Add(unservedDelay)}
		}
	}
	if v.Verb == askUser {
		v, rec = w.admitUser(ctx, d, rec)
	}
	if v.Verb == run && !atOnce && !w.clock.Now().Before(d.deadline) {
		v, rec = w.admit(ctx, d) // it has passed while the start was noted
	}
	if v.Verb == run {
		v = w.attempt(ctx, k, d, rec)
	}
	w.carryOut(ctx, d, v)
}

// isNew reports whether the message was just published, and not delivered before.
func (d *delivery) isNew() bool { return d.fromJobs && !d.again && !d.old && d.env.Replay == "" }

// budgeted reports whether a retry of the job is asked of a budget that others share:
// that is not done for a record that is only guessed.
func (d *delivery) budgeted() bool { return d.hasUser || d.env.Task != "" }

// runsAtOnce reports whether the message needs no look at the record: a pure
// job just published. Whatever else there is of its key, running is harmless.
func (d *delivery) runsAtOnce(e mulligan.Effect, now time.Time) bool {
	return e == mulligan.Pure && d.isNew() && !now.Before(d.notBefore) && now.Before(d.deadline)
}

// admit asks the record of the key whether the message may run. While the
// ledger cannot be reached the job waits here; nothing runs unprotected.
func (w *Worker) admit(ctx context.Context, d *delivery) (v verdict, rec *mulligan.Record) {
	d.identify()
	decided := false // here, not by whoever had the message before
	err := w.ledger.UpdateSeen(ctx, "admit", d.env.RecordKey(), &d.seen, func(r *mulligan.Record) (store bool) {
		d.now = w.clock.Now()
		v, store = admit(r, d.facts)
		d.heed(r)
		rec, decided = r, store || decided && r.Move != nil && r.Move.Address == d.address.String()
		// That its key has ended is only read, maybe from a server that leads no more: to
		// spend the message for it that must be certain.
		return store || v.Verb == spend && v.Reason != mulligan.KeyConflict
	})
	if err != nil {
		return w.unrecorded(ctx, d, err), new(mulligan.Record)
	}
	d.deadline = later(d.deadline, rec.Deadline)
	if decided || v.Reason == mulligan.KeyConflict || v.Verb == wait {
		w.report(d, rec.Attempts, v)
	}
	return v, rec
}

// admitUser asks the user's budget for a retry that is due, and admits it again: by
// the record that was just read, if the answer came at once and nothing is to be noted.
func (w *Worker) admitUser(ctx context.Context, d *delivery, read *mulligan.Record) (v verdict, rec *mulligan.Record) {
	asked := w.clock.Now()
	var err error
	if d.place, err = w.users.Take(ctx, d.env.User, asked, d.deadline); err != nil {
		return w.unrecorded(ctx, d, err), new(mulligan.Record)
	}
	if d.place.Denied && d.env.Task != "" { // the retry that its task gave comes to nothing
		if err := w.tasks.Back(ctx, budget.TaskAsk{Task: d.env.Task, Retries: 1}); err != nil {
			d.line(w.Log.Warn(), string(mulligan.UserBudget), 0).Err(err).Msg("a retry of its task is wasted")
		}
	}
	d.now = w.clock.Now()
	if d.now.Sub(asked) < shortWait {
		if v, store := admit(read, d.facts); v.Verb == run && !store {
			return v, read
		}
	}
	return w.admit(ctx, d)
}

// attempt runs the handler once and judges the outcome.
func (w *Worker) attempt(ctx context.Context, k *handled, d *delivery, rec *mulligan.Record) verdict {
	began := time.Now()
	d.tries = rec.Attempts + 1
	input := d.env.Payload
	if rec.Changed != nil {
		input = rec.Changed
	}
	var steps *steps
	if k.Effect != mulligan.Pure {
		steps = w.steps(d, k.MaxResult)
	}
	calls := w.calling(k, d, steps, rec, began)
	job := calls.hand(input)
	e := ending{input: input, limit: k.MaxResult, started: w.clock.At(began)}
	limit := min(k.Policy.Timeout, k.Policy.Total-rec.Spent, d.deadline.Sub(e.started))
	d.tell(rec, began)
	var result []byte
	d.alarm.set(began.Add(limit+stopWait), calls)
	defer d.alarm.stop()
	defer calls.finish(context.Canceled) // should the handler end its goroutine
	result, e.err = w.call(calls.in(ctx), k.handler, job, limit)
	e.called = calls.finish(d.told(ctx, e.err, limit < k.Policy.Timeout/2))
	ended, errorType := time.Now(), mulligan.ErrorType(e.err)
	e.took = ended.Sub(began) - e.waited
	d.lane.notice(ended, errorType)
	var lost bool
	if e.stepped, lost = steps.used(); lost {
		return verdict{Verb: drop}
	}
	if e.stepped {
		d.seen = dedupe.Sight{} // steps have written since
	}
	if e.err != nil && ctx.Err() != nil {
		if v, ok := w.interrupted(ctx, d, e); ok {
			return v
		}
	}
	w.Metrics.Attempt(k.Name, errorType, e.took)
	// Whoever was given it before may still be at it, and must find that it has ended.
	if e.err == nil && k.Effect == mulligan.Pure && !k.KeepResults && rec.State == "" && !d.again && !d.old {
		w.Metrics.Done(k.Name, "")
		return verdict{Verb: ack}
	}
	if e.run = nuid.Next(); e.err != nil {
		e.chance = mulligan.Chance{U: rand.Float64(), V: rand.Float64()}
		return w.fail(ctx, k, d, e)
	}
	return w.succeed(ctx, d, e, result)
}

// call calls the handler within a time limit. A panic is a failed attempt.
func (w *Worker) call(ctx context.Context, h mulligan.Handler, job *mulligan.Job, limit time.Duration) (result []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			w.Log.Error().Str("kind", job.Kind).Str("id", job.ID).Int("attempt", job.Attempt).
				Str("panic", fmt.Sprint(p)).Str("stack", string(debug.Stack())).Msg("handler panicked")
			err = mulligan.Typed("panic", fmt.Errorf("panic: %v", p))
		}
	}()
	return call.Do(ctx, "handler", func() ([]byte, error) { return h.Handle(ctx, job) })
}

// succeed records the success of a key that has, or needs, a record.
func (w *Worker) succeed(ctx context.Context, d *delivery, e ending, result []byte) (v verdict) {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	d.identify()
	last, attempts, first := "", 1, true
	err := w.ledger.UpdateSeen(ctx, "done", d.env.RecordKey(), &d.seen, func(r *mulligan.Record) (store bool) {
		if r.Noted(e.run) != nil {
			return false // stored before; the answer was lost
		}
		e.facts, last = d.facts, ""
		if v, first = succeed(r, e, result); first && len(r.History) > 1 {
			last = r.History[len(r.History)-2].ErrorType
		}
		attempts = r.Attempts
		d.heed(r)
		return first
	})
	if err != nil {
		return w.unrecorded(ctx, d, err)
	}
	if !first {
		return v
	}
	w.Metrics.Done(d.env.Kind, last)
	if last != "" {
		w.tell(d, mulligan.Event{Event: mulligan.EventRecovered, Attempt: attempts, ErrorType: last})
		d.tries = attempts
		d.line(w.Log.Info(), last, 0).Msg("recovered")
	}
	return v
}

// fail records a failed attempt and decides, asking the budgets for a retry.
func (w *Worker) fail(ctx context.Context, k *handled, d *delivery, e ending) verdict {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	d.identify()
	asked := askOnce{w: w, k: k, d: d, throttled: mulligan.MeaningOf(e.err).Throttled}
	var v verdict
	attempts := 0
	err := w.ledger.UpdateSeen(ctx, "fail", d.env.RecordKey(), &d.seen, func(r *mulligan.Record) (store bool) {
		d.now = w.clock.Now()
		e.facts = d.facts
		var err error
		v, store, err = fail(r, e, func(v verdict) (mulligan.Grant, error) { return asked.grant(ctx, v, d.now) })
		attempts = r.Attempts
		d.heed(r)
		return store && err == nil
	})
	asked.settle(ctx, v)
	if err == nil {
		err = asked.err
	}
	if err != nil {
		return w.unrecorded(ctx, d, err)
	}
	d.placed = asked.nak && v.Verb == nak
	w.report(d, attempts, v)
	return v
}

// unrecorded is the verdict when the ledger could not be read or written.
func (w *Worker) unrecorded(ctx context.Context, d *delivery, err error) verdict {
	w.Metrics.LostEvidence(d.env.Kind)
	d.line(w.Log.Error(), "lost_evidence", 0).Err(err).Msg("the record could not be changed; evidence is lost")
	if errors.Is(err, dedupe.ErrUnreadable) {
		v := verdict{Verb: spend, Reason: mulligan.InDoubt, ErrorType: "unreadable_record", Error: mulligan.ErrorText(err)}
		w.report(d, 0, v)
		return v
	}
	return verdict{Verb: nak, Due: w.clock.Now().Add(unrecordedDelay)}
}

// interrupted gives a job back whose handler was ended by the shutdown: it costs
// no attempt, and its start is taken back. What the handler says for certain
// stands, and where the effect may have happened and must not happen twice, it is
// a failed attempt like any other.
func (w *Worker) interrupted(ctx context.Context, d *delivery, e ending) (v verdict, ok bool) {
	if e.failed > 0 || mulligan.MeaningOf(e.err).Deliberate() {
		return v, false // attempts of a call that had failed by themselves are the job's
	}
	ok, v = true, verdict{Verb: nak}
	if d.again || d.effect != mulligan.Pure {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait/2)
		defer cancel()
		err := w.ledger.UpdateSeen(ctx, "interrupted", d.env.RecordKey(), &d.seen, func(r *mulligan.Record) bool {
			call := ending{facts: d.facts}
			ok, v = true, verdict{Verb: nak} // of another record it may have been otherwise
			switch {
			case call.behind(r):
				v = call.standBack(r)
				return false
			case d.effect == mulligan.Keyed && !d.marks() && r.FirstCall.IsZero() && !e.notStarted() && !r.Ended():
				begin(r, d.facts)
				r.FirstCall = e.started // the key is with the downstream
				if own := r.Open(); own != nil && own.Delivery == d.start {
					r.Starts--
				}
				return true
			case r.Open() == nil || r.Start.Delivery != d.start:
				return false
			}
			if ok = !d.marks() || !d.noKey && (e.notStarted() || e.stepped && r.OpenStep() == nil); ok {
				d.takeBack(r)
			}
			return ok
		})
		if err != nil {
			d.line(w.Log.Warn(), "shutdown", 0).Err(err).Msg("start not taken back")
		}
	}
	if ok {
		w.Metrics.GivenBack(d.env.Kind, "shutdown")
	}
	return v, ok
}

// afterwards returns a context for recording how a handler ended: it outlives
// the end of the handlers for a little.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(stopWait/2, cancel) })
	return late, func() {
		stop()
		cancel()
	}
}
