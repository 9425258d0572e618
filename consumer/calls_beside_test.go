package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/consumer"
)

func TestCallsSideBySideInEveryHandlerDoNotWaitForEachOther(t *testing.T) {
	bubble(t, pure, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{Concurrency: 4}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			var errs [2]error
			var both sync.WaitGroup
			for i := range errs {
				both.Go(func() {
					errs[i] = mulligan.Policy{}.Do(ctx, func(context.Context) error {
						f.log.note("calls")
						time.Sleep(3 * time.Second) // longer than a call waits in a handler
						return nil
					})
				})
			}
			both.Wait()
			f.Ran(pure.Name, j.ID)
			return nil, errors.Join(errs[:]...)
		})
		const jobs = 40
		for i := range jobs {
			f.publish(t, mulligan.Job{ID: fmt.Sprint("job-", i)})
		}
		time.Sleep(5 * time.Minute)
		if n, s := len(f.log.of("calls")), f.stands(t); n != 2*jobs || s.InFlight != 0 {
			t.Errorf("%d calls for %d jobs of two, and then %+v", n, jobs, s)
		}
		stop()
	})
}

func TestACallThatHangsBesideTheHandlersOwnPermitIsNotTheProbeForEver(t *testing.T) {
	kind := keyed
	kind.Policy = mulligan.Policy{Timeout: 5 * time.Second, Total: time.Hour}
	bubble(t, kind, func(t *testing.T, f *floor) {
		var up, hung atomic.Bool
		end := make(chan struct{})
		stop := f.work(t, &consumer.Worker{Concurrency: 4}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			if j.ID != "falls-back" {
				if !up.Load() {
					return nil, errFlaky
				}
				return nil, nil
			}
			one := mulligan.Policy{Attempts: 1}
			err := one.Do(ctx, func(context.Context) error { up.Store(true); return mulligan.Permanent(errFlaky) })
			if hung.Load() {
				return nil, nil
			}
			return nil, errors.Join(err, one.Do(ctx, func(context.Context) error {
				hung.Store(true)
				<-end
				return nil
			}))
		})
		for i := range 24 {
			f.publish(t, mulligan.Job{ID: fmt.Sprint("job-", i)})
		}
		time.Sleep(300 * time.Millisecond)
		f.publish(t, mulligan.Job{ID: "falls-back"})
		time.Sleep(20 * time.Minute)
		for i := range 24 {
			if st := f.state(t, fmt.Sprint("job-", i)); st.State != mulligan.StatusDone {
				t.Errorf("job %d is %s while another's call hangs", i, st.State)
			}
		}
		if s := f.stands(t); s.Held != "" || s.InFlight != 0 {
			t.Errorf("the downstream stands at %+v, want it free", s)
		}
		close(end)
		time.Sleep(time.Minute)
		stop()
	})
}

func TestAHandlerThatEndsItsGoroutineAfterACallKeepsNoPermit(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{Concurrency: 2}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			if !strings.HasPrefix(j.ID, "exits-") || len(f.log.of("exits")) >= 2 {
				return nil, nil
			}
			_ = mulligan.Policy{}.Do(ctx, func(context.Context) error {
				if f.log.note(j.ID) == 1 {
					return errFlaky
				}
				return nil // by a permit of its own, which the handler has then
			})
			f.log.note("exits")
			runtime.Goexit()
			return nil, nil
		})
		f.publish(t, mulligan.Job{ID: "exits-0"}, mulligan.Job{ID: "exits-1"})
		time.Sleep(5 * time.Second)
		if s := f.stands(t); s.InFlight != 0 {
			t.Errorf("the downstream stands at %+v after two handlers that ended their goroutines", s)
		}
		f.settled(t, "exits-0", "exits-1")
		stop()
	})
}

func TestAOnceJobIsInDoubtIfItsCallWaitedInVainAfterItsHandlerDidSomething(t *testing.T) {
	bubble(t, once, func(t *testing.T, f *floor) {
		other, err := budget.NewDownstream(budget.Limits{Slots: 1}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		busy, _ := other.Start(time.Now(), nil)
		defer func() { busy.End(time.Now(), budget.Outcome{}) }()
		stop := f.work(t, &consumer.Worker{}, func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			if j.ID == "mails" {
				f.log.note("mailed")
			}
			err := mulligan.Policy{}.Do(mulligan.WithDownstream(ctx, budget.Calls{Downstream: other}), func(context.Context) error { return nil })
			if j.ID == "waits" {
				err = mulligan.NotStarted(err)
			}
			return nil, err
		})
		f.publish(t, mulligan.Job{ID: "mails"}, mulligan.Job{ID: "waits"})
		time.Sleep(10 * time.Minute)
		if n, st := len(f.log.of("mailed")), f.state(t, "mails"); n != 1 || st.Record.Reason != mulligan.InDoubt {
			t.Errorf("mailed %d times, and it is %s, %s; want it in doubt after one", n, st.State, st.Record.Reason)
		}
		if st := f.state(t, "waits"); st.State == mulligan.StatusDead || st.Record.Attempts != 0 {
			t.Errorf("a job that had done nothing, and says so, is %s after %d attempts", st.State, st.Record.Attempts)
		}
		stop()
	})
}
