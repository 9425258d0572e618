package consumer

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
)

// A job that holds its permit already: its downstream lets one call in at once.
func TestTheFirstCallOfAHandlerTakesOverItsJobsPermit(t *testing.T) {
	flaky := func(n int) func(context.Context) error {
		return func(context.Context) error {
			if n--; n >= 0 {
				return errFlaky
			}
			return nil
		}
	}
	policy, err := mulligan.DurablePolicy().Normal()
	if err != nil {
		t.Fatal(err)
	}
	do := func(ctx context.Context, fn func(context.Context) error) error { return mulligan.Policy{}.Do(ctx, fn) }
	for _, tt := range []struct {
		name    string
		handler func(ctx context.Context, d *budget.Downstream) error
		err     error
		tokens  float64 // of five, at first
	}{
		{"a handler without a call ends with its own error", func(context.Context, *budget.Downstream) error { return nil }, nil, 5.1},
		{"a call ends the job's permit with its own", func(ctx context.Context, _ *budget.Downstream) error { return do(ctx, flaky(0)) }, nil, 5.1},
		{"a handler that fails behind its call is a failure", func(ctx context.Context, _ *budget.Downstream) error {
			return errors.Join(do(ctx, flaky(0)), errFlaky)
		}, errFlaky, 5},
		{"a call that fails behind one that succeeds leaves that a success", func(ctx context.Context, _ *budget.Downstream) error {
			return errors.Join(do(ctx, flaky(0)), do(mulligan.WithDownstream(ctx, budget.Calls{}), flaky(9)))
		}, errFlaky, 5.1},
		{"a retry takes a permit and a token of its own", func(ctx context.Context, _ *budget.Downstream) error { return do(ctx, flaky(1)) }, nil, 5},
		{"one call behind the other has the same permit", func(ctx context.Context, _ *budget.Downstream) error {
			return errors.Join(do(ctx, flaky(0)), do(ctx, flaky(0)))
		}, nil, 5.1},
		{"a call within a call has the permit too", func(ctx context.Context, _ *budget.Downstream) error {
			return do(ctx, func(ctx context.Context) error { return do(ctx, flaky(0)) })
		}, nil, 5.1},
		{"a call of another downstream leaves it alone", func(ctx context.Context, d *budget.Downstream) error {
			err := do(mulligan.WithDownstream(ctx, budget.Calls{}), flaky(0))
			if d.State(time.Now()).InFlight != 1 {
				err = errors.New("the job's permit is gone")
			}
			return err
		}, nil, 5.1},
		{"a panic leaves nothing", func(ctx context.Context, _ *budget.Downstream) error {
			return do(ctx, func(context.Context) error { panic("nil map") })
		}, nil, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, err := budget.NewDownstream(budget.Limits{Slots: 1, Floor: 0.001}, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				for range 5 {
					if _, w := d.Take(time.Now(), budget.Failed); w.Why != "" {
						t.Fatal(w)
					}
				}
				permit, w := d.Start(time.Now(), nil)
				c := new(Worker).calling(&handled{Kind: mulligan.Kind{Policy: policy}}, &delivery{lane: &lane{calls: d}, permit: permit, facts: facts{deadline: time.Now().Add(time.Hour)}}, &steps{}, &mulligan.Record{}, time.Now())
				c.w = nil
				if w.Why != "" {
					t.Fatal(w)
				}
				ctx, cancel := context.WithTimeout(c.in(t.Context()), time.Minute)
				defer cancel()
				func() { // as the worker does
					defer func() {
						if p := recover(); p != nil {
							err = mulligan.Typed("panic", fmt.Errorf("panic: %v", p))
						}
						c.finish(err)
					}()
					err = tt.handler(ctx, d)
				}()
				if tt.err != nil && !errors.Is(err, tt.err) || tt.err == nil && err != nil && mulligan.ErrorType(err) != "panic" {
					t.Errorf("got %v, want %v", err, tt.err)
				}
				if s := d.State(time.Now()); s.InFlight != 0 || s.Tokens < tt.tokens-0.001 || s.Tokens > tt.tokens+0.01 {
					t.Errorf("%v tokens and %d calls in flight, want %v and none", s.Tokens, s.InFlight, tt.tokens)
				}
			})
		})
	}
}

func TestTheRecordCountsWhatACallTried(t *testing.T) {
	failed := func(n int, why mulligan.Reason, err error) error {
		return &mulligan.CallError{Reason: why, Attempts: n, NotStarted: n == 0, Err: err}
	}
	did := func(n int) called { return called{ran: n, failed: n, again: n - 1} }
	later := func(n int, err error) error { return mulligan.Later(failed(n, mulligan.TimeExhausted, err)) }
	for _, tt := range []struct {
		name           string
		err            error
		ran            called
		verb           mulligan.Verb
		attempts       int           // of one before
		number, tries  int           // of the entry
		spent          time.Duration // without the delay
		callMayHaveRun bool
	}{
		{"a failure is one attempt", errFlaky, called{}, park, 2, 2, 0, time.Second, true},
		{"a call that goes on later counts its attempts", later(2, errFlaky), did(2), park, 3, 3, 2, time.Second, true},
		{"a call that was never made is one attempt of the handler", mulligan.Later(&mulligan.CallError{Reason: mulligan.Expired, NotStarted: true}), called{}, park, 2, 2, 0, time.Second, false},
		{"attempts of the call are the job's last ones", later(3, errFlaky), did(3), spend, 4, 4, 3, time.Second, true},
		{"a call's failure ends the job with its attempts", failed(2, mulligan.AttemptsExhausted, errFlaky), did(2), spend, 3, 3, 2, time.Second, true},
		{"a snooze costs nothing", failed(1, mulligan.Snoozed, mulligan.Snooze(time.Minute)), did(1), deferred, 1, 1, 0, 100 * time.Millisecond, false},
		{"a snooze costs the attempts before it", failed(3, mulligan.Snoozed, mulligan.Snooze(time.Minute)), did(3), deferred, 3, 3, 3, time.Second, true},
		{"attempts count whatever the handler makes of them", errFlaky, did(2), park, 3, 3, 2, time.Second, true},
		{"and however many calls they were of", errors.Join(failed(2, mulligan.Cancelled, errFlaky), failed(2, mulligan.Cancelled, errFlaky)), called{ran: 4, failed: 4, again: 2}, spend, 4, 4, 3, time.Second, true},
		{"a handler whose call waited in vain costs nothing", failed(0, mulligan.Held, nil), called{}, deferred, 1, 1, 0, 100 * time.Millisecond, false},
		{"a call that waited in vain behind one that ran is an attempt", failed(0, mulligan.Held, nil), did(1), park, 2, 2, 0, time.Second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := message()
			f.effect = mulligan.Keyed
			e := ending{facts: f, run: "r1", started: noon, took: 900 * time.Millisecond, err: tt.err, called: tt.ran, chance: mulligan.Chance{U: 0.5, V: 0.5}}
			r := &mulligan.Record{State: mulligan.Live, Payload: f.payload, Attempts: 1, Spent: 100 * time.Millisecond}
			ask := func(verdict) (mulligan.Grant, error) { return mulligan.Grant{Now: noon, Deadline: f.deadline}, nil }
			v, _, err := fail(r, e, ask)
			last := r.Last()
			if err != nil || v.Verb != tt.verb || r.Attempts != tt.attempts || last.Number != tt.number || last.Tries != tt.tries || r.FirstCall.IsZero() == tt.callMayHaveRun {
				t.Errorf("%s with %d attempts and %+v, first call %v (%v); want %+v", v.Verb, r.Attempts, last, r.FirstCall, err, tt)
			}
			if v.Verb == deferred {
				v.Delay = 0 // nobody's time
			}
			if want := tt.spent + v.Delay; r.Spent != want {
				t.Errorf("spent %v, want %v", r.Spent, want)
			}
		})
	}
}
