package consumer_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/consumer"
)

// calling returns a handler that calls fn by a policy and hands on its error.
func calling(p mulligan.Policy, hand func(error) error, fn func(ctx context.Context, j *mulligan.Job) error) mulligan.HandlerFunc {
	return func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
		if err := p.Do(ctx, func(ctx context.Context) error { return fn(ctx, j) }); err != nil {
			return nil, hand(err)
		}
		return []byte("done"), nil
	}
}

func asItIs(err error) error { return err }

func durable(k mulligan.Kind) mulligan.Kind {
	k.Policy = mulligan.DurablePolicy()
	return k
}

func TestWhatACallCouldNotDoInTimeGoesOnInTheQueue(t *testing.T) {
	bubble(t, durable(keyed), func(t *testing.T, f *floor) {
		const hint = 12 * time.Second
		stop := f.work(t, &consumer.Worker{}, calling(mulligan.Policy{}, mulligan.Later, func(_ context.Context, j *mulligan.Job) error {
			switch f.log.note(j.ID) {
			case 1, 2:
				return errFlaky
			case 3:
				return mulligan.After(hint, errFlaky)
			}
			if j.Attempt != 4 {
				t.Errorf("the fourth attempt is called number %d", j.Attempt)
			}
			return nil
		}))
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(time.Minute)
		stop()
		runs, st := f.log.of("x"), f.state(t, "x")
		if len(runs) != 4 || st.State != mulligan.StatusDone || st.Record.Attempts != 4 {
			t.Fatalf("%d runs, %s: %+v", len(runs), st.State, st.Record)
		}
		if gap := runs[3].Sub(runs[2]); gap < hint {
			t.Errorf("the queue went on after %v, the hint was %v", gap, hint)
		}
		h := st.Record.History
		if len(h) != 2 || h[0].Tries != 3 || h[0].Number != 3 || h[0].Took != runs[2].Sub(runs[0]) {
			t.Errorf("the history has %+v", h)
		}
		if want := h[0].Took + h[0].Delay; st.Record.Spent != want {
			t.Errorf("it spent %v, want what the handler took and the delay, each once: %v", st.Record.Spent, want)
		}
	})
}

func TestAFailedCallEndsItsJob(t *testing.T) {
	bubble(t, durable(keyed), func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, calling(mulligan.Policy{}, asItIs, func(_ context.Context, j *mulligan.Job) error {
			f.log.note(j.ID)
			return errFlaky
		}))
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(5 * time.Minute)
		stop()
		if n, st := len(f.log.of("x")), f.state(t, "x"); n != 4 || st.State != mulligan.StatusDead || st.Record.Reason != mulligan.AttemptsExhausted || st.Record.Attempts != 4 {
			t.Errorf("it was called %d times, %s: %+v; want 4 attempts, not as many by each layer", n, st.State, st.Record)
		}
	})
}

func TestTheQueueTriesNoMoreThanTheKindAllows(t *testing.T) {
	kind := keyed
	kind.Policy = mulligan.Policy{Attempts: 6, Total: time.Minute}
	bubble(t, kind, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, calling(mulligan.Policy{Attempts: 3}, mulligan.Later, func(_ context.Context, j *mulligan.Job) error {
			f.log.note(j.ID)
			return errFlaky
		}))
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(5 * time.Minute)
		stop()
		if n, st := len(f.log.of("x")), f.state(t, "x"); n != 6 || st.State != mulligan.StatusDead || st.Record.Reason != mulligan.AttemptsExhausted || st.Record.Attempts != 6 {
			t.Errorf("it was called %d times, %s: %+v", n, st.State, st.Record)
		}
	})
}

func TestLaterIsRefusedOnceThereIsADoubt(t *testing.T) {
	bubble(t, durable(once), func(t *testing.T, f *floor) {
		fate := map[string]error{"doubtful": errFlaky, "not-started": mulligan.NotStarted(errFlaky)}
		stop := f.work(t, &consumer.Worker{}, calling(mulligan.Policy{Attempts: 2}, mulligan.Later, func(_ context.Context, j *mulligan.Job) error {
			if f.log.note(j.ID) > 3 {
				return nil
			}
			return fate[j.ID]
		}))
		for id := range fate {
			f.publish(t, mulligan.Job{ID: id})
		}
		time.Sleep(time.Minute)
		stop()
		if n, st := len(f.log.of("doubtful")), f.state(t, "doubtful"); n != 1 || st.State != mulligan.StatusDead || st.Record.Reason != mulligan.InDoubt {
			t.Errorf("the doubtful call was made %d times, %s: %+v", n, st.State, st.Record)
		}
		if n, st := len(f.log.of("not-started")), f.state(t, "not-started"); n != 4 || st.State != mulligan.StatusDone {
			t.Errorf("the call without an effect was made %d times, %s: %+v", n, st.State, st.Record)
		}
	})
}

func TestACallWithinAStepOfAOnceJobIsNotRepeatedInDoubt(t *testing.T) {
	bubble(t, once, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			if _, err := mulligan.Step(ctx, j, "look", func(context.Context) (int, error) { return 1, nil }); err != nil {
				return nil, err
			}
			err := mulligan.Policy{}.Do(ctx, func(context.Context) error { // outside of steps: it may be repeated
				if f.log.note("read") < 3 {
					return errFlaky
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
			return mulligan.Step(ctx, j, "charge", func(ctx context.Context) ([]byte, error) {
				return nil, mulligan.Policy{}.Do(ctx, func(context.Context) error { f.log.note("charge"); return errFlaky })
			})
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(time.Minute)
		stop()
		if st := f.state(t, "x"); len(f.log.of("read")) != 3 || len(f.log.of("charge")) != 1 || st.Record.Reason != mulligan.InDoubt {
			t.Errorf("read %d times, charged %d times: %+v", len(f.log.of("read")), len(f.log.of("charge")), st.Record)
		}
	})
}

func TestRetriesWithinAHandlerSpendTheTask(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		lines := new(lockedBuffer)
		stop := f.work(t, &consumer.Worker{Log: zerolog.New(lines)}, calling(mulligan.Policy{}, asItIs, func(_ context.Context, j *mulligan.Job) error {
			f.log.note(j.ID)
			return errFlaky
		}))
		for _, id := range []string{"a", "b"} {
			f.publish(t, mulligan.Job{ID: id, Task: "run-7", TaskRetries: 4})
			time.Sleep(20 * time.Second)
		}
		stop()
		if n := lines.count(`"verb":"retry"`); n != 4 {
			t.Errorf("%d retries are shown, want 4", n)
		}
		books, err := budget.OpenBooks(t.Context(), f.JS, mulligan.Topology{})
		if err != nil {
			t.Fatal(err)
		}
		if s, err := books.Task(t.Context(), "run-7"); err != nil || s.Used != 4 || s.Denied != 1 {
			t.Errorf("the task has %+v (%v)", s, err)
		}
		if a, b := f.state(t, "a"), f.state(t, "b"); a.Record.Reason != mulligan.AttemptsExhausted || b.Record.Reason != mulligan.TaskBudget || b.Record.Attempts != 2 {
			t.Errorf("a: %+v\nb: %+v", a.Record, b.Record)
		}
	})
}

func TestRetriesWithinAHandlerKeepToTheirUsersRate(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{UserRate: budget.Rate{PerSecond: 0.5, Burst: 1}}, calling(mulligan.Policy{Total: 3 * time.Second}, asItIs, func(_ context.Context, j *mulligan.Job) error {
			f.log.note(j.ID)
			return errFlaky
		}))
		f.publish(t, mulligan.Job{ID: "x", User: "ada"})
		time.Sleep(time.Second)
		f.publish(t, mulligan.Job{ID: "y", User: "ada"})
		f.publish(t, mulligan.Job{ID: "z", User: "ada"})
		time.Sleep(20 * time.Second)
		stop()
		var retries []time.Time
		denied := 0
		for _, id := range []string{"x", "y", "z"} {
			retries = append(retries, f.log.of(id)[1:]...)
			if f.state(t, id).Record.Reason == mulligan.UserBudget {
				denied++
			}
		}
		slices.SortFunc(retries, time.Time.Compare)
		for n := 1; n < len(retries); n++ {
			if gap := retries[n].Sub(retries[n-1]); gap < 1990*time.Millisecond {
				t.Errorf("two retries of a user within %v", gap)
			}
		}
		if denied > 0 || len(retries) < 6 {
			t.Errorf("%d retries, %d jobs ended though their user has a place before the deadline", len(retries), denied)
		}
	})
}

func TestACallOfAnotherDownstreamGoesByItsBudget(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		other, err := budget.NewDownstream(budget.Limits{Cap: 1, Floor: 0.001}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var failed *mulligan.CallError
		stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			ctx = mulligan.WithDownstream(ctx, budget.Calls{Downstream: other, User: j.User})
			err := mulligan.Policy{Total: 3 * time.Second}.Do(ctx, func(context.Context) error {
				f.log.note(j.ID)
				return errFlaky
			})
			if failed == nil {
				errors.As(err, &failed)
			}
			return nil, err
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(20 * time.Second)
		stop()
		runs, st := f.log.of("x"), f.state(t, "x")
		if failed.Reason != mulligan.Held || failed.Attempts != 2 || !strings.Contains(failed.Error(), "token") || other.State(time.Now()).InFlight != 0 {
			t.Errorf("with one token: %v", failed)
		}
		if len(runs) != 4 || runs[2].Sub(runs[1]) < mulligan.MaxNak || st.Record.Reason != mulligan.AttemptsExhausted || st.Record.Attempts != 4 {
			t.Errorf("called at %v, want the queue to go on without a token: %+v", runs, st.Record)
		}
	})
}

func TestACallThatAShutdownCutCostsWhatHadFailedBefore(t *testing.T) {
	bubble(t, durable(keyed), func(t *testing.T, f *floor) {
		handler := calling(mulligan.Policy{}, asItIs, func(ctx context.Context, j *mulligan.Job) error {
			switch n := f.log.note(j.ID); {
			case j.ID == "failed-before" && n <= 2:
				return errFlaky
			case n > 3 || j.ID == "at-once" && n > 1:
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		})
		stop := f.work(t, &consumer.Worker{Grace: time.Second}, handler)
		f.publish(t, mulligan.Job{ID: "failed-before"}, mulligan.Job{ID: "at-once"})
		time.Sleep(3 * time.Second)
		stop()
		stop = f.work(t, &consumer.Worker{}, handler)
		time.Sleep(time.Minute)
		stop()
		for id, attempts := range map[string]int{"failed-before": 3, "at-once": 1} {
			if st := f.state(t, id); st.State != mulligan.StatusDone || st.Record.Attempts != attempts {
				t.Errorf("%s: %s, want done at attempt %d: %+v", id, st.State, attempts, st.Record)
			}
		}
	})
}

func TestARehearsedCallIsJudgedAsByAWorker(t *testing.T) {
	p := mulligan.Policy{Attempts: 2, FirstDelay: time.Millisecond}
	for _, tt := range []struct {
		name string
		kind mulligan.Kind
		hand func(error) error
		err  error
		want consumer.Rehearsal
	}{
		{"a failed call ends the job", durable(keyed), asItIs, errFlaky, consumer.Rehearsal{Verb: "spend", Reason: mulligan.AttemptsExhausted, Tries: 2}},
		{"later counts its attempts", durable(keyed), mulligan.Later, errFlaky, consumer.Rehearsal{Verb: "retry", Delay: 200 * time.Millisecond, Tries: 2}},
		{"later is refused in doubt", durable(once), mulligan.Later, errFlaky, consumer.Rehearsal{Verb: "spend", Reason: mulligan.InDoubt, Tries: 1}},
		{"what is deferred was no attempt", durable(keyed), asItIs, mulligan.RefusedCredential(errFlaky), consumer.Rehearsal{Verb: "defer", Reason: mulligan.Credential, Delay: 30 * time.Second}},
		{"a call without an effect is repeated", durable(once), mulligan.Later, mulligan.NotStarted(errFlaky), consumer.Rehearsal{Verb: "retry", Delay: 200 * time.Millisecond, Tries: 2}},
	} {
		got, err := consumer.Rehearse(t.Context(), tt.kind, calling(p, tt.hand, func(context.Context, *mulligan.Job) error { return tt.err }), mulligan.Job{ID: "x"})
		if err != nil || got.Verb != tt.want.Verb || got.Reason != tt.want.Reason || got.Delay != tt.want.Delay || got.Tries != tt.want.Tries || !errors.Is(got.Err, errFlaky) {
			t.Errorf("%s: got %+v (%v), want %+v", tt.name, got, err, tt.want)
		}
	}
}
