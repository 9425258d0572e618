package consumer

import (
	"context"
	"sync"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
)

// calls is what [mulligan.Policy.Do] asks in the handler of one job: the budget
// of the downstream of its kind, whose permit the job may hold already, and those
// of its task and user. It implements [mulligan.DownstreamBudget] and
// [mulligan.JobBudget] and is safe for concurrent use.
type calls struct {
	budget.Calls
	w     *Worker // nil in a rehearsal, which has no budgets
	k     handled
	d     *delivery
	steps *steps

	mu     sync.Mutex
	permit budget.Permit // the job's own; zero if it has none, or a call took it over
}

// calling returns the context for the handler of d's job.
func (w *Worker) calling(ctx context.Context, k handled, d *delivery, s *steps) context.Context {
	c := &calls{w: w, k: k, d: d, steps: s, permit: d.permit}
	c.Calls = budget.Calls{Downstream: d.lane.calls, User: d.env.User}
	return c.in(ctx)
}

func (c *calls) in(ctx context.Context) context.Context {
	return mulligan.WithJob(mulligan.WithDownstream(ctx, c), c)
}

// Start lets the first call of the handler have the job's own permit, which ends
// with that attempt: the worker has nothing left to end then. Every other attempt
// takes one of its own.
func (c *calls) Start(ctx context.Context, retry mulligan.RetryToken) (end func(err error), err error) {
	if own := c.own(retry); own != (budget.Permit{}) {
		return own.EndOf(c.User), nil
	}
	return c.Calls.Start(ctx, retry)
}

func (c *calls) own(retry mulligan.RetryToken) budget.Permit {
	c.mu.Lock()
	defer c.mu.Unlock()
	if retry != nil {
		return budget.Permit{}
	}
	own := c.permit
	c.permit = budget.Permit{}
	return own
}

// Rules says what repeating a call of the job would do.
func (c *calls) Rules() (a mulligan.Ended, deadline time.Time) {
	stepped, _ := c.steps.used()
	return mulligan.Ended{Effect: c.d.effect, NoKey: c.d.noKey, Stepped: stepped}, c.d.deadline
}

// Ask asks for a retry of a call that is due now: the task first, since it can be
// given back, then the user. A retry that is granted is shown like any other.
func (c *calls) Ask(ctx context.Context, after error, latest time.Time) (at time.Time, back func(), err error) {
	at, back = time.Now(), func() {}
	if c.w == nil {
		return at, back, nil
	}
	asked := &askOnce{w: c.w, k: c.k, d: c.d}
	if err := asked.takeTask(ctx, verdict{}); err != nil {
		return at, back, err
	}
	if asked.noTask {
		return at, back, &mulligan.DeniedError{Reason: mulligan.TaskBudget}
	}
	back = func() {
		ctx, cancel := afterwards(ctx)
		defer cancel()
		asked.settle(ctx, verdict{Verb: drop})
	}
	if c.d.hasUser {
		place, err := c.w.users.Take(ctx, c.d.env.User, at, sooner(latest, c.d.deadline))
		if err == nil && place.Denied {
			err = &mulligan.DeniedError{Reason: mulligan.UserBudget}
		}
		if err != nil {
			back()
			return at, back, err
		}
		at = place.At
	}
	c.show(after, time.Until(at))
	return at, back, nil
}

// show tells of a retry inside the handler. Its number is not known: the attempt
// is the handler's.
func (c *calls) show(after error, delay time.Duration) {
	kind, what, text := c.d.env.Kind, mulligan.ErrorType(after), mulligan.ErrorText(after)
	c.w.Metrics.Retry(kind, what, retry)
	c.d.line(c.w.Log.Info(), what, delay).Str("verb", string(retry)).Str("error", text).Msg(mulligan.EventRetry)
	c.w.tell(c.d, mulligan.Event{Event: mulligan.EventRetry, Attempt: c.d.tries, Verb: retry, Delay: delay, ErrorType: what, Error: text})
}

func sooner(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
