package mulligan_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// script is a function that fails as told, then succeeds.
type script struct {
	fails []error
	runs  []time.Time
}

func (s *script) do(ctx context.Context) error {
	s.runs = append(s.runs, time.Now())
	if len(s.runs) > len(s.fails) {
		return nil
	}
	err := s.fails[len(s.runs)-1]
	if err == errHangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

var errHangs = errors.New("hangs until its context ends")

func times(n int, err error) []error { return slices.Repeat([]error{err}, n) }

func TestACallIsTriedAgainByTheRulesForJobs(t *testing.T) {
	slow := mulligan.Policy{Timeout: time.Second}
	for _, tt := range []struct {
		name   string
		p      mulligan.Policy
		fails  []error
		runs   int
		reason mulligan.Reason // none: it succeeds
	}{
		{"a call that succeeds is made once", mulligan.Policy{}, nil, 1, ""},
		{"a flaky call is tried again", mulligan.Policy{}, times(2, errFlaky), 3, ""},
		{"a call has no more attempts than its policy", mulligan.Policy{}, times(9, errFlaky), 4, mulligan.AttemptsExhausted},
		{"a permanent failure is not tried again", mulligan.Policy{}, times(9, mulligan.Permanent(errFlaky)), 1, mulligan.PermanentFailure},
		{"unusable output is not asked for again", mulligan.Policy{}, times(9, mulligan.Unusable(errFlaky)), 1, mulligan.NoChange},
		{"a call that hangs is tried again after its timeout", slow, times(2, errHangs), 3, ""},
		{"a call that hangs has all the time if it has no timeout", mulligan.Policy{}, times(9, errHangs), 1, mulligan.TimeExhausted},
		{"a hint beyond the total time ends the call at once", mulligan.Policy{}, times(9, mulligan.After(time.Minute, errFlaky)), 1, mulligan.TimeExhausted},
		{"a call cannot be snoozed", mulligan.Policy{}, times(9, mulligan.Snooze(time.Second)), 1, mulligan.Snoozed},
		{"a call has no payload to change", mulligan.Policy{}, times(9, mulligan.Changed([]byte("b"), errFlaky)), 1, mulligan.NoChange},
		{"a refused credential does not get better within a call", mulligan.Policy{}, times(9, mulligan.RefusedCredential(errFlaky)), 1, mulligan.Credential},
		{"a call that is in doubt is not repeated", mulligan.Policy{}, times(9, mulligan.ErrInDoubt), 1, mulligan.InDoubt},
		{"a policy without limits is refused", mulligan.Policy{Attempts: -1}, nil, 0, mulligan.PermanentFailure},
		{"a failed call within the call is not tried again", mulligan.Policy{}, times(9, &mulligan.CallError{Reason: mulligan.AttemptsExhausted, Attempts: 4, Err: errFlaky}), 1, mulligan.AttemptsExhausted},
		{"one that hands over to the layer above counts its attempts", mulligan.Policy{}, times(9, mulligan.Later(&mulligan.CallError{Reason: mulligan.AttemptsExhausted, Attempts: 2, Err: errFlaky})), 2, mulligan.AttemptsExhausted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				s := &script{fails: tt.fails}
				err := tt.p.Do(t.Context(), s.do)
				if len(s.runs) != tt.runs {
					t.Errorf("it was called %d times, want %d", len(s.runs), tt.runs)
				}
				if tt.reason == "" {
					if err != nil {
						t.Errorf("got %v, want success", err)
					}
					return
				}
				var failed *mulligan.CallError
				if !errors.As(err, &failed) || failed.Reason != tt.reason || failed.Attempts < tt.runs {
					t.Fatalf("got %#v, want %s after %d attempts", err, tt.reason, tt.runs)
				}
				if tt.runs > 0 && !errors.Is(err, tt.fails[0]) && tt.fails[0] != errHangs {
					t.Errorf("%v does not wrap %v", err, tt.fails[0])
				}
				if took := time.Since(began); took > 10*time.Second || took != failed.Spent {
					t.Errorf("it took %v and says %v, of 10s in total", took, failed.Spent)
				}
			})
		})
	}
}

func TestARetryOfACallIsNeverBeforeItsHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{fails: times(2, mulligan.After(2*time.Second, errFlaky))}
		if err := (mulligan.Policy{}).Do(t.Context(), s.do); err != nil {
			t.Fatal(err)
		}
		for n := 1; n < len(s.runs); n++ {
			if gap := s.runs[n].Sub(s.runs[n-1]); gap < 2*time.Second {
				t.Errorf("attempt %d came %v after the one before, the hint was 2s", n+1, gap)
			}
		}
	})
}

func TestTheContextBoundsACall(t *testing.T) {
	for _, tt := range []struct {
		name     string
		deadline time.Duration // or, if zero, it is cancelled after a second
		fails    []error
		runs     int
		attempts int
		took     time.Duration
		reason   mulligan.Reason
		is       error
		hint     time.Duration
	}{
		{"a retry that could not start before the deadline is not planned", 3 * time.Second, times(9, mulligan.After(5*time.Second, errFlaky)), 1, 1, 0,
			mulligan.Expired, context.DeadlineExceeded, 5 * time.Second},
		{"an attempt ends with the deadline", 3 * time.Second, times(9, errHangs), 1, 1, 3 * time.Second, mulligan.Expired, context.DeadlineExceeded, 0},
		{"a cancelled call sleeps no more", 0, times(9, mulligan.After(5*time.Second, errFlaky)), 1, 1, time.Second, mulligan.Cancelled, context.Canceled, 4 * time.Second},
		{"an attempt that was cut short is not counted", 0, times(9, errHangs), 1, 0, time.Second, mulligan.Cancelled, context.Canceled, 0},
		{"the attempts before one that was cut short are counted", 0, append(times(2, errFlaky), errHangs), 3, 2, time.Second, mulligan.Cancelled, context.Canceled, 0},
		{"a permanent failure is one, also when time is over", 0, []error{mulligan.Permanent(errHangs)}, 1, 1, 0, mulligan.PermanentFailure, errHangs, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.deadline > 0 {
					ctx, cancel = context.WithTimeout(ctx, tt.deadline)
					defer cancel()
				} else {
					time.AfterFunc(time.Second, cancel)
				}
				began := time.Now()
				s := &script{fails: tt.fails}
				err := mulligan.Policy{}.Do(ctx, s.do)
				took := time.Since(began)
				var failed *mulligan.CallError
				if !errors.As(err, &failed) || failed.Reason != tt.reason || failed.Attempts != tt.attempts || failed.Hint != tt.hint {
					t.Fatalf("got %+v, want %s after %d attempts with a hint of %v", err, tt.reason, tt.attempts, tt.hint)
				}
				if !errors.Is(err, tt.is) || len(s.runs) != tt.runs || took != tt.took {
					t.Errorf("after %d runs and %v: %v, want %d, %v and %v", len(s.runs), took, err, tt.runs, tt.took, tt.is)
				}
				var throttled *mulligan.ThrottledError
				if tt.hint > 0 && (!errors.As(err, &throttled) || !errors.Is(err, errFlaky)) {
					t.Errorf("%v does not lead to its cause", err)
				}
			})
		})
	}
}

func TestTheTimeOfAHandlersAttemptIsNotTheJobsDeadline(t *testing.T) {
	for name, fails := range map[string]error{"an attempt that hangs": errHangs, "a hint": mulligan.After(5*time.Second, errFlaky)} {
		for deadline, want := range map[time.Duration]mulligan.Reason{time.Hour: mulligan.TimeExhausted, 3 * time.Second: mulligan.Expired} {
			synctest.Test(t, func(t *testing.T) {
				b := &books{deadline: time.Now().Add(deadline)}
				ctx, cancel := context.WithTimeout(b.in(t.Context()), 3*time.Second)
				defer cancel()
				var failed *mulligan.CallError
				err := mulligan.Policy{}.Do(ctx, (&script{fails: times(9, fails)}).do)
				if !errors.As(err, &failed) || failed.Reason != want || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s until 3s with the job's deadline after %v: %v, want %s", name, deadline, err, want)
				}
			})
		}
	}
}

func TestACallWhoseContextHasEndedIsNotMade(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := mulligan.Policy{}.Do(ctx, func(context.Context) error { t.Error("it was called"); return nil })
	var failed *mulligan.CallError
	if !errors.As(err, &failed) || failed.Attempts != 0 || !mulligan.MeaningOf(err).NotStarted || !errors.Is(err, context.Canceled) {
		t.Errorf("got %#v", err)
	}
}

func TestCallReturnsNothingWithAnError(t *testing.T) {
	n, err := mulligan.Call(t.Context(), mulligan.Policy{Attempts: 1}, func(context.Context) (int, error) { return 7, errFlaky })
	if n != 0 || !errors.Is(err, errFlaky) {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestACallInAHandlerGoesByTheJobsEffect(t *testing.T) {
	once := mulligan.Ended{Effect: mulligan.Once}
	for _, tt := range []struct {
		name   string
		rules  mulligan.Ended
		fails  []error
		runs   int
		reason mulligan.Reason
		start  bool // it may have had an effect
	}{
		{"a keyed job's call is repeated, with its key", mulligan.Ended{Effect: mulligan.Keyed}, times(2, errFlaky), 3, "", true},
		{"a once job's call is not repeated after a doubt", once, times(9, errFlaky), 1, mulligan.InDoubt, true},
		{"a once job's call is repeated if nothing happened", once, times(2, mulligan.NotStarted(errFlaky)), 3, "", false},
		{"a once job's call that never did anything leaves no doubt", once, times(9, mulligan.NotStarted(errFlaky)), 4, mulligan.AttemptsExhausted, false},
		{"a doubt after failures that did nothing", once, []error{mulligan.NotStarted(errFlaky), errFlaky}, 2, mulligan.InDoubt, true},
		{"a once job in steps may repeat what is in none", mulligan.Ended{Effect: mulligan.Once, Stepped: true}, times(2, errFlaky), 3, "", true},
		{"a job without a key is called once", mulligan.Ended{Effect: mulligan.Keyed, NoKey: true}, times(9, errFlaky), 1, mulligan.NoKey, true},
		{"a failure that did nothing clears none before it", mulligan.Ended{Effect: mulligan.Keyed}, append(times(3, errFlaky), mulligan.NotStarted(errFlaky)), 4, mulligan.AttemptsExhausted, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &books{rules: tt.rules}
				s := &script{fails: tt.fails}
				err := mulligan.Policy{}.Do(b.in(t.Context()), s.do)
				var failed *mulligan.CallError
				if len(s.runs) != tt.runs || errors.As(err, &failed) != (tt.reason != "") {
					t.Fatalf("%d runs, %v; want %d and %s", len(s.runs), err, tt.runs, tt.reason)
				}
				if failed != nil && (failed.Reason != tt.reason || mulligan.MeaningOf(err).NotStarted == tt.start) {
					t.Errorf("got %+v, want %s, and that an effect is possible: %v", failed, tt.reason, tt.start)
				}
			})
		})
	}
}

func TestTheErrorOfACallSaysWhatHappened(t *testing.T) {
	for _, tt := range []struct {
		err  mulligan.CallError
		text string
		kind string
	}{
		{mulligan.CallError{Reason: mulligan.AttemptsExhausted, Attempts: 4, Err: errFlaky}, "flaky (attempts_exhausted, attempts: 4)", "error"},
		{mulligan.CallError{Reason: mulligan.Expired, Attempts: 1, Err: errFlaky, Ended: context.DeadlineExceeded}, "flaky (expired: context deadline exceeded, attempts: 1)", "error"},
		{mulligan.CallError{Reason: mulligan.Held, Ended: context.DeadlineExceeded}, "not called (held: context deadline exceeded)", "held"},
		{mulligan.CallError{Reason: mulligan.Cancelled, Ended: context.Canceled}, "not called (cancelled: context canceled)", "canceled"},
		{mulligan.CallError{Reason: mulligan.TaskBudget, Attempts: 1, Err: mulligan.Typed("busy", errFlaky)}, "flaky (task_budget, attempts: 1)", "busy"},
	} {
		if got, kind := tt.err.Error(), mulligan.ErrorType(&tt.err); got != tt.text || kind != tt.kind {
			t.Errorf("got %q of type %s, want %q of type %s", got, kind, tt.text, tt.kind)
		}
	}
}
