package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
)

func TestACallWithinAStepIsNotRepeatedInDoubtWhateverItsContext(t *testing.T) {
	bubble(t, durable(once), func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			return mulligan.Step(ctx, j, "charge", func(context.Context) ([]byte, error) { // not the step's context
				return nil, mulligan.Policy{}.Do(ctx, func(context.Context) error { f.log.note("charge"); return errFlaky })
			})
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(time.Minute)
		stop()
		if n, r := len(f.log.of("charge")), f.state(t, "x").Record; n != 1 || r.Reason != mulligan.InDoubt {
			t.Errorf("charged %d times: %+v", n, r)
		}
	})
}

func TestWhatOneCallOfAOnceJobDidIsNotUndoneByAnother(t *testing.T) {
	refused := fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	for _, tt := range []struct {
		name  string
		first error
		hand  func(error) error
	}{
		{"a call that succeeded", nil, mulligan.Later},
		{"a call in doubt whose error is lost", errFlaky, mulligan.Later},
		{"whose second is told otherwise", nil, func(err error) error { return fmt.Errorf("%v: %w", err, syscall.ECONNREFUSED) }},
	} {
		bubble(t, durable(once), func(t *testing.T, f *floor) {
			stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
				_ = mulligan.Policy{}.Do(ctx, func(context.Context) error { f.log.note("charge"); return tt.first })
				return nil, tt.hand(mulligan.Policy{Attempts: 2}.Do(ctx, func(context.Context) error { return refused }))
			})
			f.publish(t, mulligan.Job{ID: "x"})
			time.Sleep(5 * time.Minute)
			stop()
			if n, r := len(f.log.of("charge")), f.state(t, "x").Record; n != 1 || r.Reason != mulligan.InDoubt {
				t.Errorf("%s: charged %d times: %+v", tt.name, n, r)
			}
		})
	}
}

func TestAStepWithinACallIsDoneOnce(t *testing.T) {
	for _, kind := range []mulligan.Kind{durable(keyed), durable(once)} {
		bubble(t, kind, func(t *testing.T, f *floor) {
			stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
				return nil, mulligan.Policy{}.Do(ctx, func(ctx context.Context) error {
					n, err := mulligan.Step(ctx, j, "charge", func(context.Context) (int, error) { return f.log.note("charge"), nil })
					if err != nil || n != 1 {
						return errors.Join(err, mulligan.Permanent(fmt.Errorf("the step returned %d", n)))
					}
					if f.log.note("read") == 1 { // outside of steps: it may be repeated
						return errFlaky
					}
					return nil
				})
			})
			f.publish(t, mulligan.Job{ID: "x"})
			time.Sleep(time.Minute)
			stop()
			if st := f.state(t, "x"); st.State != mulligan.StatusDone || len(f.log.of("charge")) != 1 || len(f.log.of("read")) != 2 {
				t.Errorf("%s: charged %d times, %s: %+v", kind.Effect, len(f.log.of("charge")), st.State, st.Record)
			}
		})
	}
}

func TestAStepsNameIsUsedOnceInAnAttempt(t *testing.T) {
	bubble(t, durable(keyed), func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			return nil, mulligan.Policy{}.Do(ctx, func(ctx context.Context) error {
				for range 2 {
					if _, err := mulligan.Step(ctx, j, "charge", func(context.Context) (int, error) { return 1, nil }); err != nil {
						return err
					}
				}
				return nil
			})
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(time.Minute)
		stop()
		if r := f.state(t, "x").Record; r.Reason != mulligan.PermanentFailure || r.Last().ErrorType != "bad_step" {
			t.Errorf("%+v", r)
		}
	})
}

func TestAKindsAttemptsAreKeptByItsCalls(t *testing.T) {
	kind := keyed
	kind.Policy = mulligan.Policy{Attempts: 4, Total: time.Minute}
	swallow := func(err error) error { return fmt.Errorf("ask the model: %v", err) }
	for _, tt := range []struct {
		name    string
		handler func(call func(context.Context) error) mulligan.HandlerFunc
		calls   int
	}{
		{"of a call that is handed over", func(call func(context.Context) error) mulligan.HandlerFunc {
			return calling(mulligan.Policy{Attempts: 3}, mulligan.Later, func(ctx context.Context, _ *mulligan.Job) error { return call(ctx) })
		}, 4},
		{"of a call whose error is lost", func(call func(context.Context) error) mulligan.HandlerFunc {
			return calling(mulligan.Policy{Attempts: 3}, swallow, func(ctx context.Context, _ *mulligan.Job) error { return call(ctx) })
		}, 4},
		{"of calls side by side", func(call func(context.Context) error) mulligan.HandlerFunc {
			return func(ctx context.Context, _ *mulligan.Job) ([]byte, error) {
				errs := make(chan error, 10)
				for range cap(errs) {
					go func() { errs <- mulligan.Policy{}.Do(ctx, call) }()
				}
				var all []error
				for range cap(errs) {
					all = append(all, <-errs)
				}
				return nil, mulligan.Later(errors.Join(all...))
			}
		}, 13}, // ten firsts, and the retries that the job has
	} {
		bubble(t, kind, func(t *testing.T, f *floor) {
			stop := f.work(t, &consumer.Worker{}, tt.handler(func(context.Context) error { f.log.note("call"); return errFlaky }))
			f.publish(t, mulligan.Job{ID: "x"})
			time.Sleep(5 * time.Minute)
			stop()
			if n, r := len(f.log.of("call")), f.state(t, "x").Record; n != tt.calls || r.Attempts != 4 || r.Reason != mulligan.AttemptsExhausted {
				t.Errorf("%s: %d calls, want %d: %+v", tt.name, n, tt.calls, r)
			}
		})
	}
}

func TestTheRecordCountsTheRetriesOfACallThatSucceeds(t *testing.T) {
	bubble(t, durable(keyed), func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, calling(mulligan.Policy{}, asItIs, func(_ context.Context, j *mulligan.Job) error {
			if f.log.note(j.ID) < 3 {
				return errFlaky
			}
			return nil
		}))
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(time.Minute)
		stop()
		if st := f.state(t, "x"); st.State != mulligan.StatusDone || st.Record.Attempts != 3 {
			t.Errorf("%s: %+v", st.State, st.Record)
		}
	})
}

func TestALostHintIsKept(t *testing.T) {
	const hint = 20 * time.Second
	bubble(t, durable(keyed), func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, calling(mulligan.Policy{}, func(err error) error { return errors.New(err.Error()) }, func(_ context.Context, j *mulligan.Job) error {
			if f.log.note(j.ID) == 1 {
				return mulligan.After(hint, errFlaky)
			}
			return nil
		}))
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(time.Minute)
		stop()
		if runs := f.log.of("x"); len(runs) != 2 || runs[1].Sub(runs[0]) < hint {
			t.Errorf("called at %v, the hint was %v", runs, hint)
		}
	})
}
