package mulligan

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A DownstreamBudget is what [Policy.Do] asks about the downstream that it
// calls; see [WithDownstream]. budget.Calls is one. It must be safe for
// concurrent use.
type DownstreamBudget interface {
	// Retry takes the token of a retry of an attempt that ended with after. It
	// waits for one until ctx ends. Without an error the token is not nil.
	Retry(ctx context.Context, after error) (RetryToken, error)
	// Start waits until the downstream lets an attempt start, at most until ctx
	// ends. retry is what Retry returned, and nil for a first attempt. end is
	// called with the attempt's error, whatever happens. When Start fails, retry
	// is still to be given back.
	Start(ctx context.Context, retry RetryToken) (end func(err error), err error)
}

// A RetryToken permits one retry of a call.
type RetryToken interface {
	// Back gives the token back: the retry did not start.
	Back()
}

// A JobBudget is what [Policy.Do] asks about the job in whose handler it is
// called. A worker gives one to every handler; see [WithJob]. It must be safe for
// concurrent use.
type JobBudget interface {
	// Rules says what a repetition would do (the Effect, NoKey and Stepped of the
	// job), and when the job's deadline is.
	Rules() (a Ended, deadline time.Time)
	// Ask asks the budgets of the job's task and user for a retry that is due now,
	// of an attempt that ended with after. It says when the retry may start, which
	// is before latest; back, not nil, gives back what was taken if it does not. It
	// fails with a [*DeniedError] if the retry is refused, and then has taken
	// nothing. It blocks at most until ctx ends.
	Ask(ctx context.Context, after error, latest time.Time) (at time.Time, back func(), err error)
}

// A DeniedError says that a budget refused a retry.
type DeniedError struct{ Reason Reason } // TaskBudget or UserBudget

// Error says which budget it was.
func (e *DeniedError) Error() string { return fmt.Sprintf("no retry: %s", e.Reason) }

type (
	downstreamKey struct{}
	jobKey        struct{}
)

// WithDownstream returns a context whose calls by [Policy.Do] go by the budget of
// a downstream. In a handler, it is for calling another downstream than that of
// the job's kind; the job's own budgets still hold.
func WithDownstream(ctx context.Context, b DownstreamBudget) context.Context {
	return context.WithValue(ctx, downstreamKey{}, b)
}

// WithJob returns a context whose calls by [Policy.Do] are those of a job. It is
// for workers.
func WithJob(ctx context.Context, b JobBudget) context.Context {
	return context.WithValue(ctx, jobKey{}, b)
}

// start waits until the next attempt is due and may start. end must be called.
func (c *calling) start(ctx context.Context) (end func(err error), err error) {
	if err := sleepUntil(ctx, c.due); err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); ok {
		return c.permit(ctx)
	}
	patient, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	began := time.Now()
	defer func() { c.patience -= time.Since(began) }()
	return c.permit(patient)
}

// permit takes all that the next attempt needs, or nothing: the retry's token
// first, which can be given back for certain, then what the job has.
func (c *calling) permit(ctx context.Context) (end func(err error), err error) {
	var taken []func()
	defer func() {
		if err != nil {
			for _, back := range taken {
				back()
			}
		}
	}()
	var token RetryToken
	if c.last != nil && c.downstream != nil {
		if token, err = c.downstream.Retry(ctx, c.last); err != nil {
			return nil, err
		}
		taken = append(taken, token.Back)
	}
	if c.last != nil && c.job != nil {
		at, back, err := c.job.Ask(ctx, c.last, c.latest(ctx))
		if err != nil {
			return nil, err
		}
		taken = append(taken, back)
		if err := sleepUntil(ctx, at); err != nil {
			return nil, err
		}
	}
	end = func(error) {}
	if c.downstream != nil {
		if end, err = c.downstream.Start(ctx, token); err != nil {
			return nil, err
		}
	}
	if err = ctx.Err(); err != nil { // it ended as the attempt was let through
		end(context.Canceled)
		return nil, err
	}
	return end, nil
}

// latest is when the total time would be used up by waiting.
func (c *calling) latest(ctx context.Context) time.Time {
	latest := time.Now().Add(c.policy.Total - c.a.Spent)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(latest) {
		return deadline
	}
	return latest
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
func (o *ownPermit) Start(ctx context.Context, retry RetryToken) (end func(err error), err error) {
	if retry == nil && o.take() {
		return o.end, nil
	}
	return o.DownstreamBudget.Start(ctx, retry)
}

// take reports whether the permit is the caller's to end.
func (o *ownPermit) take() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	taken := o.taken
	o.taken = true
	return !taken
}
