package mulligan

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A DownstreamBudget is what [Policy.Do] asks about the downstream that it
// calls; see [WithDownstream]. budget.Calls is one. It must be safe for
// concurrent use.
type DownstreamBudget interface {
	// Start waits until the downstream lets an attempt start, at most until ctx
	// ends, and takes what it needs or nothing. end is called once, with the
	// attempt's error; a [*CallError] without attempts says that nothing was called.
	Start(ctx context.Context, a CallStart) (end func(err error), err error)
}

// A CallStart is an attempt that is to start.
type CallStart struct {
	// After is the error of the attempt before it; nil for the first of a call.
	After error
	// Again: it is the first of its call, and the call repeats what was tried
	// before, within a retry of a call or of a job.
	Again bool
}

// jobBudget is the budget of the downstream of a kind, and of a job in whose
// handler calls are made. Workers have it.
type jobBudget interface {
	DownstreamBudget
	// Rules says which attempt of the job this is and what a repetition would do
	// (Number, Effect, NoKey, and Stepped if all that must not happen twice is in
	// steps, and none is open), what is left of the total time of the job, and when
	// its deadline is.
	Rules() (a Ended, left time.Duration, deadline time.Time)
	// Wait returns the context for waiting for budgets; done is called when that
	// is over.
	Wait(ctx context.Context) (patient context.Context, done func())
	// Retry takes what a retry that is due now of an attempt that ended with after
	// needs of the job, or nothing, and returns when it may start, at most when ctx
	// ends. denied is why the job has no retry left.
	Retry(ctx context.Context, after error) (denied Reason, err error)
	// Tried notes how an attempt ended; again says that it was a retry, and cut
	// that it does not count.
	Tried(err error, again, cut bool)
}

// budgets are those in a context.
type budgets struct {
	downstream DownstreamBudget // nil if there is none
	job        jobBudget        // nil outside of a handler
	again      bool             // within a retry
	within     bool             // within an attempt of a call
	until      time.Time        // the deadline of the outermost call's context; zero for none
}

type budgetsKey struct{}

func budgetsIn(ctx context.Context) budgets {
	if b, ok := ctx.Value(budgetsKey{}).(*budgets); ok {
		return *b
	}
	return budgets{}
}

func (b budgets) in(ctx context.Context) context.Context { return &budgeted{ctx, b} }

// budgeted is a context with budgets: as context.WithValue, in one allocation.
type budgeted struct {
	context.Context
	budgets budgets
}

func (c *budgeted) Value(key any) any {
	if key == (budgetsKey{}) {
		return &c.budgets
	}
	return c.Context.Value(key)
}

// WithDownstream returns a context whose calls by [Policy.Do] go by the budget of
// a downstream. In a handler, it is for calling another downstream than that of
// the job's kind; the job's own budgets still hold.
func WithDownstream(ctx context.Context, b DownstreamBudget) context.Context {
	in := budgetsIn(ctx)
	in.downstream = b
	if job, ok := b.(jobBudget); ok {
		in.job = job
	}
	return in.in(ctx)
}

// start waits until the next attempt is due and may start. end must be called.
func (c *calling) start(ctx context.Context) (end func(err error), failed *CallError) {
	if err := sleepUntil(ctx, c.due); err != nil {
		return nil, c.failed(c.whyOver(ctx, err), err)
	}
	patient, done := c.wait(ctx)
	defer done()
	end, denied, err := c.permit(patient)
	switch {
	case denied != "":
		return nil, c.failed(denied, nil)
	case err == nil:
		return end, nil
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, c.failed(Cancelled, err)
	case c.job == nil && ctx.Err() != nil:
		return nil, c.failed(Expired, err)
	}
	return nil, c.failed(Held, err)
}

// wait bounds the waiting for budgets: what a call waits is in a handler the
// job's, elsewhere its own.
func (c *calling) wait(ctx context.Context) (patient context.Context, done func()) {
	began := time.Now()
	bound := c.waitHere
	if c.job != nil {
		bound = c.job.Wait
	}
	patient, over := bound(ctx)
	return patient, func() {
		c.waited += time.Since(began)
		over()
	}
}

func (c *calling) waitHere(ctx context.Context) (patient context.Context, done func()) {
	return context.WithTimeout(ctx, c.policy.Total-c.waited)
}

// permit takes all that the next attempt needs, or nothing: first what its
// downstream has, which can be given back for certain, then what the job has.
func (c *calling) permit(ctx context.Context) (end func(err error), denied Reason, err error) {
	end = func(error) {}
	if c.downstream != nil {
		if end, err = c.downstream.Start(ctx, CallStart{After: c.last, Again: c.again}); err != nil {
			return nil, "", err
		}
	}
	if err = ctx.Err(); err == nil && c.last != nil && c.job != nil {
		denied, err = c.job.Retry(ctx, c.last)
	}
	if denied != "" || err != nil {
		end(&CallError{Reason: denied, NotStarted: true, Ended: err})
		return nil, denied, err
	}
	return end, "", nil
}

// sleepUntil returns when the time has come, or with ctx's error once that has
// ended.
func sleepUntil(ctx context.Context, at time.Time) error {
	d := time.Until(at)
	if at.IsZero() || d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ownPermit is the budget within an attempt. A call within it takes over the
// attempt's own permit: it would be counted twice, or wait for what its caller
// holds.
type ownPermit struct {
	DownstreamBudget
	end func(err error)

	mu    sync.Mutex
	taken bool
}

// Start takes over the permit for a first attempt, if it is still to be had.
func (o *ownPermit) Start(ctx context.Context, a CallStart) (end func(err error), err error) {
	if a.After == nil && o.take() {
		return o.end, nil
	}
	return o.DownstreamBudget.Start(ctx, a)
}

// take reports whether the permit is the caller's to end.
func (o *ownPermit) take() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	taken := o.taken
	o.taken = true
	return !taken
}
