package budget_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mulligan-queue/mulligan/budget"
)

func TestACallWaitsForAnotherToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		d := downstream(t, budget.Limits{Slots: 1}, began)
		first, _ := d.Start(began, nil)
		time.AfterFunc(3*time.Second, func() { first.End(time.Now(), budget.Outcome{}) })
		second, err := await(t.Context(), d)
		if waited := time.Since(began); err != nil || waited != 3*time.Second {
			t.Errorf("it waited %v (%v), want 3s", waited, err)
		}
		second.End(time.Now(), budget.Outcome{})
	})
}

func TestACallWaitsForTheGateToOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		d := downstream(t, budget.Limits{}, began)
		first, _ := d.Start(began, nil)
		first.End(began, budget.Outcome{Result: budget.Throttled, Hint: 7 * time.Second})
		if _, err := await(t.Context(), d); err != nil || time.Since(began) != 7*time.Second {
			t.Errorf("it waited %v (%v), want 7s", time.Since(began), err)
		}
	})
}

func TestARetryWaitsForItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		d := downstream(t, budget.Limits{Cap: 1}, began)
		last, _ := d.Take(began, budget.Failed)
		time.AfterFunc(300*time.Millisecond, func() { last.Back(time.Now()) })
		err := d.Await(t.Context(), func(now time.Time) (w budget.Wait) { _, w = d.Take(now, budget.Failed); return w })
		if err != nil || time.Since(began) != 300*time.Millisecond {
			t.Errorf("it waited %v (%v), want until the token was given back after 300ms", time.Since(began), err)
		}
	})
}

func TestTheEndOfAWaitSaysWhatItWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := downstream(t, budget.Limits{Slots: 1}, time.Now())
		_, _ = d.Start(time.Now(), nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := await(ctx, d)
		if want := "wait for a downstream (limit): context deadline exceeded"; err == nil || err.Error() != want || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %s", err, want)
		}
	})
}

func await(ctx context.Context, d *budget.Downstream) (p budget.Permit, err error) {
	err = d.Await(ctx, func(now time.Time) (w budget.Wait) { p, w = d.Start(now, nil); return w })
	return p, err
}

func downstream(t *testing.T, l budget.Limits, now time.Time) *budget.Downstream {
	t.Helper()
	d, err := budget.NewDownstream(l, now)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestACallMayTurnOutToBeARetryOrNot(t *testing.T) {
	d := downstream(t, budget.Limits{}, noon)
	spend := func(n float64) {
		for range int(n) {
			if _, w := d.Take(noon, budget.Failed); w.Why != "" {
				t.Fatal(w)
			}
		}
	}
	tokens := func() float64 { return d.State(noon).Tokens }
	spend(5)

	p, _ := d.Start(noon, nil)
	p.Retry(noon, budget.Failed) // it comes back from a nak, paid for when it was planned
	p.End(noon, budget.Outcome{Result: budget.Succeeded})
	if got := tokens(); got != 6 {
		t.Errorf("after a paid retry that succeeded there are %v tokens, want 6", got)
	}

	token, _ := d.Take(noon, budget.Failed)
	p, _ = d.Start(noon, token)
	p.First(noon) // what was pulled from among the retries has had no attempt yet
	p.End(noon, budget.Outcome{Result: budget.Succeeded})
	if got := tokens(); got != 6.1 {
		t.Errorf("after a first attempt that succeeded there are %v tokens, want 6.1", got)
	}
	token.Back(noon)

	token, _ = d.Take(noon, budget.Failed)
	p, _ = d.Start(noon, token)
	p.Retry(noon, budget.Throttled)
	p.End(noon, budget.Outcome{Result: budget.Failed})
	if got := tokens(); got != 5.75 {
		t.Errorf("after a retry of a throttled attempt that failed there are %v tokens, want 5.75", got)
	}
	p.Retry(noon, budget.Failed)
	p.First(noon)
	if got := tokens(); got != 5.75 {
		t.Errorf("a call that has ended changed the tokens to %v", got)
	}
}

func TestOneUserAmongOthersTripsNoBreaker(t *testing.T) {
	calls := func(d *budget.Downstream, user string, n int, r budget.Result) {
		for range n {
			p, _ := d.Start(noon, nil)
			p.End(noon, budget.Outcome{Result: r, User: user})
		}
	}
	for _, c := range []struct {
		name  string
		calls func(d *budget.Downstream)
		want  budget.Phase
	}{
		{"a user whose calls all fail, beside one whose calls succeed", func(d *budget.Downstream) {
			calls(d, "ada", 1, budget.Succeeded)
			calls(d, "eve", 1000, budget.Failed)
		}, budget.PhaseClosed},
		{"a user whose calls all fail, beside calls of nobody", func(d *budget.Downstream) {
			calls(d, "", 10, budget.Succeeded)
			calls(d, "eve", 1000, budget.Failed)
		}, budget.PhaseClosed},
		{"a user whose calls make up a row, but for one", func(d *budget.Downstream) {
			calls(d, "ada", 1000, budget.Succeeded)
			calls(d, "bob", 1, budget.Failed)
			calls(d, "eve", 500, budget.Failed)
		}, budget.PhaseClosed},
		{"a row of which no user has over half", func(d *budget.Downstream) {
			calls(d, "ada", 1000, budget.Succeeded)
			calls(d, "bob", 10, budget.Failed)
			calls(d, "eve", 10, budget.Failed)
		}, budget.PhaseOpen},
		{"all users fail", func(d *budget.Downstream) {
			calls(d, "ada", 1, budget.Failed)
			calls(d, "eve", 1000, budget.Failed)
		}, budget.PhaseOpen},
		{"most users fail", func(d *budget.Downstream) {
			calls(d, "ada", 100, budget.Succeeded)
			for _, user := range []string{"bob", "cid", "dan"} {
				calls(d, user, 50, budget.Failed)
			}
		}, budget.PhaseOpen},
		{"there is one user only", func(d *budget.Downstream) { calls(d, "eve", 1000, budget.Failed) }, budget.PhaseClosed},
		{"one user's fast failures before another's slow success", func(d *budget.Downstream) {
			p, _ := d.Start(noon, nil)
			calls(d, "eve", 1000, budget.Failed)
			p.End(noon, budget.Outcome{Result: budget.Succeeded, User: "bob"})
		}, budget.PhaseClosed},
		{"two users fail, two do not", func(d *budget.Downstream) {
			calls(d, "ada", 1, budget.Succeeded)
			calls(d, "bob", 1, budget.Succeeded)
			calls(d, "eve", 1000, budget.Failed)
			calls(d, "mallory", 15, budget.Failed)
		}, budget.PhaseClosed},
		{"users who fail now and then beside one who always does", func(d *budget.Downstream) {
			calls(d, "eve", 1000, budget.Failed)
			for _, user := range []string{"ada", "bob", "cid"} {
				calls(d, user, 3, budget.Succeeded)
				calls(d, user, 2, budget.Failed)
			}
		}, budget.PhaseClosed},
		{"all users fail, beside calls of nobody that succeed", func(d *budget.Downstream) {
			for range 10 {
				calls(d, "", 1, budget.Succeeded)
				for i := range 30 {
					calls(d, fmt.Sprint("user", i), 1, budget.Failed)
				}
			}
		}, budget.PhaseOpen},
		{"calls of nobody fail, beside more of users that succeed", func(d *budget.Downstream) {
			calls(d, "ada", 15, budget.Succeeded)
			calls(d, "bob", 15, budget.Succeeded)
			calls(d, "", 19, budget.Failed)
		}, budget.PhaseClosed},
		{"calls of nobody fail, beside fewer of users that succeed", func(d *budget.Downstream) {
			calls(d, "ada", 10, budget.Succeeded)
			calls(d, "bob", 9, budget.Succeeded)
			calls(d, "", 15, budget.Failed)
			calls(d, "ada", 1, budget.Succeeded)
			calls(d, "", 5, budget.Failed)
		}, budget.PhaseOpen},
		{"calls of nobody and one of two users fail", func(d *budget.Downstream) {
			calls(d, "", 10, budget.Failed)
			calls(d, "ada", 1, budget.Succeeded)
			calls(d, "eve", 1000, budget.Failed)
		}, budget.PhaseOpen},
		{"calls of nobody fail", func(d *budget.Downstream) {
			calls(d, "", 10, budget.Succeeded)
			calls(d, "", 10, budget.Failed)
		}, budget.PhaseOpen},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := downstream(t, budget.Limits{}, noon)
			c.calls(d)
			if got := d.State(noon).Breaker; got != c.want {
				t.Errorf("the breaker is %s, want %s", got, c.want)
			}
		})
	}
}

func TestAUsersFailuresAreForgottenWithTheirSecond(t *testing.T) {
	d := downstream(t, budget.Limits{}, noon)
	for i := range 200 {
		p, _ := d.Start(noon.Add(time.Duration(i)*100*time.Millisecond), nil)
		o := budget.Outcome{Result: budget.Succeeded, User: "ada"}
		if i < 50 {
			o.User = []string{"bob", "cid", "dan", "eve"}[i%4]
			if o.User == "eve" {
				o.Result = budget.Failed
			}
		}
		p.End(noon.Add(time.Duration(i)*100*time.Millisecond), o)
	}
	now := noon.Add(20 * time.Second)
	for i := range 400 { // ada's alone are in the window now, 100 good ones, and these
		o := budget.Outcome{Result: budget.Failed, User: []string{"ada", "gil"}[i%2]}
		if i%10 == 0 {
			o.Result = budget.Succeeded // not so many in a row
		}
		p, _ := d.Start(now, nil)
		p.End(now, o)
	}
	if got := d.State(now).Breaker; got != budget.PhaseOpen {
		t.Errorf("the breaker is %s, want it open: what the others did is over", got)
	}
}
