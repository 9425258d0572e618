package consumer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/internal/clock"
	"github.com/mulligan-queue/mulligan/internal/pause"
)

// What ends a call that waits better in the queue.
var (
	errNoPlace = errors.New("the user has no place for a retry soon")
	errNoToken = errors.New("no token for a retry, and others wait for one")
)

// calls is what [mulligan.Policy.Do] asks in one call of a handler, and what it
// tells: the budget of the downstream of its kind, whose permit the job may hold
// already, those of its task and user, and what the job has left. Whatever the
// handler makes of an error, what happened is known from here. It is safe for
// concurrent use.
type calls struct {
	budget.Calls
	w       *Worker // nil in a rehearsal, which has no budgets
	k       *handled
	d       *delivery
	steps   *steps
	clock   *clock.Clock
	started time.Time     // by this machine's
	retries int           // that the kind's policy leaves the job
	total   time.Duration // that it leaves it

	tries int          // the number of the handler's attempt
	job   mulligan.Job // as the handler has it

	mu      sync.Mutex
	own     own                     // the handler's permit
	has     bool                    // the handler has it: no call has, and it has not ended
	lent    bool                    // a call has it
	last    int                     // of open
	open    map[int]func(err error) // end the permits of calls that are under way
	worked  bool                    // a call with it succeeded
	over    bool                    // the handler has returned
	until   time.Time               // by this machine's clock, as started: a downstream asked to wait
	waiting int                     // calls that wait for a budget
	since   time.Time               // they do
	called
}

// called is what calls did in a handler.
type called struct {
	ran    int           // attempts that ended by themselves
	failed int           // those of them that failed
	again  int           // retries, those that run included
	begun  bool          // an attempt succeeded, or left a doubt
	hint   time.Duration // from the end of the handler, until a downstream that asked to wait may be called again
	waited time.Duration // for budgets
}

// tries is how many attempts of the job the handler stands for.
func (c called) tries() int { return 1 + c.again }

// calling returns what the calls in the handler of d's job go by.
func (w *Worker) calling(k *handled, d *delivery, s *steps, rec *mulligan.Record, began time.Time) *calls {
	c := &calls{w: w, k: k, d: d, steps: s, started: began, tries: d.tries, retries: k.Policy.Attempts - d.tries,
		total: k.Policy.Total - rec.Spent}
	c.clock = &w.clock
	c.Calls = budget.Calls{Downstream: d.lane.calls, User: d.env.User}
	c.own, c.has = own{d: d}, true
	return c
}

// own is a handler's permit: that of its job, or of a call that has kept it.
type own struct {
	d    *delivery
	kept func(err error)
}

func (o own) end(err error) {
	if o.kept != nil {
		o.kept(err)
		return
	}
	ended := budget.OutcomeOf(err)
	ended.User = o.d.env.User
	o.d.permit.End(time.Now(), ended)
}

// hand returns the job for the handler. It gets copies: what it writes into them
// must not be parked.
func (c *calls) hand(input []byte) *mulligan.Job {
	c.job = c.d.env.Job
	c.job.Attempt, c.job.AttemptsMax = c.tries, c.k.Policy.Attempts
	c.job.Payload, c.job.Header = bytes.Clone(input), make(nats.Header, len(c.job.Header))
	for name, values := range c.d.env.Header {
		c.job.Header[name] = slices.Clone(values)
	}
	if c.steps != nil { // a pure kind has none
		c.job.Steps = c.steps
	}
	return &c.job
}

func (c *calls) in(ctx context.Context) context.Context { return mulligan.WithDownstream(ctx, c) }

// Start lets the first attempt of a call have the handler's own permit, if no
// other has it; every other takes one of its own. The permit of one that succeeds
// is the handler's again: what it does then it does with it, and how that ends is
// told at its end. The first attempt of a call beside another goes along with that
// one's permit: were it to wait for another, handlers that each hold one would wait
// for each other. While retries that are due wait for a token, a call does not:
// they come first, and the slot is needed.
func (c *calls) Start(ctx context.Context, a mulligan.CallStart) (end func(err error), err error) {
	permit, beside := c.take(a)
	if l := c.d.lane; permit == nil && !beside && l != nil {
		if a.After != nil && l.short.Load() {
			return nil, fmt.Errorf("downstream %s: %w", l.downstream, errNoToken)
		}
		if permit, err = c.Calls.Start(ctx, a); err != nil {
			return nil, fmt.Errorf("downstream %s: %w", l.downstream, err)
		}
	}
	if permit == nil {
		permit = func(error) {} // beside another call, or in a rehearsal
	}
	id := c.began(permit)
	return func(err error) {
		c.ended(id)
		if beside || err != nil || !c.keep(permit) {
			permit(err)
		}
	}, nil
}

func (c *calls) began(permit func(err error)) (id int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[int]func(err error){}
	}
	c.last++
	c.open[c.last] = permit
	return c.last
}

func (c *calls) ended(id int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, id)
}

// expire ends the permits of the handler and of its calls: its time is up, and
// what hangs on must not be the probe for ever.
func (c *calls) expire() {
	c.mu.Lock()
	ends := slices.Collect(maps.Values(c.open))
	if c.has {
		ends = append(ends, c.own.end)
	}
	c.mu.Unlock()
	for _, end := range ends {
		end(context.DeadlineExceeded)
	}
}

// take takes the handler's own permit for a first attempt, or says that it goes
// along beside the call that has it.
func (c *calls) take(a mulligan.CallStart) (own func(err error), beside bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case a.After != nil || c.over:
	case c.has:
		lent := c.own
		c.has, c.lent = false, true
		return func(err error) {
			c.back()
			lent.end(err)
		}, false
	case c.lent:
		return nil, c.d.lane == nil || c.d.lane.calls.Held(time.Now()).Why == ""
	}
	return nil, false
}

// back notes that the call that had the handler's permit has ended it.
func (c *calls) back() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lent = false
}

func (c *calls) keep(end func(err error)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.has || c.over {
		return false
	}
	c.own, c.has, c.worked, c.lent = own{kept: end}, true, true, false
	return true
}

// finish ends the handler's own permit with its error and says what its calls
// did. What goes on without the handler has no permit of it.
func (c *calls) finish(err error) called {
	c.mu.Lock()
	own, has, did := c.own, c.has, c.called
	if !c.until.IsZero() {
		did.hint = max(time.Until(c.until), 0)
	}
	c.has, c.over = false, true
	if n := len(c.open); n > 0 { // they go on without the handler
		did.begun, did.ran = true, did.ran+n
	}
	if c.waiting > 0 {
		did.waited += time.Since(c.since)
	}
	if c.worked && mulligan.MeaningOf(err).Called { // what failed was told, and not with this permit
		err = nil
	}
	c.mu.Unlock()
	if has {
		own.end(err)
	}
	return did
}

// Rules says what repeating a call of the job would do, and what it has left.
func (c *calls) Rules() (a mulligan.Ended, left time.Duration, deadline time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	left = c.total
	if !c.over {
		left -= time.Since(c.started) - c.waited
	}
	return mulligan.Ended{Number: c.tries, Effect: c.d.effect, NoKey: c.d.noKey, Stepped: c.steps.safe()}, left, time.Now().Add(c.clock.Until(c.d.deadline))
}

// shortest is how long a call may wait in any case: no budget answers at once.
const shortest = 100 * time.Millisecond

// Wait bounds the waiting for budgets in the handler to what a nak could wait
// for: its slot is needed, and the queue waits better.
func (c *calls) Wait(ctx context.Context) (patient context.Context, done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting++; c.waiting == 1 {
		c.since = time.Now()
	}
	patient, cancel := context.WithTimeout(ctx, max(mulligan.MaxNak-c.waited, shortest))
	return patient, func() {
		cancel()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.waiting--; c.waiting == 0 {
			c.waited += time.Since(c.since)
		}
	}
}

// Tried notes how an attempt of a call ended.
func (c *calls) Tried(err error, again, cut bool) {
	m := mulligan.MeaningOf(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun = c.begun || err == nil || m.LeavesDoubt()
	if until := time.Now().Add(m.Hint); m.Throttled && until.After(c.until) {
		c.until = until
	}
	switch {
	case !cut:
		c.ran++
		if err != nil {
			c.failed++
		}
	case again:
		c.again--
	}
}

// Retry asks for a retry of a call that is due now: of the job's attempts first,
// then of its task, since they can be given back, then a place of the user. One
// that has no place soon waits in the queue. A retry that is granted is shown like
// any other.
func (c *calls) Retry(ctx context.Context, after error) (denied mulligan.Reason, err error) {
	if !c.more() {
		return mulligan.AttemptsExhausted, nil
	}
	defer func() {
		if denied != "" || err != nil {
			c.less()
		}
	}()
	if c.w == nil {
		c.steps.again()
		return "", ctx.Err()
	}
	asked := &askOnce{w: c.w, k: c.k, d: c.d}
	if err := asked.takeTask(ctx, verdict{}); err != nil {
		return "", err
	}
	if asked.noTask {
		return mulligan.TaskBudget, nil
	}
	at, err := c.place(ctx)
	if err != nil {
		late, cancel := afterwards(ctx)
		defer cancel()
		asked.settle(late, verdict{Verb: drop})
		return "", err
	}
	c.steps.again()
	c.show(after, time.Since(at))
	return "", nil
}

func (c *calls) more() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.again >= c.retries {
		return false
	}
	c.again++
	return true
}

func (c *calls) less() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.again--
}

// place waits for the user's next place, if there is one before ctx ends, and
// says when it began to.
func (c *calls) place(ctx context.Context) (began time.Time, err error) {
	began = time.Now()
	if !c.d.hasUser {
		return began, ctx.Err()
	}
	until := c.d.deadline
	if end, ok := ctx.Deadline(); ok {
		until = earlier(until, c.clock.Now().Add(time.Until(end)))
	}
	place, err := c.w.users.Take(ctx, c.d.env.User, c.clock.Now(), until)
	switch {
	case err != nil:
		return began, err
	case place.Denied:
		return began, errNoPlace
	}
	return began, pause.For(ctx, c.clock.Until(place.At))
}

// show tells of a retry inside the handler, which waited for its user. Its number
// is not known: the attempt is the handler's.
func (c *calls) show(after error, delay time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return // the worker reports for the handler
	}
	kind, what, text := c.d.env.Kind, mulligan.ErrorType(after), mulligan.ErrorText(after)
	c.w.Metrics.Retry(kind, what, retry)
	c.d.line(c.w.Log.Info(), what, delay).Str("verb", string(retry)).Str("error", text).Msg(mulligan.EventRetry)
	c.w.tell(c.d, mulligan.Event{Event: mulligan.EventRetry, Attempt: c.tries, Verb: retry, Delay: delay, ErrorType: what, Error: text})
}
