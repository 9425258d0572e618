package consumer

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/metrics"
)

// Downstream has the settings of one downstream. A zero field means the default.
type Downstream struct {
	// Concurrency is how many of its jobs run at once in this worker; zero means
	// the worker's.
	Concurrency int
	// Ratio, Cap and Floor bound its retries, as in [budget.Limits].
	Ratio, Cap, Floor float64
	// Capacity is how many calls per second it can serve, and Peak how many first
	// attempts per second come at most, of all workers; zero means not known. With
	// them a worker warns at its start if retries could keep the downstream down;
	// see [budget.StormWarnings]. Nothing else depends on them.
	Capacity, Peak float64
}

const maxRate = 1e9 // calls per second that mean anything

// Validate reports, as an error that names the field, what cannot be.
func (d Downstream) Validate() error {
	_, err := d.limits(d.Concurrency).Normal()
	switch {
	case err != nil:
		return err
	case !(d.Capacity >= 0 && d.Capacity <= maxRate) || !(d.Peak >= 0 && d.Peak <= maxRate):
		return fmt.Errorf("capacity %v or peak %v per second is not between 0 and %v", d.Capacity, d.Peak, maxRate)
	}
	return nil
}

func (d Downstream) limits(concurrency int) budget.Limits {
	return budget.Limits{Ratio: d.Ratio, Cap: d.Cap, Floor: d.Floor, Slots: concurrency}
}

// limits are those of a downstream in this worker.
func (w *Worker) limits(downstream string) budget.Limits {
	d := w.Downstreams[downstream]
	return d.limits(cmp.Or(d.Concurrency, w.Concurrency))
}

// warn says which downstreams a storm of retries could keep down.
func (w *Worker) warn() {
	for _, l := range w.lanes {
		for _, line := range l.warnings() {
			w.Log.Warn().Str("downstream", l.downstream).Msg(line)
		}
	}
}

func (l *lane) warnings() []string {
	set := l.w.Downstreams[l.downstream]
	load := budget.Load{Downstream: l.downstream, Limits: l.w.limits(l.downstream), Capacity: set.Capacity, Peak: set.Peak}
	for _, k := range l.w.kinds {
		if k.Downstream == l.downstream && (load.Timeout == 0 || k.Policy.Timeout < load.Timeout) {
			load.Timeout = k.Policy.Timeout
		}
	}
	return budget.StormWarnings(int(l.peers.Load()), load)
}

// enter waits until the downstream lets a call of d start, or ctx ends.
func (l *lane) enter(ctx context.Context, d *delivery) error {
	return l.calls.Await(ctx, func(now time.Time) (w budget.Wait) {
		if d.permit, w = l.calls.Start(now, d.token); w.Why == budget.TokenUsed {
			return budget.Wait{} // given back meanwhile, for having waited too long: it will not begin
		}
		return w
	})
}

// leave gives back what is left of the permits of d: all of them, if it did not
// run.
func (l *lane) leave(d *delivery) {
	now := time.Now()
	d.permit.End(now, budget.Outcome{})
	d.token.Back(now)
	l.notice(now, "")
}

// takeToken takes the token of a retry that is to be a nak, or returns nil.
// Retries that are due come first.
func (l *lane) takeToken(now time.Time, after budget.Result) *budget.Token {
	if l.short.Load() {
		return nil
	}
	t, _ := l.calls.Take(now, after)
	return t
}

// tokens waits until the downstream is not held and there is the token of one
// retry, then takes those of up to n that are there at once.
func (l *lane) tokens(ctx context.Context, n int) (taken []*budget.Token) {
	err := l.calls.Await(ctx, func(now time.Time) budget.Wait {
		if held := l.calls.Held(now); held.Why != "" {
			return held
		}
		t, w := l.calls.Take(now, budget.Failed)
		if l.short.Store(t == nil); t != nil {
			taken = append(taken, t)
		}
		return w
	})
	for err == nil && len(taken) < n {
		t, _ := l.calls.Take(time.Now(), budget.Failed)
		if t == nil {
			break
		}
		taken = append(taken, t)
	}
	return taken
}

// tell tells the downstream whether the call of d, which begins, is a retry, and
// of what. Its token is used by that, however the call ends.
func (d *delivery) tell(r *mulligan.Record, now time.Time) {
	paid := d.token != nil
	d.token = nil
	switch {
	case !r.Retried():
		if paid {
			d.permit.First(now)
		}
	case r.Throttled():
		d.permit.Retry(now, budget.Throttled)
	default:
		d.permit.Retry(now, budget.Failed)
	}
}

// An alarm ends the permits of a handler that goes on after its time is up: one
// that does not heed its context has its slot, but must not be the probe for ever.
// A slot sets the same alarm for each of its jobs, one after the other: its timer
// runs on when a job ends, and is set again when it is over, or for an earlier time.
type alarm struct {
	lane *lane

	mu    sync.Mutex
	of    *calls // nil while none is set
	at    time.Time
	rang  bool
	timer *time.Timer
	runs  time.Time // when the timer is over; zero if it is not set
}

// set has the alarm ring for c at a time, unless it is stopped before.
func (a *alarm) set(at time.Time, c *calls) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.of, a.at = c, at
	if a.runs.IsZero() || at.Before(a.runs) {
		a.run()
	}
}

func (a *alarm) run() {
	a.runs = a.at
	if a.timer == nil {
		a.timer = time.AfterFunc(time.Until(a.at), a.ring)
		return
	}
	a.timer.Reset(time.Until(a.at))
}

func (a *alarm) ring() {
	now := time.Now()
	if c := a.overdue(now); c != nil {
		c.expire()
		a.lane.notice(now, "timeout")
	}
}

// overdue returns the calls of a handler whose time is up. The timer may have been
// set for one before it.
func (a *alarm) overdue(now time.Time) *calls {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.runs = time.Time{}
	switch {
	case a.of == nil || a.rang:
		return nil
	case now.Before(a.at):
		a.run()
		return nil
	}
	a.rang = true
	a.lane.overdue.Add(1)
	return a.of
}

// end stops the timer when there are no more jobs.
func (a *alarm) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Stop()
	}
}

func (a *alarm) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rang {
		a.lane.overdue.Add(-1)
	}
	a.of, a.rang = nil, false
}

// told is what the downstream learns of the call of d. One that was given less
// time than the policy gives one tells nothing by running out of it, and neither
// does one that the shutdown cut.
func (d *delivery) told(ctx context.Context, err error, cut bool) error {
	cut = cut && mulligan.ErrorType(err) == "timeout" || ctx.Err() != nil
	if err != nil && cut && !mulligan.MeaningOf(err).Deliberate() {
		return context.Canceled
	}
	return err
}

// notice logs how the breaker stands, when that has changed; lately is the type of
// the error with which a call has just ended, if any.
func (l *lane) notice(now time.Time, lately string) {
	// Looked at under the lock: of two calls that end at once the one that looked
	// first must not have the last word.
	l.mu.Lock()
	s, was, spared := l.calls.State(now), l.phase, l.spared
	l.phase, l.spared = s.Breaker, s.OneUser
	l.mu.Unlock()
	if s.Breaker == was && s.OneUser == spared {
		return
	}
	log := l.w.Log.With().Str("downstream", l.downstream).Str("error_type", lately).Logger()
	if s.OneUser != spared && s.OneUser != "" {
		log.Warn().Str("why", string(s.OneUser)).Msg("the downstream would be held, but for one user's calls alone it is not; if all jobs are one user's, name none")
	}
	if s.Breaker == was {
		return
	}
	until := l.calls.Held(now).Until
	switch s.Breaker {
	case budget.PhaseCredential:
		log.Error().Time("next_probe", until).Msg("the downstream refuses the credential: renew it; its jobs wait until a probe is accepted")
	case budget.PhaseOpen:
		log.Warn().Time("next_probe", until).Msg("the downstream fails: its jobs wait, and probes decide when they go on")
	case budget.PhaseClosed:
		log.Info().Msg("the downstream works again")
	}
	if was == budget.PhaseClosed {
		l.w.Metrics.Tripped(l.downstream, string(s.Breaker))
	}
}

// state is how the downstream stands.
func (l *lane) state(now time.Time) DownstreamState {
	s, held := l.calls.State(now), l.calls.Held(now)
	if held.Why == "" && s.Breaker == budget.PhaseHalfOpen {
		held.Why = budget.ProbeTaken
	}
	var stuck []Stuck
	for _, from := range l.sources() {
		if s := from.watch.Stuck(); s != nil {
			stuck = append(stuck, *s)
		}
	}
	return DownstreamState{Name: l.downstream, Held: string(held.Why), Until: held.Until, CredentialRefused: s.Breaker == budget.PhaseCredential,
		OneUser: string(s.OneUser), InHand: l.w.hand.count(l), Limit: s.Limit, InFlight: s.InFlight, Tokens: s.Tokens, Stuck: stuck, Warnings: l.warnings()}
}

// shown is the same for metrics.
func (l *lane) shown() metrics.Downstream {
	s := l.state(time.Now())
	stuck := map[string]time.Time{}
	for _, one := range s.Stuck {
		stuck[one.Why] = one.Since
	}
	return metrics.Downstream{Stuck: stuck, Held: s.Held, CredentialRefused: s.CredentialRefused, InHand: s.InHand, Limit: s.Limit, InFlight: s.InFlight, Tokens: s.Tokens}
}
