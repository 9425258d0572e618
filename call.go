package mulligan

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Do calls fn until it succeeds or the rules end it: those for a job, by
// [Policy.Judge], around a call inside a process. fn speaks by error as a handler
// does. It returns nil, or a [*CallError]:
//
//   - The rules ended it (attempts, total time, a permanent failure, a doubt, no
//     retry left for the task): a handler that returns the error ends its job with
//     that reason, since retries in layers would multiply. [Later] hands the job
//     over to the queue instead.
//   - It waited in vain for a budget, as [Held] says: a handler that returns the
//     error has its job tried again by the queue, and if nothing was called at no
//     cost.
//   - ctx ended it: as [Expired] or [Cancelled].
//   - What only a job can do ends it at once, and becomes of the job when its
//     handler returns the error: [Snooze], [Changed], [RefusedCredential].
//
// Each attempt has p.Timeout, all of them with the delays between them p.Total; a
// zero field of p means the default. A retry that could not start before ctx's
// deadline is not planned. A panic of fn passes through.
//
// Where ctx has the budget of a downstream (see [WithDownstream]; a worker gives
// every handler that of its kind), each attempt waits until the downstream lets
// it start, and each retry for a token. Such waiting is not of p.Total: all of it
// together takes at most p.Total again, and in a handler [MaxNak], since a job
// waits better in the queue.
//
// Inside a handler the call goes by the job's effect: in a once job it is not
// repeated after a failure that leaves a doubt, and in a keyed job fn hands its
// downstream the job's key. Its retries are of the attempts and the time that the
// kind's policy leaves the job, and spend the budgets of the job's task and user.
// Elsewhere fn counts as pure: it must be safe to repeat, or say [Permanent] of
// each failure after which it is not. Do is safe for concurrent use.
func (p Policy) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	c, err := newCalling(ctx, p)
	if err != nil {
		return &CallError{Reason: PermanentFailure, NotStarted: true, Err: fmt.Errorf("call: %w", err)}
	}
	if c.job != nil { // also where ctx was cut off from the handler's
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, c.deadline)
		defer cancel()
	}
	for {
		end, failed := c.start(ctx)
		if failed != nil {
			return failed
		}
		if err = c.attempt(ctx, end, fn); err == nil {
			return nil
		}
		if failed = c.judge(ctx, err); failed != nil {
			return failed
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
	// Reason is why it is not tried again, as for a job. [Held] means that it
	// waited in vain for a budget, [Expired] that the next attempt could not start
	// before the deadline of the context, and [Cancelled] that the context was
	// cancelled, or that the time for one attempt of a call around it was over. In a
	// handler [Expired] is of the job's deadline, and the end of the time for one
	// attempt of the handler is [TimeExhausted].
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
	// Ended is what ended the call, if not the rules alone: mostly an error that
	// wraps the context's.
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

// final reports whether the rules ended the call. If its caller did, or it waited
// in vain, a job that returns the error goes on.
func (e *CallError) final() bool { return e.Reason.Valid() && e.Reason != Cancelled }

// laterError is a failure that is handed over to the queue.
type laterError struct{ Err error }

// Later hands over to the queue what a call by [Policy.Do] could not do within
// its own rules: a handler that returns Later(err) has its job tried again under
// the same ID, if the kind's own policy, its budgets and the job's deadline allow
// that. The attempts of the call count as the job's, and the retry is not before
// the downstream's hint. Let the kind's policy have more attempts and time than
// the call's: with the same there is nothing left.
//
// Later(nil) is nil, and of any other error it is a retry as without Later. It
// overrides nothing that err says for certain ([Permanent], [Unusable], [Changed],
// [Snooze], [RefusedCredential]), and a once job whose call left a doubt is in
// doubt.
func Later(err error) error {
	if err == nil {
		return nil
	}
	return &laterError{Err: err}
}

// Error is the text of the failure.
func (e *laterError) Error() string { return e.Err.Error() }

// Unwrap returns the failure that was wrapped.
func (e *laterError) Unwrap() error { return e.Err }

// calling is one call by [Policy.Do].
type calling struct {
	budgets
	policy   Policy
	deadline time.Time     // the job's
	a        Ended         // its attempts so far
	due      time.Time     // of the next one
	hint     time.Time     // until when the downstream asked to wait
	begun    bool          // an attempt may have had an effect
	last     error         // of the last attempt
	waited   time.Duration // for budgets
}

func newCalling(ctx context.Context, p Policy) (*calling, error) {
	p, err := p.Normal()
	if err != nil {
		return nil, err
	}
	c := &calling{policy: p, budgets: budgetsIn(ctx)}
	c.a.Uncalled = true // a call within it that waited in vain ends this one, too
	if c.job != nil {
		rules, left, deadline := c.job.Rules()
		c.deadline, c.again = deadline, c.again || rules.Number > 1
		c.policy.Total = max(min(p.Total, left), 1)
	}
	return c, nil
}

// attempt calls fn once and ends the permit of the call, also if fn panics or
// ends its goroutine.
func (c *calling) attempt(ctx context.Context, end func(err error), fn func(ctx context.Context) error) (err error) {
	own := &ownPermit{DownstreamBudget: c.downstream, end: end}
	within := c.budgets
	within.again, within.within = c.again || c.last != nil, true
	if !c.within {
		within.until, _ = ctx.Deadline()
	}
	if c.downstream != nil {
		within.downstream = own
	}
	limit := min(c.policy.Timeout, c.policy.Total-c.a.Spent)
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline))
	}
	started, returned := time.Now(), false
	err = Typed("panic", errors.New("the call did not return"))
	timed, cancel := context.WithTimeout(within.in(ctx), limit)
	defer cancel()
	defer func() {
		c.a.Spent += time.Since(started)
		if own.take() {
			end(c.told(ctx, err, limit))
		}
		if c.job != nil && (err == nil || !returned) {
			c.job.Tried(err, c.last != nil, false)
		}
	}()
	err = fn(timed)
	returned = true
	return err
}

// told is what the downstream learns of an attempt: nothing from one that its
// caller interrupted or gave too little time.
func (c *calling) told(ctx context.Context, err error, limit time.Duration) error {
	cut := limit < c.policy.Timeout/2 && ErrorType(err) == "timeout" || errors.Is(ctx.Err(), context.Canceled)
	if err != nil && cut && !MeaningOf(err).Deliberate() {
		return context.Canceled
	}
	return err
}

// judge decides after a failed attempt: nil means to try again when due.
func (c *calling) judge(ctx context.Context, err error) *CallError {
	now, over, m := time.Now(), ctx.Err(), MeaningOf(err)
	if hint := now.Add(m.Hint); m.Throttled && hint.After(c.hint) {
		c.hint = hint
	}
	c.a.Number += m.Tries
	v := c.policy.Judge(c.rules(), err, Chance{U: rand.Float64(), V: rand.Float64()})
	if deadline, ok := ctx.Deadline(); ok && v.Verb == Retry {
		v = v.Under(Grant{Now: now, Deadline: deadline})
	}
	why, ended := v.Reason, error(nil)
	switch {
	case over != nil && (why == "" || why == AttemptsExhausted || why == TimeExhausted || why == Expired):
		why, ended = c.whyOver(ctx, over), over
	case why == Expired:
		ended = context.DeadlineExceeded // it will be
		why = c.whyOver(ctx, ended)
	case why == "" && v.Changed != nil:
		why = NoChange // only a job has a payload to change
	}
	cut := why == Cancelled && errors.Is(ended, context.Canceled)
	if cut && !m.Called {
		c.a.Number--
	}
	if c.job != nil {
		c.job.Tried(err, c.last != nil, cut || m.Tries == 0)
	}
	c.last, c.begun = err, c.begun || !m.NotStarted
	if why != "" {
		return c.failed(why, ended)
	}
	c.a.Spent += v.Delay
	c.due = now.Add(v.Delay)
	return nil
}

// rules are those of the job as it stands now: it may have come to use steps.
func (c *calling) rules() Ended {
	if c.job != nil {
		rules, _, _ := c.job.Rules()
		c.a.Effect, c.a.NoKey, c.a.Stepped = rules.Effect, rules.NoKey, rules.Stepped
	}
	return c.a
}

func (c *calling) failed(why Reason, ended error) *CallError {
	return &CallError{Reason: why, Attempts: c.a.Number, Spent: c.a.Spent, Hint: max(time.Until(c.hint), 0),
		NotStarted: !c.begun, Err: c.last, Ended: ended}
}

// noticeable is what no permit takes that is there.
const noticeable = 10 * time.Millisecond

// whyOver is why a call ends with its context.
func (c *calling) whyOver(ctx context.Context, over error) Reason {
	deadline, ok := ctx.Deadline()
	switch {
	case errors.Is(over, context.Canceled):
		return Cancelled
	case c.within && (c.until.IsZero() || deadline.Before(c.until)):
		return Cancelled // by the call around it, which may try again
	case !ok || c.job == nil || !deadline.Before(c.deadline):
		return Expired
	case c.waited > noticeable:
		return Held // it had the time, but for the waiting
	}
	return TimeExhausted // of one attempt of the handler
}
