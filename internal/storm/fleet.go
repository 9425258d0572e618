package storm

import (
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
)

// lateness is by how much a schedule fires late, at most.
const lateness = 250 * time.Millisecond

// fleet are Mulligan's workers as they ship, and the streams between them.
type fleet struct {
	w       *world
	policy  mulligan.Policy
	rate    budget.Rate
	workers []*worker
	users   map[string]*budget.UserState

	naks  queue // in the stream of jobs, delivered again before what is fresh
	fresh queue
	due   queue // parked retries whose time has come
	asked int   // which worker is asked first
}

// retrying is what the workers know of a job besides its attempts.
type retrying struct {
	spent    time.Duration
	last     budget.Result // of the last attempt
	unasked  bool          // its user's budget is to be asked when it is due
	deadline time.Time
}

// worker is one of the fleet.
type worker struct {
	f          *fleet
	downstream *budget.Downstream
	room       budget.NakRoom
	free       int  // slots
	dueFirst   bool // next time
	wake       time.Time
}

func newFleet(w *world) *fleet {
	policy, err := mulligan.Policy{Timeout: w.c.Timeout}.Normal()
	if err != nil {
		panic(err) // no case has a timeout that no policy may have
	}
	limits, _ := budget.Limits{}.Normal() // what ships is normal
	rate, _ := budget.Rate{}.Normal()
	f := &fleet{w: w, policy: policy, rate: rate, users: map[string]*budget.UserState{}}
	for range w.c.Workers {
		d, err := budget.NewDownstream(limits, w.now)
		if err != nil {
			panic(err)
		}
		d.Share(w.now, w.c.Workers)
		f.workers = append(f.workers, &worker{f: f, downstream: d, free: limits.Slots})
	}
	return f
}

func (f *fleet) arrive(j *job) {
	j.own.deadline = f.w.now.Add(mulligan.DefaultDeadline)
	f.store(&f.fresh, j)
}

// store puts a job into a stream, from which the workers pull.
func (f *fleet) store(q *queue, j *job) {
	q.push(j)
	f.asked++
	for i := range f.workers {
		f.workers[(f.asked+i)%len(f.workers)].pull()
	}
}

// waiting reports whether there is anything to pull.
func (f *fleet) waiting() bool {
	return f.naks.first() != nil || f.fresh.first() != nil || f.due.first() != nil
}

// user is what the bucket of budgets holds of a user.
func (f *fleet) user(name string) *budget.UserState {
	if f.users[name] == nil {
		f.users[name] = &budget.UserState{}
	}
	return f.users[name]
}

// pull starts what may start: nothing while the downstream is held, and else
// retries that are due and the other jobs in turn.
func (w *worker) pull() {
	for w.free > 0 && w.f.waiting() {
		if held := w.downstream.Held(w.f.w.now); held.Why != "" {
			w.again(held)
			return
		}
		one, other := w.startFresh, w.startDue
		if w.dueFirst {
			one, other = other, one
		}
		if !one() && !other() {
			return
		}
	}
}

// again pulls when a wait is over. One that has no end ends with a call.
func (w *worker) again(wait budget.Wait) {
	now := w.f.w.now
	if wait.Until.IsZero() || w.wake.After(now) && !w.wake.After(wait.Until) {
		return
	}
	w.wake = wait.Until
	w.f.w.at(wait.Until, w.pull)
}

// startFresh starts a nak that came back, else a fresh job, if there is one. Which
// of the two it is, the worker knows only once it may start.
func (w *worker) startFresh() (started bool) {
	now := w.f.w.now
	q, j := &w.f.naks, w.f.naks.first()
	if j == nil {
		q, j = &w.f.fresh, w.f.fresh.first()
	}
	if j == nil {
		return false
	}
	permit, wait := w.downstream.Start(now, nil)
	if wait.Why != "" {
		w.again(wait)
		return false
	}
	if q.pop(); q == &w.f.naks {
		permit.Retry(now, j.own.last)
	}
	w.dueFirst = true
	w.attempt(j, permit)
	return true
}

// startDue starts a retry that is due, if there is one and a token for it. It
// reports true, too, if it found that the retry's user has to wait.
func (w *worker) startDue() (started bool) {
	now, j := w.f.w.now, w.f.due.first()
	if j == nil {
		return false
	}
	token, wait := w.downstream.Take(now, budget.Failed)
	if token == nil {
		w.again(wait)
		return false
	}
	if j.own.unasked && !w.askUser(j) {
		token.Back(now)
		return true
	}
	token.After(now, j.own.last)
	permit, wait := w.downstream.Start(now, token)
	if wait.Why != "" {
		token.Back(now)
		w.again(wait)
		return false
	}
	w.f.due.pop()
	w.dueFirst = false
	w.attempt(j, permit)
	return true
}

// askUser asks the budget of the user of the retry that is due next. If that has
// no place now, the retry is deferred or spent.
func (w *worker) askUser(j *job) (now bool) {
	at := w.f.w.now
	place := w.f.user(j.user).Take(w.f.rate, budget.Want{Now: at, Due: at, Deadline: j.own.deadline})
	j.own.unasked = false
	switch {
	case place.Denied:
		w.f.due.pop()
		w.f.w.settle(j, false)
	case place.At.After(at):
		w.f.due.pop()
		w.f.park(j, place.At)
	default:
		return true
	}
	return false
}

// park stores a retry until it is due.
func (f *fleet) park(j *job, due time.Time) {
	late := time.Duration(f.w.chance.Int64N(int64(lateness)))
	f.w.at(due.Add(late), func() { f.store(&f.due, j) })
}

func (w *worker) attempt(j *job, permit budget.Permit) {
	w.free--
	began := w.f.w.now
	timeout := min(w.f.policy.Timeout, w.f.policy.Total-j.own.spent, j.own.deadline.Sub(began))
	w.f.w.try(j, timeout, func(err error) {
		o := budget.OutcomeOf(err)
		o.User = j.user
		permit.End(w.f.w.now, o)
		w.free++
		j.own.last, j.own.spent = o.Result, j.own.spent+w.f.w.now.Sub(began)
		w.judge(j, err)
		w.pull()
	})
}

// judge decides what becomes of a job whose attempt has ended, and does it.
func (w *worker) judge(j *job, err error) {
	chance := mulligan.Chance{U: w.f.w.chance.Float64(), V: w.f.w.chance.Float64()}
	v := w.f.policy.Judge(mulligan.Ended{Number: j.attempts, Spent: j.own.spent, Effect: mulligan.Pure}, err, chance)
	if v.Verb == mulligan.Retry {
		v = w.plan(j, v)
		j.own.spent += v.Delay // none if it was refused
	}
	switch v.Verb {
	case mulligan.Nak:
		w.f.w.at(v.Due, func() { w.f.store(&w.f.naks, j) })
	case mulligan.Park, mulligan.Defer:
		j.own.unasked = v.Unasked
		w.f.park(j, v.Due)
	default:
		w.f.w.settle(j, v.Verb == mulligan.Ack)
	}
}

// plan asks the budgets for a retry, in the worker's order: first what can be
// given back for certain, then the user.
func (w *worker) plan(j *job, v mulligan.Verdict) mulligan.Verdict {
	now := w.f.w.now
	due := now.Add(v.Delay)
	soon := v.Delay <= mulligan.MaxNak
	g := mulligan.Grant{Now: now, Deadline: j.own.deadline, Unasked: !soon}
	var token *budget.Token
	took := soon && w.room.Take(now, due)
	if took {
		token, _ = w.downstream.Take(now, j.own.last)
		g.Nak = token != nil
	}
	if soon {
		place := w.f.user(j.user).Take(w.f.rate, budget.Want{Now: now, Due: due, Deadline: j.own.deadline})
		g.Place, g.Denied = place.At, place.Denied
	}
	v = v.Under(g)
	if v.Verb != mulligan.Nak {
		token.Back(now)
		if took {
			w.room.Back(due)
		}
	}
	return v
}

// queue is a stream, first in, first out.
type queue struct{ jobs []*job }

func (q *queue) push(j *job) { q.jobs = append(q.jobs, j) }
func (q *queue) pop()        { q.jobs = q.jobs[1:] }
func (q *queue) first() *job {
	if len(q.jobs) == 0 {
		return nil
	}
	return q.jobs[0]
}
