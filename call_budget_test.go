package mulligan_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mulligan-queue/mulligan"
)

// books are budgets that note what they are asked. They are those of a
// downstream, and with jobBooks those of a job too.
type books struct {
	mu       sync.Mutex
	notes    []string
	rules    mulligan.Ended
	left     time.Duration // zero: an hour
	deadline time.Time     // the job's; zero: in an hour
	denied   mulligan.Reason
	nobodys  bool          // those of a downstream only
	slow     time.Duration // what each start waits
	blocks   string        // what waits until its context ends
	permits  int           // begun and not ended
}

func (b *books) note(ctx context.Context, what string) error {
	b.mu.Lock()
	b.notes = append(b.notes, what)
	b.mu.Unlock()
	if b.blocks == what {
		<-ctx.Done()
		return fmt.Errorf("wait for a %s: %w", what, ctx.Err())
	}
	return nil
}

func (b *books) said() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	said := b.notes
	b.notes = nil
	return said
}

type downstreamBooks struct{ *books }

func (b downstreamBooks) Start(ctx context.Context, a mulligan.CallStart) (func(error), error) {
	what := "first"
	switch {
	case a.After != nil:
		what = "retry"
	case a.Again:
		what = "again"
	}
	if err := b.note(ctx, what); err != nil {
		return nil, err
	}
	select {
	case <-time.After(b.slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.permits++
	return func(err error) {
		end := "ended " + mulligan.ErrorType(err)
		if err != nil && mulligan.MeaningOf(err).Tries == 0 {
			end = "not made"
		}
		_ = b.note(context.Background(), end)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.permits--
	}, nil
}

type jobBooks struct{ downstreamBooks }

func (b jobBooks) Rules() (mulligan.Ended, time.Duration, time.Time) {
	left, deadline := b.left, b.deadline
	if left == 0 {
		left = time.Hour
	}
	if deadline.IsZero() {
		deadline = time.Now().Add(time.Hour)
	}
	return b.rules, left, deadline
}

func (b jobBooks) Wait(ctx context.Context) (context.Context, func()) {
	return context.WithTimeout(ctx, mulligan.MaxNak)
}

func (b jobBooks) Retry(ctx context.Context, _ error) (mulligan.Reason, error) {
	return b.denied, b.note(ctx, "job")
}

func (b jobBooks) Tried(error, bool, bool) {}

func (b *books) in(ctx context.Context) context.Context {
	if b.nobodys {
		return mulligan.WithDownstream(ctx, downstreamBooks{b})
	}
	return mulligan.WithDownstream(ctx, jobBooks{downstreamBooks{b}})
}

func TestACallTakesAllThatItNeedsOrNothing(t *testing.T) {
	within := func(d time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
		return func(ctx context.Context) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, d) }
	}
	for _, tt := range []struct {
		name   string
		b      *books
		ctx    func(context.Context) (context.Context, context.CancelFunc)
		fails  []error
		notes  []string
		reason mulligan.Reason
		took   time.Duration // zero: whatever
	}{
		{"a first attempt needs a permit only", &books{}, nil, nil, []string{"first", "ended "}, "", 0},
		{"a retry needs a permit, and what the job has", &books{}, nil, times(1, errFlaky),
			[]string{"first", "ended error", "retry", "job", "ended "}, "", 0},
		{"a task without a retry left ends the call", &books{denied: mulligan.TaskBudget}, nil, times(9, errFlaky),
			[]string{"first", "ended error", "retry", "job", "not made"}, mulligan.TaskBudget, 0},
		{"in a handler it waits no longer than a nak", &books{blocks: "first"}, nil, nil, []string{"first"}, mulligan.Held, mulligan.MaxNak},
		{"in a handler it waits in vain also where its deadline is sooner", &books{blocks: "first"}, within(time.Second), nil, []string{"first"}, mulligan.Held, time.Second},
		{"a retry that may not start gives back what it took", &books{blocks: "job"}, nil, times(9, errFlaky),
			[]string{"first", "ended error", "retry", "job", "not made"}, mulligan.Held, 0},
		{"elsewhere it waits for as long as its total time", &books{blocks: "first", nobodys: true}, nil, nil, []string{"first"}, mulligan.Held, 10 * time.Second},
		{"a permanent failure asks for nothing", &books{}, nil, times(9, mulligan.Permanent(errFlaky)), []string{"first", "ended error"}, mulligan.PermanentFailure, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := tt.b.in(t.Context())
				if tt.ctx != nil {
					var cancel context.CancelFunc
					ctx, cancel = tt.ctx(ctx)
					defer cancel()
				}
				began := time.Now()
				err := mulligan.Policy{}.Do(ctx, (&script{fails: tt.fails}).do)
				var failed *mulligan.CallError
				if (tt.reason == "") != (err == nil) || err != nil && (!errors.As(err, &failed) || failed.Reason != tt.reason) {
					t.Errorf("got %v, want reason %q", err, tt.reason)
				}
				if got := tt.b.said(); !slices.Equal(got, tt.notes) || tt.b.permits != 0 {
					t.Errorf("asked %q, %d permits are not ended; want %q", got, tt.b.permits, tt.notes)
				}
				if took := time.Since(began); tt.took > 0 && took != tt.took {
					t.Errorf("it took %v, want %v", took, tt.took)
				}
				if failed != nil && failed.Ended != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v does not say that time is over", err)
				}
			})
		})
	}
}

func TestWaitingIsNotOfACallsTotalTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := mulligan.WithDownstream(t.Context(), downstreamBooks{&books{slow: 3 * time.Second}})
		s := &script{fails: times(9, errFlaky)}
		var failed *mulligan.CallError
		if err := (mulligan.Policy{}).Do(ctx, s.do); !errors.As(err, &failed) || failed.Reason != mulligan.Held || len(s.runs) != 3 || failed.Spent > time.Second {
			t.Errorf("it waited for as long as its total time, then: %v, spent %v", err, failed.Spent)
		}
		s = &script{fails: times(2, errFlaky)}
		if err := (mulligan.Policy{}).Do(ctx, s.do); err != nil {
			t.Errorf("it waited for less than its total time: %v", err)
		}
	})
}

func TestACallInAHandlerHasNoMoreThanTheJobHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failed *mulligan.CallError
		b := &books{left: 3 * time.Second}
		err := mulligan.Policy{}.Do(b.in(t.Context()), (&script{fails: times(9, errHangs)}).do)
		if !errors.As(err, &failed) || failed.Reason != mulligan.TimeExhausted || failed.Spent != 3*time.Second {
			t.Errorf("the job has 3s left: %v", err)
		}
		b = &books{denied: mulligan.AttemptsExhausted}
		err = mulligan.Policy{}.Do(b.in(t.Context()), (&script{fails: times(9, errFlaky)}).do)
		if !errors.As(err, &failed) || failed.Reason != mulligan.AttemptsExhausted || failed.Attempts != 1 {
			t.Errorf("the job has no attempt left: %v", err)
		}
	})
}

func TestTheEndOfAnAttemptEndsTheCallWithinItAndNotTheOneAround(t *testing.T) {
	for name, deadline := range map[string]time.Duration{"with a deadline": time.Minute, "without one": 0} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := t.Context(), func() {}
			if deadline > 0 {
				ctx, cancel = context.WithTimeout(ctx, deadline)
			}
			defer cancel()
			s := &script{fails: times(2, errHangs)}
			err := mulligan.Policy{Timeout: time.Second}.Do(ctx, func(ctx context.Context) error {
				return mulligan.Policy{}.Do(ctx, s.do)
			})
			if err != nil || len(s.runs) != 3 {
				t.Errorf("%s: %d attempts, %v", name, len(s.runs), err)
			}
		})
	}
}

func TestADetachedCallGoesByItsJobsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &books{deadline: time.Now().Add(2 * time.Second)}
		began := time.Now()
		var failed *mulligan.CallError
		err := mulligan.Policy{FirstDelay: 5 * time.Second}.Do(context.WithoutCancel(b.in(t.Context())), (&script{fails: times(9, errFlaky)}).do)
		if !errors.As(err, &failed) || failed.Reason != mulligan.Expired || time.Since(began) > 2*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestAnAttemptThatItsCallerCutTellsTheDownstreamNothing(t *testing.T) {
	for _, tt := range []struct {
		name   string
		within time.Duration
		told   string
	}{
		{"with too little time", 4 * time.Second, "ended canceled"},
		{"with most of its time", 6 * time.Second, "ended timeout"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := new(books)
			ctx, cancel := context.WithTimeout(mulligan.WithDownstream(t.Context(), downstreamBooks{b}), tt.within)
			defer cancel()
			_ = mulligan.Policy{}.Do(ctx, (&script{fails: times(9, errHangs)}).do)
			if got := b.said(); !slices.Equal(got, []string{"first", tt.told}) {
				t.Errorf("%s: %q, want %q", tt.name, got, tt.told)
			}
		})
	}
}

func TestACallWithinARetryIsNoFirstAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := new(books)
		n := 0
		_ = mulligan.Policy{Attempts: 2}.Do(mulligan.WithDownstream(t.Context(), downstreamBooks{b}), func(ctx context.Context) error {
			n++
			for range 2 {
				if err := (mulligan.Policy{}).Do(ctx, (&script{}).do); err != nil {
					return err
				}
			}
			return errFlaky
		})
		want := []string{"first", "ended ", "first", "ended ", "retry", "ended ", "again", "ended "}
		if got := b.said(); !slices.Equal(got, want) {
			t.Errorf("asked %q, want %q", got, want)
		}
	})
}

func TestAPermitIsEndedHoweverTheCallEnds(t *testing.T) {
	for name, leave := range map[string]func(){"a panic": func() { panic("nil map") }, "the end of its goroutine": runtime.Goexit} {
		b := new(books)
		var done sync.WaitGroup
		done.Go(func() {
			defer func() { _ = recover() }()
			_ = mulligan.Policy{}.Do(b.in(t.Context()), func(context.Context) error { leave(); return nil })
			t.Errorf("%s did not pass through", name)
		})
		done.Wait()
		if got := b.said(); !slices.Equal(got, []string{"first", "ended panic"}) || b.permits != 0 {
			t.Errorf("after %s: %q, %d permits are not ended", name, got, b.permits)
		}
	}
}

func TestACallWithinACallTakesOverItsPermit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := new(books)
		err := mulligan.Policy{}.Do(b.in(t.Context()), func(ctx context.Context) error {
			return errors.Join(mulligan.Policy{}.Do(ctx, (&script{fails: times(1, errFlaky)}).do), mulligan.Policy{}.Do(ctx, (&script{}).do))
		})
		want := []string{"first", "ended error", "retry", "job", "ended ", "first", "ended "}
		if got := b.said(); err != nil || !slices.Equal(got, want) || b.permits != 0 {
			t.Errorf("asked %q (%v), want %q", got, err, want)
		}
	})
}
