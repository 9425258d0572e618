package budget_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
)

var errDown = errors.New("down")

func TestCallsInAProcessEarnAndSpendAsJobsDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := downstream(t, budget.Limits{Cap: 2, Floor: 0.001}, time.Now())
		ctx := mulligan.WithDownstream(t.Context(), budget.Calls{Downstream: d, User: "ada"})
		tokens := func(want float64) {
			t.Helper()
			if s := d.State(time.Now()); s.Tokens < want || s.Tokens > want+0.05 || s.InFlight != 0 {
				t.Errorf("%v tokens and %d in flight, want %v and none", s.Tokens, s.InFlight, want)
			}
		}
		fail := func(n int) func(context.Context) error {
			return func(context.Context) error {
				if n--; n >= 0 {
					return errDown
				}
				return nil
			}
		}
		if err := (mulligan.Policy{Attempts: 2}).Do(ctx, fail(9)); !errors.Is(err, errDown) {
			t.Errorf("got %v", err)
		}
		tokens(1)
		if err := (mulligan.Policy{}).Do(ctx, fail(1)); err != nil {
			t.Error(err)
		}
		tokens(1) // its retry succeeded
		if err := (mulligan.Policy{}).Do(ctx, fail(0)); err != nil {
			t.Error(err)
		}
		tokens(1.1)

		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		var failed *mulligan.CallError
		if err := (mulligan.Policy{}).Do(bounded, fail(9)); !errors.As(err, &failed) || failed.Reason != mulligan.Expired || failed.Attempts != 2 || !errors.Is(err, errDown) {
			t.Errorf("without a token: %v", err)
		}
		tokens(0.1)
		if err := (mulligan.Policy{}).Do(ctx, fail(9)); !errors.As(err, &failed) || failed.Reason != mulligan.Held || failed.Attempts != 1 {
			t.Errorf("without a token and a deadline: %v", err)
		}
	})
}

func TestCallsWaitWhileTheirDownstreamIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := downstream(t, budget.Limits{}, time.Now())
		for range 20 {
			p, _ := d.Start(time.Now(), nil)
			p.End(time.Now(), budget.Outcome{Result: budget.Failed})
		}
		began := time.Now()
		ctx := mulligan.WithDownstream(t.Context(), budget.Calls{Downstream: d})
		if err := (mulligan.Policy{}).Do(ctx, func(context.Context) error { return nil }); err != nil || time.Since(began) != time.Second {
			t.Errorf("after %v: %v; the breaker was open for 1s", time.Since(began), err)
		}
	})
}

// A probe that leaked would hold its downstream for ever.
func TestAProbeThatPanicsOrIsCutShortIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := downstream(t, budget.Limits{}, time.Now())
		for range 20 {
			p, _ := d.Start(time.Now(), nil)
			p.End(time.Now(), budget.Outcome{Result: budget.Failed})
		}
		ctx, cancel := context.WithCancel(mulligan.WithDownstream(t.Context(), budget.Calls{Downstream: d}))
		func() {
			defer func() { _ = recover() }()
			_ = mulligan.Policy{}.Do(ctx, func(context.Context) error { panic("nil map") })
		}()
		err := mulligan.Policy{}.Do(ctx, func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() })
		if s := d.State(time.Now()); s.InFlight != 0 || s.Breaker != budget.PhaseHalfOpen || !errors.Is(err, context.Canceled) {
			t.Errorf("%+v after %v, want it half open with no call in flight", s, err)
		}
		if _, w := d.Start(time.Now(), nil); w.Why != "" {
			t.Errorf("the next probe waits: %s", w.Why)
		}
	})
}

func TestARetryThatIsNotMadeGivesItsTokenBack(t *testing.T) {
	d := downstream(t, budget.Limits{Cap: 1, Floor: 0.001}, time.Now())
	for range 3 {
		end, err := budget.Calls{Downstream: d}.Start(t.Context(), mulligan.CallStart{After: errDown})
		if err != nil {
			t.Fatal(err)
		}
		end(&mulligan.CallError{Reason: mulligan.TaskBudget})
	}
	if s := d.State(time.Now()); s.Tokens != 1 || s.InFlight != 0 {
		t.Errorf("%+v, want the token and no call in flight", s)
	}
}

func TestWhatRepeatsACallEarnsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := downstream(t, budget.Limits{Cap: 1, Floor: 0.001}, time.Now())
		ctx := mulligan.WithDownstream(t.Context(), budget.Calls{Downstream: d})
		err := mulligan.Policy{Attempts: 2}.Do(ctx, func(ctx context.Context) error {
			for range 50 {
				if err := (mulligan.Policy{}).Do(ctx, func(context.Context) error { return nil }); err != nil {
					return err
				}
			}
			return errDown
		})
		// 50 firsts earn all that can be saved; of the retry the first call has its
		// token back and the other 49 nothing.
		if s := d.State(time.Now()); !errors.Is(err, errDown) || s.Tokens != 1 || s.InFlight != 0 {
			t.Errorf("%+v (%v)", s, err)
		}
		for range 9 {
			_, _ = d.Take(time.Now(), budget.Failed)
		}
		for range 50 {
			end, err := budget.Calls{Downstream: d}.Start(t.Context(), mulligan.CallStart{Again: true})
			if err != nil {
				t.Fatal(err)
			}
			end(nil)
		}
		if s := d.State(time.Now()); s.Tokens > 0.01 {
			t.Errorf("repetitions have earned %v", s.Tokens)
		}
	})
}

func TestACallOfAnotherDownstreamIsNotToldToTheOneAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := downstream(t, budget.Limits{}, time.Now()), downstream(t, budget.Limits{}, time.Now())
		ctx := mulligan.WithDownstream(t.Context(), budget.Calls{Downstream: a})
		_ = mulligan.Policy{}.Do(ctx, func(ctx context.Context) error {
			return mulligan.Policy{}.Do(mulligan.WithDownstream(ctx, budget.Calls{Downstream: b}), func(context.Context) error {
				return mulligan.RefusedCredential(errDown)
			})
		})
		if a, b := a.State(time.Now()), b.State(time.Now()); a.Breaker != budget.PhaseClosed || b.Breaker != budget.PhaseCredential {
			t.Errorf("the one around is %s, the other %s", a.Breaker, b.Breaker)
		}
	})
}

func TestWithoutADownstreamCallsWaitForNothing(t *testing.T) {
	n := 0
	err := mulligan.Policy{FirstDelay: 1}.Do(mulligan.WithDownstream(t.Context(), budget.Calls{}), func(context.Context) error {
		if n++; n < 3 {
			return errDown
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Whatever calls do, side by side and within each other, nothing of a downstream
// stays taken.
func TestCallsLeaveNothingBehind(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		l := budget.Limits{Slots: rapid.IntRange(1, 3).Draw(r, "slots"), Cap: float64(rapid.IntRange(1, 4).Draw(r, "cap"))}
		plans := rapid.SliceOfN(rapid.Custom(drawPlan), 1, 6).Draw(r, "calls")
		var state budget.State
		synctest.Test(t, func(t *testing.T) {
			d := downstream(t, l, time.Now())
			ctx := mulligan.WithDownstream(t.Context(), budget.Calls{Downstream: d})
			var done sync.WaitGroup
			for _, p := range plans {
				done.Go(func() { p.run(ctx) })
			}
			done.Wait()
			time.Sleep(5 * time.Minute) // whatever is held is not for long
			if _, w := d.Start(time.Now(), nil); w.Why != "" {
				t.Errorf("a call waits: %+v", w)
			}
			state = d.State(time.Now())
		})
		if state.InFlight != 1 || state.Tokens != l.Cap {
			r.Fatalf("%d calls in flight and %v tokens, want the one and %v", state.InFlight, state.Tokens, l.Cap)
		}
	})
}

// plan is how the attempts of one call go, and when its caller loses interest.
type plan struct {
	acts   []string
	cancel time.Duration
	within *plan
}

func drawPlan(r *rapid.T) *plan {
	p := &plan{
		acts:   rapid.SliceOfN(rapid.SampledFrom([]string{"ok", "fail", "hang", "panic", "exit", "hint", "refused", "snooze", "call"}), 1, 4).Draw(r, "acts"),
		cancel: time.Duration(rapid.IntRange(0, 20).Draw(r, "cancel")) * time.Second,
	}
	if rapid.Bool().Draw(r, "nested") {
		p.within = drawPlan(r)
	}
	return p
}

func (p *plan) run(ctx context.Context) {
	defer func() { _ = recover() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if p.cancel > 0 {
		time.AfterFunc(p.cancel, cancel)
	}
	n := 0
	_ = mulligan.Policy{Timeout: 2 * time.Second}.Do(ctx, func(ctx context.Context) error {
		act := p.acts[min(n, len(p.acts)-1)]
		n++
		switch act {
		case "fail":
			return errDown
		case "hang":
			<-ctx.Done()
			return ctx.Err()
		case "panic":
			panic("nil map")
		case "exit":
			runtime.Goexit()
		case "hint":
			return mulligan.After(time.Second, errDown)
		case "refused":
			return mulligan.RefusedCredential(errDown)
		case "snooze":
			return mulligan.Snooze(time.Second)
		case "call":
			if p.within != nil {
				p.within.run(ctx)
			}
		}
		time.Sleep(100 * time.Millisecond)
		return nil
	})
}
