package mulligan

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Do calls fn until it succeeds or the rules end it: the same rules as for a
// job, by [Policy.Judge], around a call inside a process. fn speaks by error as
// a handler does. Each attempt has p.Timeout, and all of them together with the
// delays between them p.Total; a zero field of p means the default. ctx bounds
// everything, and a retry that could not start before its deadline is not
// planned. A panic of fn passes through.
//
// Inside a handler the call goes by the rules for the job's effect: in a once job
// it is not repeated after a failure that leaves a doubt, and in a keyed job fn
// hands its downstream the job's key. Its retries spend the budgets of the job's
// task and user. Elsewhere fn counts as pure: it must be safe to repeat, or say
// [Permanent] of each failure after which it is not.
//
// Where ctx has the budget of a downstream (see [WithDownstream]; a worker gives
// every handler that of its kind), each attempt waits until the downstream lets
// it start, and each retry for a token. Such waiting is not counted in p.Total.
// It ends with ctx, and without a deadline in ctx once all of it together has
// taken p.Total. A user's later place is waited for if that is within what is
// left of p.Total.
//
// What only a job can do ends the call at once, and becomes of the job when its
// handler returns the error: [Snooze], [Changed] and [RefusedCredential].
//
// Any failure is a [*CallError]. A handler that returns it ends its job, with
// its reason: retries in layers would multiply. To have the queue go on instead,
// see [Later]. Do is safe for concurrent use.
func (p Policy) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	c, err := newCalling(ctx, p)
	if err != nil {
		return &CallError{Reason: PermanentFailure, NotStarted: true, Err: fmt.Errorf("call: %w", err)}
	}
	for {
		end, err := c.start(ctx)
		if err != nil {
			return c.failed(c.whyNotStarted(ctx, err), err)
		}
		if err = c.attempt(ctx, end, fn); err == nil {
			return nil
		}
		if ended := c.judge(ctx, err); ended != nil {
			return ended
		}
	}
}

// Call is [Policy.Do] for a function that returns something. With an error it
// returns the zero T.
func Call[T any](ctx context.Context, p Policy, fn func(ctx context.Context) (T, error)) (T, error) {
	var v, none T
	err := p.Do(ctx, func(ctx context.Context) (err error) {
		v, err = fn(ctx)
		return err
	})
	if err != nil {
		return none, err
	}
	return v, nil
}

// A CallError is how a call by [Policy.Do] failed. It wraps the error of the last
// attempt, and what ended the call if that was something else, so that errors.Is
// and errors.As find both.
type CallError struct {
	// Reason is why it is not tried again, as for a job. [Expired] means that the
	// next attempt could not start before the deadline of the context, and
	// [Cancelled] that the context was cancelled. In a handler [Expired] is of the
	// job's deadline, and the end of the time for one attempt of the handler is
	// [TimeExhausted].
	Reason Reason
	// Attempts is how many there were; one that ended because the context was
	// cancelled is not counted.
	Attempts int
	// Spent is what the attempts took plus the delays between them.
	Spent time.Duration
	// Hint is what was left, when the call ended, of the time that the downstream
	// had asked to wait; zero for none.
	Hint time.Duration
	// NotStarted: no attempt had any effect, for certain.
	NotStarted bool
	// Err is the error of the last attempt; nil if there was none.
	Err error
	// Ended is what ended the call, if not the rules alone: an error that wraps
	// the context's, or a [*DeniedError].
	Ended error
}

// Error is the text of the last failure, and why it was the last.
func (e *CallError) Error() string {
	why := string(e.Reason)
	if e.Ended != nil {
		why += ": " + e.Ended.Error()
	}
	if e.Err == nil {
		return "not called (" + why + ")"
	}
	return fmt.Sprintf("%v (%s, attempts: %d)", e.Err, why, e.Attempts)
}

// Unwrap returns the error of the last attempt and what ended the call.
func (e *CallError) Unwrap() (errs []error) {
	for _, err := range []error{e.Err, e.Ended} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// final reports whether the rules ended the call. If its caller did, a job that
// returns the error goes on.
func (e *CallError) final() bool { return e.Reason.Valid() && e.Reason != Cancelled }

// Tries is how many attempts a call of a handler stands for that ended with err:
// those of the call by [Policy.Do] that failed in it, else one.
func Tries(err error) int {
	var call *CallError
	if errors.As(err, &call) {
		return max(call.Attempts, 1)
	}
	return 1
}

// LaterError is a failure that is handed over to the queue.
type LaterError struct{ Err error }

// Later hands over to the queue what a call inside a handler could not do in
// time: a handler that returns Later(err), with the error of [Policy.Do], has its
// job tried again under the same ID, if the kind's own policy, its budgets and
// the job's deadline allow that. The attempts of the call count as the job's, and
// the retry is not before the downstream's hint. Let the kind's policy have more
// attempts and time than the call's: with the same there is nothing left.
//
// Of any other error it is a retry as without Later. Later overrides nothing that
// err says for certain ([Permanent], [Unusable], [Changed], [Snooze],
// [RefusedCredential]), and a once job whose call left a doubt is in doubt.
func Later(err error) error { return &LaterError{Err: err} }

// Error is the text of the failure.
func (e *LaterError) Error() string { return text(e.Err, "to be tried later") }

// Unwrap returns the failure that was wrapped.
func (e *LaterError) Unwrap() error { return e.Err }

// endedBy returns the call whose error ends the job, or nil: the outermost, if
// the rules ended it, and if it was not handed over to the queue.
func endedBy(err error) *CallError {
	var (
		call, handed *CallError
		later        *LaterError
	)
	if !errors.As(err, &call) || !call.final() {
		return nil
	}
	if errors.As(err, &later) && errors.As(later.Err, &handed) && handed == call {
		return nil
	}
	return call
}

// hintOf is for how long the downstream asked to wait, counted from when err was
// returned, and whether it was throttled.
func hintOf(err error) (hint time.Duration, throttled bool) {
	var (
		t, within *ThrottledError
		call      *CallError
	)
	if !errors.As(err, &t) {
		return 0, false
	}
	if !errors.As(err, &call) {
		return t.Delay, true
	}
	if errors.As(call.Err, &within) && within == t {
		return call.Hint, true // some of it may have passed
	}
	return max(t.Delay, call.Hint), true
}

// calling is one call by [Policy.Do].
type calling struct {
	policy     Policy
	downstream DownstreamBudget // nil if there is none
	job        JobBudget        // nil outside of a handler
	deadline   time.Time        // the job's
	a          Ended            // its attempts so far
	due        time.Time        // of the next one
	hint       time.Time        // until when the downstream asked to wait
	begun      bool             // an attempt may have had an effect
	last       error            // of the last attempt
	patience   time.Duration    // for the budgets, where ctx has no deadline
}

func newCalling(ctx context.Context, p Policy) (*calling, error) {
	p, err := p.Normal()
	if err != nil {
		return nil, err
	}
	c := &calling{policy: p, patience: p.Total}
	c.downstream, _ = ctx.Value(downstreamKey{}).(DownstreamBudget)
	c.job, _ = ctx.Value(jobKey{}).(JobBudget)
	if c.job != nil {
		var rules Ended
		rules, c.deadline = c.job.Rules()
		c.a.Effect, c.a.NoKey = rules.Effect, rules.NoKey
		// Within a step it is this call that must not happen twice.
		c.a.Stepped = rules.Stepped && ctx.Value(stepping{}) == nil
	}
	return c, nil
}

// attempt calls fn once and ends the permit of the call, also if fn panics or
// ends its goroutine.
func (c *calling) attempt(ctx context.Context, end func(err error), fn func(ctx context.Context) error) (err error) {
	own := &ownPermit{DownstreamBudget: c.downstream, end: end}
	if c.downstream != nil {
		ctx = WithDownstream(ctx, own)
	}
	ctx, cancel := context.WithTimeout(ctx, min(c.policy.Timeout, c.policy.Total-c.a.Spent))
	defer cancel()
	err = Typed("panic", errors.New("the call did not return"))
	started := time.Now()
	defer func() {
		c.a.Spent += time.Since(started)
		if own.take() {
			end(err)
		}
	}()
	err = fn(ctx)
	return err
}

// judge decides after a failed attempt: nil means to try again when due.
func (c *calling) judge(ctx context.Context, err error) *CallError {
	now, over := time.Now(), ctx.Err()
	c.last, c.begun = err, c.begun || !DidNotStart(err)
	if hint, ok := hintOf(err); ok {
		c.hint = now.Add(hint)
	}
	before := c.a.Number
	c.a.Number += Tries(err)
	v := c.policy.Judge(c.a, err, Chance{U: rand.Float64(), V: rand.Float64()})
	if deadline, ok := ctx.Deadline(); ok && v.Verb == Retry {
		v = v.Under(Grant{Now: now, Deadline: deadline})
	}
	switch why := v.Reason; {
	case over != nil && (why == "" || why == AttemptsExhausted || why == TimeExhausted || why == Expired):
		if why = c.whyOver(ctx, over); why == Cancelled {
			c.a.Number = before + triesWithin(err)
		}
		return c.failed(why, over)
	case why == Expired:
		return c.failed(c.whyOver(ctx, context.DeadlineExceeded), context.DeadlineExceeded) // it will be
	case why != "":
		return c.failed(why, nil)
	case v.Changed != nil:
		return c.failed(NoChange, nil) // only a job has a payload to change
	}
	c.a.Spent += v.Delay
	c.due = now.Add(v.Delay)
	return nil
}

func (c *calling) failed(why Reason, ended error) *CallError {
	return &CallError{Reason: why, Attempts: c.a.Number, Spent: c.a.Spent, Hint: max(time.Until(c.hint), 0),
		NotStarted: !c.begun, Err: c.last, Ended: ended}
}

// whyOver is why a call ends with its context.
func (c *calling) whyOver(ctx context.Context, over error) Reason {
	deadline, ok := ctx.Deadline()
	switch {
	case errors.Is(over, context.Canceled):
		return Cancelled
	case ok && c.job != nil && deadline.Before(c.deadline):
		return TimeExhausted // of one attempt of the handler
	}
	return Expired
}

// whyNotStarted is why an attempt did not start, given what start said.
func (c *calling) whyNotStarted(ctx context.Context, err error) Reason {
	var denied *DeniedError
	switch {
	case errors.As(err, &denied):
		return denied.Reason
	case ctx.Err() != nil:
		return c.whyOver(ctx, ctx.Err())
	}
	return TimeExhausted
}

// triesWithin is how many attempts a call had that failed within an attempt.
func triesWithin(err error) int {
	var call *CallError
	if errors.As(err, &call) {
		return call.Attempts
	}
	return 0
}
