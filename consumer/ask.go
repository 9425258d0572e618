package consumer

import (
	"context"
	"errors"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
)

// askOnce asks the budgets for one retry: the worker's own permits first, since
// they can be given back for certain, then the task, then the user. A retry that
// is parked needs no token of its downstream yet: one is taken when it is due,
// before it is pulled. The answer is
// kept for when the record has to be written again; what came to nothing is given
// back.
type askOnce struct {
	w         *Worker
	k         *handled
	d         *delivery
	throttled bool // as the attempt ended
	asked     bool
	now, due  time.Time // by the clock that all share
	here      time.Time // the moment of now by this machine's
	delay     time.Duration

	nak    bool // a place for a nak was taken, and the downstream's token
	token  *budget.Token
	task   budget.TaskAsk // taken, if it names a task
	noTask bool           // the task has no retry left
	place  budget.Place
	err    error
}

func (a *askOnce) grant(ctx context.Context, v verdict, now time.Time) (mulligan.Grant, error) {
	if v.Verb != retry {
		return mulligan.Grant{Now: now, Deadline: a.d.deadline}, nil
	}
	if !a.asked {
		a.now, a.due, a.here, a.delay = now, now.Add(v.Delay), time.Now(), v.Delay
		a.asked = a.due.Before(a.d.deadline) // else it is spent anyway: take nothing
		if a.asked {
			a.err = a.take(ctx, v)
		}
	}
	return mulligan.Grant{Now: a.now, Deadline: a.d.deadline, Nak: a.nak, Place: a.place.At, Denied: a.place.Denied,
		NoTask: a.noTask, Unasked: a.d.hasUser && v.Delay > mulligan.MaxNak}, a.err
}

// take asks. A retry that comes later than soon asks for its user when it is due:
// a place taken now for then would let all with one long hint come back together,
// or push back what is due before them.
func (a *askOnce) take(ctx context.Context, v verdict) error {
	soon := v.Delay <= mulligan.MaxNak
	a.nak = soon && a.takeNak()
	if err := a.takeTask(ctx, v); err != nil || a.noTask {
		return err
	}
	if !soon || !a.d.hasUser {
		return nil
	}
	var err error
	a.place, err = a.w.users.Take(ctx, a.d.env.User, a.due, a.d.deadline)
	return err
}

// takeNak takes a place for a nak and a token for the retry, both or none. What
// was pulled among the retries that are due comes back there, where nothing is
// pulled without a token.
func (a *askOnce) takeNak() bool {
	if !a.k.naks.Take(a.here, a.here.Add(a.delay)) {
		return false
	}
	if a.d.from == a.d.lane.due {
		return true
	}
	after := budget.Failed
	if a.throttled {
		after = budget.Throttled
	}
	if a.token = a.d.lane.takeToken(a.here, after); a.token == nil {
		a.k.naks.Back(a.here.Add(a.delay))
	}
	return a.token != nil
}

// takeTask asks for a retry of the task; one with a changed payload counts twice.
func (a *askOnce) takeTask(ctx context.Context, v verdict) error {
	job := &a.d.env.Job
	if job.Task == "" {
		return nil
	}
	ask := budget.TaskAsk{Task: job.Task, Retries: 1, Limit: job.TaskRetries}
	if ask.Limit == 0 {
		ask.Limit = mulligan.DefaultTaskRetries
	}
	if v.Changed != nil {
		ask.Retries = 2
	}
	granted, err := a.w.tasks.Take(ctx, ask)
	if errors.Is(err, budget.ErrUnreadable) { // it must not be granted blindly, and no waiting mends it
		a.d.line(a.w.Log.Error(), string(mulligan.TaskBudget), 0).Err(err).Msg("a retry is refused")
		err = nil
	}
	if granted {
		a.task = ask
	}
	a.noTask = !granted && err == nil
	return err
}

// settle gives back what was taken if it came to something else.
func (a *askOnce) settle(ctx context.Context, v verdict) {
	if a.nak && v.Verb != nak {
		a.k.naks.Back(a.here.Add(a.delay))
		a.token.Back(a.here)
	}
	a.w.Metrics.NaksWaiting(a.k.Name, a.k.naks.Waiting(time.Now()))
	if a.task.Task != "" && v.Verb != nak && v.Verb != park && v.Verb != deferred {
		if err := a.w.tasks.Back(ctx, a.task); err != nil {
			a.d.line(a.w.Log.Warn(), string(v.Reason), 0).Err(err).Msg("a retry of its task is wasted")
		}
	}
}
