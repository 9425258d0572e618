package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/dedupe"
	"github.com/mulligan-queue/mulligan/scheduler"
)

var once = mulligan.Kind{Name: "smtp.send", Effect: mulligan.Once}

func TestAStepThatIsDoneIsNotRepeated(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		var charged, mailed atomic.Int32
		stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			receipt, err := mulligan.Step(ctx, j, "charge", func(context.Context) (int32, error) { return 41 + charged.Add(1), nil })
			if err != nil {
				return nil, err
			}
			_, err = mulligan.Step(ctx, j, "mail", func(context.Context) (struct{}, error) {
				if mailed.Add(1) < 3 {
					return struct{}{}, errFlaky
				}
				return struct{}{}, nil
			})
			return fmt.Appendf(nil, "charged as %d under %s", receipt, j.StepKey("charge")), err
		})
		f.publish(t, mulligan.Job{ID: "order-1"})
		time.Sleep(time.Minute)
		stop()
		st := f.state(t, "order-1")
		if st.State != mulligan.StatusDone || st.Record.Attempts != 3 || charged.Load() != 1 || mailed.Load() != 3 {
			t.Fatalf("charged %d times, mailed %d times, %s: %+v", charged.Load(), mailed.Load(), st.State, st.Record)
		}
		if got, want := string(st.Record.Result.Data), "charged as 42 under email.send/order-1/charge"; got != want {
			t.Errorf("the third attempt returned %q, want what the first was told: %q", got, want)
		}
	})
}

func TestAResultOfAStepThatIsTooLargeIsNotWorthASecondEffect(t *testing.T) {
	kind := keyed
	kind.MaxResult = 1000
	bubble(t, kind, func(t *testing.T, f *floor) {
		var charged atomic.Int32
		stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			if _, err := mulligan.Step(ctx, j, "small", func(context.Context) (string, error) { return strings.Repeat("x", 600), nil }); err != nil {
				return nil, err
			}
			page, err := mulligan.Step(ctx, j, "charge", func(context.Context) (string, error) {
				charged.Add(1)
				return strings.Repeat("y", 600), nil
			})
			if err == nil && len(page) == 600 {
				err = errFlaky // the step gave its result; the job fails behind it
			}
			return nil, err
		})
		f.publish(t, mulligan.Job{ID: "order-1"})
		time.Sleep(time.Minute)
		stop()
		st := f.state(t, "order-1")
		if charged.Load() != 1 || st.State != mulligan.StatusDead || st.Record.Reason != mulligan.PermanentFailure || st.Record.Last().ErrorType != "not_kept" {
			t.Errorf("charged %d times, %s: %+v", charged.Load(), st.State, st.Record)
		}
	})
}

func TestAStepOfAPureJobIsAnErrorThatSaysSo(t *testing.T) {
	bubble(t, mulligan.Kind{Name: "llm.complete", Effect: mulligan.Pure}, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			_, err := mulligan.Step(ctx, j, "charge", func(context.Context) (int, error) { return 0, nil })
			return nil, err
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(10 * time.Second)
		stop()
		if st := f.state(t, "x"); st.Record == nil || st.Record.Reason != mulligan.PermanentFailure || !strings.Contains(st.Record.Last().Error, "only keyed and once kinds have steps") {
			t.Errorf("%s: %+v", st.State, st.Record)
		}
	})
}

func TestAOnceJobIsTriedAgainOnlyWhenItsEffectCertainlyDidNotHappen(t *testing.T) {
	bubble(t, once, func(t *testing.T, f *floor) {
		fate := map[string]error{"not-started": mulligan.NotStarted(errFlaky), "timeout": context.DeadlineExceeded, "flaky": errFlaky}
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note(j.ID)
			if j.Attempt > 1 {
				return []byte("sent"), nil
			}
			return nil, fate[j.ID]
		})
		for id := range fate {
			f.publish(t, mulligan.Job{ID: id})
		}
		time.Sleep(time.Minute)
		stop()
		for id := range fate {
			state, runs := mulligan.StatusDead, 1
			if id == "not-started" {
				state, runs = mulligan.StatusDone, 2
			}
			if st := f.state(t, id); st.State != state || len(f.log.of(id)) != runs || state == mulligan.StatusDead && st.Record.Reason != mulligan.InDoubt {
				t.Errorf("%s ran %d times and is %s: %+v", id, len(f.log.of(id)), st.State, st.Record)
			}
		}
	})
}

func TestTheStepsOfAOnceJobGoOnAfterARetryThatWasParked(t *testing.T) {
	bubble(t, once, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			for _, name := range []string{"charge", "mail"} {
				if _, err := mulligan.Step(ctx, j, name, func(context.Context) (int, error) {
					f.log.note(name)
					if j.Attempt == 1 && name == "mail" {
						return 0, mulligan.After(3*time.Second, mulligan.NotStarted(errFlaky))
					}
					return 0, nil
				}); err != nil {
					return nil, err
				}
			}
			return nil, nil
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(time.Minute)
		stop()
		if st := f.state(t, "x"); st.State != mulligan.StatusDone || st.Record.Attempts != 2 || len(f.log.of("charge")) != 1 || len(f.log.of("mail")) != 2 {
			t.Errorf("charged %d times, mailed %d times, %s: %+v", len(f.log.of("charge")), len(f.log.of("mail")), st.State, st.Record)
		}
	})
}

// The worker is too slow between two steps: its message is given to another,
// which goes on behind the first step while the slow one still lives.
func TestOfTwoRunsOfAOnceJobOneBeginsEachStep(t *testing.T) {
	bubble(t, once, func(t *testing.T, f *floor) {
		e := make(chan struct{})
		stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			run := f.log.note("runs")
			for _, name := range []string{"charge", "mail"} {
				if _, err := mulligan.Step(ctx, j, name, func(context.Context) (int, error) { return f.log.note(name), nil }); err != nil {
					return nil, err
				}
				if run == 1 && name == "charge" {
					f.takeOver(t, j)
					<-e // for as long as the other takes
				}
			}
			return fmt.Appendf(nil, "run %d", run), nil
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(10 * time.Second)
		close(e)
		time.Sleep(2 * time.Minute)
		stop()
		st := f.state(t, "x")
		if len(f.log.of("charge")) != 1 || len(f.log.of("mail")) > 1 {
			t.Errorf("charged %d times, mailed %d times: %+v", len(f.log.of("charge")), len(f.log.of("mail")), st.Record)
		}
		if st.State != mulligan.StatusDone && st.Record.Reason != mulligan.InDoubt {
			t.Errorf("%s: %+v", st.State, st.Record)
		}
	})
}

// takeOver writes what another worker does that was given the message.
func (f *floor) takeOver(t *testing.T, j *mulligan.Job) {
	t.Helper()
	ledger, err := dedupe.Open(t.Context(), f.JS, mulligan.Topology{})
	if err == nil {
		err = ledger.Update(t.Context(), "test", mulligan.RecordKey(j.Kind, mulligan.Token(j.ID)), func(r *mulligan.Record) bool {
			r.Starts, r.Start = r.Starts+1, &mulligan.Start{Delivery: "another", Address: r.Start.Address, At: time.Now()}
			return true
		})
	}
	if err != nil {
		t.Error(err)
	}
}

func TestAJobWithoutAnIDWhoseEffectNeedsOneIsTriedOnce(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		// This publisher was built when the kind was pure, and knows no other.
		stale := &mulligan.Publisher{Conn: f.Conn, Kinds: []mulligan.Kind{{Name: keyed.Name, Effect: mulligan.Pure}}}
		receipt, err := stale.Publish(t.Context(), mulligan.Job{Kind: keyed.Name})
		if err != nil {
			t.Fatal(err)
		}
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note(j.ID)
			return nil, errFlaky
		})
		time.Sleep(time.Minute)
		if st := f.state(t, receipt.ID); len(f.log.of(receipt.ID)) != 1 || st.State != mulligan.StatusDead || st.Record.Reason != mulligan.NoKey {
			t.Errorf("it ran %d times and is %s: %+v", len(f.log.of(receipt.ID)), st.State, st.Record)
		}
		// By now the worker has declared what the kind is.
		if _, err := stale.Publish(t.Context(), mulligan.Job{Kind: keyed.Name}); !errors.Is(err, mulligan.ErrNoKey) {
			t.Errorf("publishing another: %v, want it refused", err)
		}
		stop()
	})
}

func TestAPureKindMayKeepItsResults(t *testing.T) {
	kind := mulligan.Kind{Name: "llm.complete", Effect: mulligan.Pure, KeepResults: true}
	bubble(t, kind, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			return fmt.Appendf(nil, "run %d", f.log.note(j.ID)), nil
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(time.Second)
		r, err := f.pub.Result(t.Context(), kind.Name, "x")
		if err != nil || string(r.Data) != "run 1" {
			t.Fatalf("result %+v, %v", r, err)
		}
		receipt, err := f.pub.Publish(t.Context(), mulligan.Job{Kind: kind.Name, ID: "x"})
		if err != nil || receipt.State != mulligan.Done || string(receipt.Result.Data) != "run 1" {
			t.Errorf("publishing it again: %+v, %v; want its result", receipt, err)
		}
		stop()
	})
}

func TestAResultThatIsTooLargeIsNotWorthASecondEffect(t *testing.T) {
	kind := keyed
	kind.MaxResult = 100
	bubble(t, kind, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note(j.ID)
			return make([]byte, 101), nil
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(time.Minute)
		stop()
		r, err := f.pub.Result(t.Context(), kind.Name, "x")
		if err != nil || !r.TooLarge || r.Size != 101 || r.Fingerprint != mulligan.FingerprintOf(make([]byte, 101)) || len(f.log.of("x")) != 1 {
			t.Errorf("it ran %d times, its result is %+v, %v", len(f.log.of("x")), r, err)
		}
	})
}

func TestAMaxResultThatNoRecordTakesIsRefusedAtTheStart(t *testing.T) {
	kind := keyed
	kind.MaxResult = 8 << 20
	bubble(t, keyed, func(t *testing.T, f *floor) {
		w := &consumer.Worker{Conn: f.Conn}
		w.Handle(kind, mulligan.HandlerFunc(func(context.Context, *mulligan.Job) ([]byte, error) { return nil, nil }))
		if err := w.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "lower it, or raise the server's max_payload") {
			t.Errorf("Run: %v", err)
		}
		time.Sleep(time.Second) // for the scheduler to begin
	})
}

func TestTheRecordNamesWhatAHandlerChanged(t *testing.T) {
	bubble(t, mulligan.Kind{Name: "llm.complete", Effect: mulligan.Pure}, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			if f.log.note(j.ID); j.Attempt == 1 {
				return nil, mulligan.Changed([]byte(`{"model":"large","max":9}`), mulligan.Unusable(errFlaky))
			}
			return nil, mulligan.Unusable(errors.New(string(j.Payload)))
		})
		payload := []byte(`{"model":"small","max":9}`)
		f.publish(t, mulligan.Job{ID: "x", Payload: payload})
		time.Sleep(time.Minute)
		stop()
		st := f.state(t, "x")
		if st.Record == nil || st.Record.Reason != mulligan.NoChange || string(st.Record.History[0].Change) != `{"model":"large"}` {
			t.Fatalf("%s: %+v", st.State, st.Record)
		}
		l, err := (&scheduler.Scheduler{Conn: f.Conn}).Letter(t.Context(), "llm.complete", "x")
		if err != nil || string(l.Payload) != string(payload) || string(l.History[0].Change) != `{"model":"large"}` {
			t.Errorf("the letter has %s and %+v, %v; want the payload as published", l.Payload, l.History, err)
		}
	})
}

func TestAnEmptyChangedPayloadIsTried(t *testing.T) {
	bubble(t, mulligan.Kind{Name: "llm.complete", Effect: mulligan.Pure}, func(t *testing.T, f *floor) {
		empty := map[string][]byte{"none": nil, "empty": {}}
		var got sync.Map
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			if j.Attempt == 1 {
				return nil, mulligan.Changed(empty[j.ID], errFlaky)
			}
			got.Store(j.ID, string(j.Payload))
			return nil, nil
		})
		for id := range empty {
			f.publish(t, mulligan.Job{ID: id, Payload: []byte("published")})
		}
		time.Sleep(time.Minute)
		stop()
		for id := range empty {
			if payload, ran := got.Load(id); payload != "" {
				t.Errorf("%s: the second attempt was given %q, %v; want the empty payload that was asked for", id, payload, ran)
			}
		}
	})
}

func TestAJobForLaterPublishedAgainRunsOnce(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note(j.ID)
			return nil, nil
		})
		at := time.Now().Add(10 * time.Minute)
		for range 3 { // further apart than the server remembers an ID
			f.publish(t, mulligan.Job{ID: "x", NotBefore: at})
			time.Sleep(150 * time.Second)
		}
		time.Sleep(5 * time.Minute)
		stop()
		if runs := f.log.of("x"); len(runs) != 1 || runs[0].Before(at) {
			t.Errorf("it ran at %v, want once and not before %v", runs, at)
		}
		if c := f.Account(t); c.Held() != 0 {
			t.Errorf("%+v is left", c)
		}
	})
}

func TestAJobPublishedAgainWhileItsRetriesWaitIsNeverBeforeAHint(t *testing.T) {
	kind := keyed
	kind.Policy = mulligan.Policy{Attempts: 6, Total: 2 * time.Hour, Timeout: 5 * time.Second}
	bubble(t, kind, func(t *testing.T, f *floor) {
		const hint = 4 * time.Minute
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note(j.ID)
			return nil, mulligan.After(hint, errFlaky)
		})
		for range 3 {
			f.publish(t, mulligan.Job{ID: "x"})
			time.Sleep(3 * time.Minute)
		}
		time.Sleep(30 * time.Minute)
		stop()
		runs := f.log.of("x")
		if len(runs) != 6 {
			t.Errorf("it ran %d times, want 6", len(runs))
		}
		for i := 1; i < len(runs); i++ {
			if gap := runs[i].Sub(runs[i-1]); gap < hint {
				t.Errorf("run %d came %v after the one before, the hint was %v", i+1, gap, hint)
			}
		}
		if st := f.state(t, "x"); st.State != mulligan.StatusDead || st.Record.Reason != mulligan.AttemptsExhausted {
			t.Errorf("%s: %+v", st.State, st.Record)
		}
	})
}

func TestAHugeErrorIsCutAndRecorded(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note(j.ID)
			return nil, mulligan.Permanent(errors.New(strings.Repeat("<", 2<<20)))
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(time.Minute)
		stop()
		if st := f.state(t, "x"); len(f.log.of("x")) != 1 || st.Record == nil || st.Record.Reason != mulligan.PermanentFailure || st.Record.Attempts != 1 {
			t.Errorf("it ran %d times: %s, %+v", len(f.log.of("x")), st.State, st.Record)
		}
	})
}

func TestAHandlerThatEndsItsGoroutineDoesNotEndTheWorker(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{Concurrency: 1}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			if f.log.note(j.ID); j.ID == "bad" {
				runtime.Goexit()
			}
			return nil, nil
		})
		f.publish(t, mulligan.Job{ID: "bad"})
		time.Sleep(time.Second)
		f.publish(t, mulligan.Job{ID: "good"})
		time.Sleep(5 * time.Minute)
		stop()
		if st := f.state(t, "good"); st.State != mulligan.StatusDone {
			t.Errorf("the job behind it is %s", st.State)
		}
		if st := f.state(t, "bad"); st.State != mulligan.StatusDead || st.Record.Reason != mulligan.Crashed || len(f.log.of("bad")) != 3 {
			t.Errorf("after %d runs it is %s: %+v", len(f.log.of("bad")), st.State, st.Record)
		}
	})
}

func TestWaitingForAResult(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			if time.Sleep(3 * time.Second); j.ID == "refused" {
				return nil, mulligan.Permanent(errFlaky)
			}
			return []byte("sent"), nil
		})
		f.publish(t, mulligan.Job{ID: "fine"}, mulligan.Job{ID: "refused"})
		if _, err := f.pub.Result(t.Context(), keyed.Name, "fine"); !errors.Is(err, mulligan.ErrNotDone) {
			t.Errorf("at once: %v", err)
		}
		early, cancel := context.WithTimeout(t.Context(), time.Second)
		if st, err := f.pub.Wait(early, keyed.Name, "fine"); !errors.Is(err, context.DeadlineExceeded) || st.State != mulligan.StatusRunning {
			t.Errorf("after a second it is %s, %v", st.State, err)
		}
		cancel()
		began := time.Now()
		st, err := f.pub.Wait(t.Context(), keyed.Name, "fine")
		if r, rerr := st.Result(); err != nil || rerr != nil || string(r.Data) != "sent" {
			t.Errorf("%s, %v, %v", st.State, err, rerr)
		}
		if late := time.Since(began) - 2*time.Second; late > 100*time.Millisecond {
			t.Errorf("it was told %v late", late)
		}
		st, err = f.pub.Wait(t.Context(), keyed.Name, "refused")
		if _, rerr := st.Result(); err != nil || !errors.Is(rerr, mulligan.ErrDead) || !strings.Contains(rerr.Error(), "permanent") {
			t.Errorf("%s, %v, %v", st.State, err, rerr)
		}
		st, err = f.pub.Wait(t.Context(), keyed.Name, "never")
		if _, rerr := st.Result(); err != nil || !errors.Is(rerr, mulligan.ErrNotFound) {
			t.Errorf("a job that was never published is %s, %v, %v", st.State, err, rerr)
		}
		stop()
	})
}

func TestWhatAHandlerSaysForCertainAtAShutdownStands(t *testing.T) {
	bubble(t, once, func(t *testing.T, f *floor) {
		says := map[string]error{"unusable": mulligan.Unusable(errFlaky), "permanent": mulligan.Permanent(errFlaky), "flaky": errFlaky, "doubt": fmt.Errorf("no word: %w", mulligan.ErrInDoubt)}
		w := &consumer.Worker{Grace: 4 * time.Second}
		stop := f.work(t, w, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note(j.ID)
			time.Sleep(5500 * time.Millisecond) // it does not heed its context
			return nil, says[j.ID]
		})
		for id := range says {
			f.publish(t, mulligan.Job{ID: id})
		}
		time.Sleep(time.Second)
		stop()
		stop = f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note(j.ID)
			return nil, nil
		})
		time.Sleep(time.Minute)
		stop()
		for id, want := range map[string]mulligan.Reason{"unusable": mulligan.NoChange, "permanent": mulligan.PermanentFailure, "flaky": mulligan.InDoubt, "doubt": mulligan.InDoubt} {
			if st := f.state(t, id); len(f.log.of(id)) != 1 || st.Record.Reason != want || len(st.Record.History) != 1 {
				t.Errorf("%s ran %d times and is %s: %+v", id, len(f.log.of(id)), st.State, st.Record)
			}
		}
	})
}

func TestAOnceJobWhoseNextReleaseUsesNoStepsIsInDoubtAsAny(t *testing.T) {
	bubble(t, once, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			_, err := mulligan.Step(ctx, j, "look-up", func(context.Context) (int, error) { return 1, nil })
			return nil, errors.Join(err, mulligan.After(5*time.Second, mulligan.NotStarted(errFlaky)))
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(time.Second)
		stop()
		stop = f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note("sent")
			return nil, context.DeadlineExceeded
		})
		time.Sleep(time.Minute)
		stop()
		if st := f.state(t, "x"); len(f.log.of("sent")) != 1 || st.Record.Reason != mulligan.InDoubt {
			t.Errorf("sent %d times: %+v", len(f.log.of("sent")), st.Record)
		}
	})
}

func TestStepsStandBesideEachOtherAndHaveNamesOfTheirOwn(t *testing.T) {
	do := func(context.Context) (int, error) { return 0, nil }
	for name, handler := range map[string]mulligan.HandlerFunc{
		"one within another": func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			_, err := mulligan.Step(ctx, j, "outer", func(ctx context.Context) (int, error) { return mulligan.Step(ctx, j, "inner", do) })
			return nil, err
		},
		"one name twice": func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			for range 2 {
				if _, err := mulligan.Step(ctx, j, "mail", do); err != nil {
					return nil, err
				}
			}
			return nil, nil
		},
		"too many": func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			for i := range mulligan.MaxSteps + 1 {
				if _, err := mulligan.Step(ctx, j, fmt.Sprint("step-", i), do); err != nil {
					return nil, err
				}
			}
			return nil, nil
		},
	} {
		r, err := consumer.Rehearse(t.Context(), keyed, handler, mulligan.Job{ID: "x"})
		if err != nil || r.Reason != mulligan.PermanentFailure || r.ErrorType != "bad_step" {
			t.Errorf("%s: %+v, %v; want a permanent error that says what to mend", name, r, err)
		}
	}
}

func TestStepsOfAKeyThatIsDoneByHandDoNotBegin(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		ledger, err := dedupe.Open(t.Context(), f.JS, mulligan.Topology{})
		if err != nil {
			t.Fatal(err)
		}
		stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			if _, err := mulligan.Step(ctx, j, "charge", func(context.Context) (int, error) { return 1, nil }); err != nil {
				return nil, err
			}
			err := ledger.Update(ctx, "test", mulligan.RecordKey(j.Kind, j.ID), func(r *mulligan.Record) bool {
				r.State, r.Result = mulligan.Done, mulligan.NewResult([]byte("by hand"), time.Now())
				return true
			})
			if err != nil {
				return nil, err
			}
			_, err = mulligan.Step(ctx, j, "mail", func(context.Context) (int, error) { return f.log.note("mailed"), nil })
			return nil, err
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(time.Minute)
		stop()
		if st := f.state(t, "x"); len(f.log.of("mailed")) != 0 || string(st.Record.Result.Data) != "by hand" {
			t.Errorf("mailed %d times: %+v", len(f.log.of("mailed")), st.Record)
		}
	})
}

func TestTheJobsOfATaskShareItsRetries(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note(j.Task)
			return nil, errFlaky
		})
		const jobs = 8
		for i := range jobs {
			f.publish(t, mulligan.Job{ID: fmt.Sprint("run-7-", i), Task: "run 7"}, mulligan.Job{ID: fmt.Sprint("run-8-", i), Task: "run 8", TaskRetries: 12})
		}
		f.publish(t, mulligan.Job{ID: "alone"})
		f.settled(t, slices.Concat(ids("run-7-", jobs), ids("run-8-", jobs), []string{"alone"})...)
		stop()
		for task, want := range map[string]int{"run 7": jobs + mulligan.DefaultTaskRetries, "run 8": jobs + 12, "": 4} {
			if n := len(f.log.of(task)); n != want {
				t.Errorf("the jobs of task %q were called %d times, want %d", task, n, want)
			}
		}
		reasons := map[mulligan.Reason]int{}
		for i := range jobs {
			reasons[f.state(t, fmt.Sprint("run-7-", i)).Record.Reason]++
		}
		if reasons[mulligan.TaskBudget] < jobs-1 || len(reasons) > 2 {
			t.Errorf("they died of %v", reasons)
		}
	})
}

func TestAChangedPayloadCountsTwiceAgainstTheTask(t *testing.T) {
	bubble(t, mulligan.Kind{Name: "llm.complete", Effect: mulligan.Pure}, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			return nil, mulligan.Changed(fmt.Append(nil, f.log.note(j.ID)), errFlaky)
		})
		f.publish(t, mulligan.Job{ID: "x", Task: "t", TaskRetries: 3})
		time.Sleep(time.Minute)
		stop()
		if st := f.state(t, "x"); len(f.log.of("x")) != 2 || st.Record.Reason != mulligan.TaskBudget {
			t.Errorf("it ran %d times: %+v", len(f.log.of("x")), st.Record)
		}
	})
}

func TestATaskWhoseBudgetIsGarbageHasNoRetries(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		kv, err := f.JS.KeyValue(t.Context(), mulligan.Topology{}.BudgetBucket())
		if err == nil {
			_, err = kv.PutString(t.Context(), "task.t", "garbage")
		}
		if err != nil {
			t.Fatal(err)
		}
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note(j.ID)
			return nil, errFlaky
		})
		f.publish(t, mulligan.Job{ID: "x", Task: "t"})
		time.Sleep(time.Minute)
		stop()
		if st := f.state(t, "x"); len(f.log.of("x")) != 1 || st.Record.Reason != mulligan.TaskBudget || st.Record.Attempts != 1 {
			t.Errorf("it ran %d times: %+v", len(f.log.of("x")), st.Record)
		}
	})
}

func TestAKeyedCallThatAShutdownCutIsRemembered(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{Grace: time.Second}, func(ctx context.Context, _ *mulligan.Job) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(time.Second)
		stop()
		if st := f.state(t, "x"); st.Record == nil || st.Record.FirstCall.IsZero() || st.Record.Attempts != 0 {
			t.Errorf("%s: %+v; want no attempt counted, and when the key went out", st.State, st.Record)
		}
	})
}

func TestAJobWithoutAnIDThatAShutdownCutIsNotTriedAgain(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		stale := &mulligan.Publisher{Conn: f.Conn, Kinds: []mulligan.Kind{{Name: keyed.Name, Effect: mulligan.Pure}}}
		receipt, err := stale.Publish(t.Context(), mulligan.Job{Kind: keyed.Name})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			stop := f.work(t, &consumer.Worker{Grace: time.Second}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
				f.log.note(j.ID)
				<-ctx.Done()
				return nil, ctx.Err()
			})
			time.Sleep(2 * time.Second)
			stop()
		}
		time.Sleep(10 * time.Second)
		if st := f.state(t, receipt.ID); len(f.log.of(receipt.ID)) != 1 || st.State != mulligan.StatusDead || st.Record.Reason != mulligan.NoKey {
			t.Errorf("it ran %d times and is %s: %+v", len(f.log.of(receipt.ID)), st.State, st.Record)
		}
	})
}
