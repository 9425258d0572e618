package consumer

import (
	"context"
	"time"

	"github.com/mulligan-queue/mulligan/budget"
)

// askOnce asks the budgets for one retry: the worker's own permit first, since
// it can be given back for certain, then the user's rate. The answer is kept
// for when the record has to be written again.
type askOnce struct {
	w     *Worker
	k     handled
	d     *delivery
	asked bool
	took  bool // a place for a nak
	now   time.Time
	due   time.Time
	place budget.Place
	err   error
}

func (a *askOnce) grant(ctx context.Context, v verdict, now time.Time) (grant, error) {
	if v.verb != retry {
		return grant{now: now, deadline: a.d.deadline}, nil
	}
	if !a.asked {
		a.now, a.due = now, now.Add(v.delay)
		a.asked = a.due.Before(a.d.deadline) // else it is spent anyway: take nothing
		if a.asked {
			a.err = a.take(ctx, v)
		}
	}
	return grant{now: a.now, deadline: a.d.deadline, nak: a.took, place: a.place.At, denied: a.place.Denied, unasked: a.d.hasUser && v.delay > maxNak}, a.err
}

// take asks for a retry that comes soon. One that comes later asks for its user
// when it is due: a place taken now for then would let all with one long hint
// come back together, or push back what is due before them.
func (a *askOnce) take(ctx context.Context, v verdict) error {
	if v.delay > maxNak {
		return nil
	}
	a.took = a.k.naks.take(a.now, a.due, int(a.w.peers.Load()))
	if !a.d.hasUser {
		return nil
	}
	var err error
	a.place, err = a.w.users.Take(ctx, a.d.env.User, a.due, a.d.deadline)
	return err
}

// settle gives back the place for a nak if it came to something else.
func (a *askOnce) settle(v verdict) {
	if a.took && v.verb != nak {
		a.k.naks.back(a.now, a.due)
	}
	a.w.Metrics.NaksWaiting(a.k.Name, a.k.naks.waiting(time.Now()))
}
