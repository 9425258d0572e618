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
	c := &calls{w: w, k: k, d: d, steps: s}
	c.User = d.env.User
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
// given back, then the user.
func (c *calls) Ask(ctx context.Context, latest time.Time) (at time.Time, back func(), err error) {
	now := time.Now()
	if c.w == nil {
		return now, func() {}, nil
	}
	asked := &askOnce{w: c.w, k: c.k, d: c.d}
	if err := asked.takeTask(ctx, verdict{}); err != nil {
		return now, nil, err
	}
	if asked.noTask {
		return now, nil, &mulligan.DeniedError{Reason: mulligan.TaskBudget}
	}
	back = func() {
		ctx, cancel := afterwards(ctx)
		defer cancel()
		asked.settle(ctx, verdict{Verb: drop})
	}
	if !c.d.hasUser {
		return now, back, nil
	}
	if c.d.deadline.Before(latest) {
		latest = c.d.deadline
	}
	place, err := c.w.users.Take(ctx, c.d.env.User, now, latest)
	if err == nil && place.Denied {
		err = &mulligan.DeniedError{Reason: mulligan.UserBudget}
	}
	if err != nil {
		back()
		return now, nil, err
	}
	return place.At, back, nil
}
