package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/consumer"
)

// An outage is no job's fault, however its handler calls the provider.
func TestNoJobIsDeadForAnOutageThatItsCallsWaitFor(t *testing.T) {
	short := mulligan.Policy{Total: 2 * time.Second}
	for _, tt := range []struct {
		name string
		kind mulligan.Kind
		down time.Duration
		p    mulligan.Policy
		hand func(error) error
	}{
		{"with the default policy", keyed, 30 * time.Second, mulligan.Policy{}, asItIs},
		{"handed over", durable(keyed), 30 * time.Second, short, mulligan.Later},
		{"for longer than any policy's total time", durable(keyed), 3 * time.Minute, short, mulligan.Later},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, tt.kind, func(t *testing.T, f *floor) {
				began := time.Now()
				var calls atomic.Int64
				stop := f.work(t, &consumer.Worker{}, calling(tt.p, tt.hand, func(context.Context, *mulligan.Job) error {
					if calls.Add(1); time.Since(began) < tt.down {
						return errFlaky
					}
					return nil
				}))
				for i := range 100 {
					f.publish(t, mulligan.Job{ID: fmt.Sprint("x", i)})
					time.Sleep(20 * time.Millisecond)
				}
				time.Sleep(10 * time.Minute)
				stop()
				for i := range 100 {
					if st := f.state(t, fmt.Sprint("x", i)); st.State != mulligan.StatusDone {
						t.Errorf("x%d is %s: %+v", i, st.State, st.Record)
					}
				}
				if n := calls.Load(); n > 200 {
					t.Errorf("the provider saw %d calls for 100 jobs", n)
				}
			})
		})
	}
}

func TestAHandlerThatCouldCallNothingCostsItsJobNothing(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		other, err := budget.NewDownstream(budget.Limits{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		permit, _ := other.Start(time.Now(), nil)
		permit.End(time.Now(), budget.Outcome{Result: budget.Throttled, Hint: time.Minute})
		stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			began := time.Now()
			err := mulligan.Policy{}.Do(mulligan.WithDownstream(ctx, budget.Calls{Downstream: other}), func(context.Context) error {
				f.log.note(j.ID)
				return nil
			})
			if waited := time.Since(began); waited > mulligan.MaxNak {
				t.Errorf("a slot waited for %v", waited)
			}
			return nil, err
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(30 * time.Second)
		if r := f.state(t, "x").Record; r.Attempts != 0 || r.Spent != 0 || r.Last().Verb != mulligan.Defer || r.Last().Reason != mulligan.Held || r.Last().ErrorType != "held" || !strings.Contains(r.Last().Error, "gate") {
			t.Errorf("after half the time: %+v", r)
		}
		time.Sleep(5 * time.Minute)
		stop()
		st := f.state(t, "x")
		if len(f.log.of("x")) != 1 || st.State != mulligan.StatusDone || st.Record.Attempts != 1 || len(st.Record.History) != 2 || st.Record.History[0].Times < 3 {
			t.Errorf("called %d times, %s: %+v", len(f.log.of("x")), st.State, st.Record)
		}
	})
}

func TestCallsThatCannotGoOnLeaveTheSlotsToOthers(t *testing.T) {
	bubble(t, durable(keyed), func(t *testing.T, f *floor) {
		var well atomic.Int64
		stop := f.work(t, &consumer.Worker{}, calling(mulligan.Policy{}, asItIs, func(_ context.Context, j *mulligan.Job) error {
			time.Sleep(10 * time.Millisecond)
			if strings.HasPrefix(j.ID, "bad") {
				return errFlaky
			}
			well.Add(1)
			return nil
		}))
		for i := range 600 {
			id := fmt.Sprint("well", i)
			if i%3 == 0 {
				id = fmt.Sprint("bad", i)
			}
			f.publish(t, mulligan.Job{ID: id})
		}
		time.Sleep(10 * time.Second)
		stop()
		named := false
		for i := 0; i < 600 && !named; i += 3 {
			r := f.state(t, fmt.Sprint("bad", i)).Record
			named = r != nil && strings.Contains(r.Last().Error, "held: downstream default: ")
		}
		if !named {
			t.Error("no job says for which downstream it waits")
		}
		if n := well.Load(); n != 400 {
			t.Errorf("%d of 400 jobs that nothing ails are done within 10s", n)
		}
	})
}

func TestAFailureOfAnotherDownstreamIsNotTheKinds(t *testing.T) {
	bubble(t, durable(keyed), func(t *testing.T, f *floor) {
		other, err := budget.NewDownstream(budget.Limits{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		lines := new(lockedBuffer)
		stop := f.work(t, &consumer.Worker{Log: zerolog.New(lines)}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note(j.ID)
			if j.ID != "bad" {
				return nil, nil
			}
			return nil, mulligan.Policy{}.Do(mulligan.WithDownstream(ctx, budget.Calls{Downstream: other}), func(context.Context) error {
				return mulligan.RefusedCredential(errFlaky)
			})
		})
		f.publish(t, mulligan.Job{ID: "bad"})
		time.Sleep(200 * time.Millisecond)
		at := time.Now()
		f.publish(t, mulligan.Job{ID: "good"})
		time.Sleep(time.Minute)
		stop()
		if waited := f.log.of("good")[0].Sub(at); waited > 100*time.Millisecond || lines.count("refuses the credential") != 0 || other.State(time.Now()).Breaker == budget.PhaseClosed {
			t.Errorf("the kind's own jobs waited for %v", waited)
		}
	})
}

func TestWhatRepeatsAnAttemptEarnsNoRetries(t *testing.T) {
	for name, calls := range map[string]int{"without calls": 0, "with a call that works": 1, "with thirty": 30} {
		bubble(t, durable(keyed), func(t *testing.T, f *floor) {
			var posts atomic.Int64
			w := &consumer.Worker{Downstreams: map[string]consumer.Downstream{"default": {Floor: 0.001, Cap: 3}}}
			stop := f.work(t, w, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
				for range calls {
					if err := (mulligan.Policy{}).Do(ctx, func(context.Context) error { return nil }); err != nil {
						return nil, err
					}
				}
				posts.Add(1)
				return nil, errFlaky
			})
			for i := range 10 {
				f.publish(t, mulligan.Job{ID: fmt.Sprint("x", i)})
			}
			time.Sleep(10 * time.Minute)
			stop()
			if n := posts.Load(); n != 13 {
				t.Errorf("%s: 10 jobs that always fail were tried %d times with 3 retries saved", name, n)
			}
		})
	}
}

func TestACallOfAnotherDownstreamInARetryEarnsNothingThere(t *testing.T) {
	bubble(t, durable(keyed), func(t *testing.T, f *floor) {
		other, err := budget.NewDownstream(budget.Limits{Cap: 1, Floor: 0.001}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if token, _ := other.Take(time.Now(), budget.Failed); token == nil {
			t.Fatal("it has no token")
		}
		n := 0
		stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, _ *mulligan.Job) ([]byte, error) {
			err := mulligan.Policy{}.Do(mulligan.WithDownstream(ctx, budget.Calls{Downstream: other}), func(context.Context) error { return nil })
			if n++; err == nil && n < 4 {
				err = errFlaky
			}
			return nil, err
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(20 * time.Second)
		stop()
		if s := other.State(time.Now()); n != 4 || s.Tokens < 0.1 || s.Tokens > 0.13 {
			t.Errorf("after %d successes, three of them repeated: %+v", n, s)
		}
	})
}

func TestACallThatOutlivesItsHandlerHasNoPermitOfIt(t *testing.T) {
	bubble(t, durable(keyed), func(t *testing.T, f *floor) {
		called := make(chan time.Duration, 1)
		stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			if j.ID == "bad" {
				return nil, mulligan.RefusedCredential(errFlaky)
			}
			detached := context.WithoutCancel(ctx)
			go func() {
				time.Sleep(200 * time.Millisecond)
				began := time.Now()
				if err := (mulligan.Policy{}).Do(detached, func(context.Context) error { return nil }); err != nil {
					t.Error(err)
				}
				called <- time.Since(began)
			}()
			return nil, nil
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(50 * time.Millisecond)
		f.publish(t, mulligan.Job{ID: "bad"})
		if waited := <-called; waited < 500*time.Millisecond {
			t.Errorf("it was called after %v, though the downstream was held for a second", waited)
		}
		stop()
	})
}

func TestALongRefusalDoesNotPushOutWhatFailed(t *testing.T) {
	bubble(t, durable(keyed), func(t *testing.T, f *floor) {
		n := 0
		stop := f.work(t, &consumer.Worker{}, func(context.Context, *mulligan.Job) ([]byte, error) {
			if n++; n <= 2 {
				return nil, mulligan.Typed("real", errFlaky)
			}
			return nil, mulligan.RefusedCredential(errors.New("expired"))
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(30 * time.Minute)
		stop()
		h := f.state(t, "x").Record.History
		if len(h) != 3 || h[0].ErrorType != "real" || h[1].ErrorType != "real" || h[2].Reason != mulligan.Credential || h[2].Times != n-2 || n > 15 {
			t.Errorf("after %d calls in half an hour: %+v", n, h)
		}
	})
}
