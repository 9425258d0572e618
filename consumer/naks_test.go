package consumer_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/consumer"
)

// generous has retries that are not scarce, of jobs that one user has.
func generous() *consumer.Worker {
	return &consumer.Worker{
		Concurrency: 64, UserRate: budget.Rate{PerSecond: 1e4, Burst: 1e4},
		Downstreams: map[string]consumer.Downstream{mulligan.DefaultDownstream: {Ratio: 1, Cap: 1e6, Floor: 1e6}},
	}
}

// failOnce fails each job's first attempt.
func failOnce(f *floor) mulligan.HandlerFunc {
	return func(_ context.Context, j *mulligan.Job) ([]byte, error) {
		if f.log.note(j.ID); j.Attempt == 1 {
			return nil, mulligan.NotStarted(errFlaky) // so that a once job is retried, too
		}
		return nil, nil
	}
}

// The server alone would be seconds late at this rate: it sets one timer back with
// each nak.
func TestShortRetriesComeWhenTheyAreDueAlsoMany(t *testing.T) {
	kind := pure
	kind.Policy = mulligan.Policy{FirstDelay: 200 * time.Millisecond}
	bubble(t, kind, func(t *testing.T, f *floor) {
		const n, perSecond = 600, 300
		stop := f.work(t, generous(), failOnce(f))
		for i := range n {
			f.publish(t, mulligan.Job{ID: fmt.Sprint(i), User: "one"})
			time.Sleep(time.Second / perSecond)
		}
		time.Sleep(time.Minute)
		stop()
		for i := range n {
			id := fmt.Sprint(i)
			st, runs := f.state(t, id), f.log.of(id)
			if st.State != mulligan.StatusDone || len(runs) != 2 {
				t.Fatalf("job %s is %s after %d runs: %+v", id, st.State, len(runs), st.Record)
			}
			failed := st.Record.History[0]
			due := failed.At.Add(failed.Took + failed.Delay)
			if late := runs[1].Sub(due); failed.Verb != mulligan.Nak || late < 0 || late > 20*time.Millisecond {
				t.Errorf("job %s: its retry, a %s, is %v late", id, failed.Verb, late)
			}
		}
	})
}

// What there is no place for is parked.
func TestMoreShortRetriesThanMayWaitAreParked(t *testing.T) {
	kind := pure
	kind.Policy = mulligan.Policy{FirstDelay: time.Second}
	bubble(t, kind, func(t *testing.T, f *floor) {
		const n, places = 300, 128
		for i := range n {
			f.publish(t, mulligan.Job{ID: fmt.Sprint(i), User: "one"})
		}
		stop := f.work(t, generous(), failOnce(f))
		time.Sleep(time.Minute)
		stop()
		verbs := map[mulligan.Verb]int{}
		for i := range n {
			verbs[f.state(t, fmt.Sprint(i)).Record.History[0].Verb]++
		}
		if verbs[mulligan.Nak] != places || verbs[mulligan.Park] != n-places {
			t.Errorf("of %d that fail at once %v are retried so, want %d naks", n, verbs, places)
		}
	})
}

// A message that waits in a worker for its retry is another's when that one ends: at
// once after a shutdown, after AckWait if it dies. It costs no attempt, and does not
// come early.
func TestARetryThatWaitsInAWorkerOutlivesIt(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind mulligan.Kind
		dies bool
		late time.Duration
	}{
		{"a pure job, a shutdown", pure, false, time.Second},
		{"a pure job, a crash", pure, true, mulligan.AckWait + time.Second},
		{"a keyed job, a shutdown", keyed, false, time.Second},
		{"a once job, a crash", once, true, mulligan.AckWait + time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kind := tt.kind
			kind.Policy = mulligan.Policy{FirstDelay: time.Second}
			bubble(t, kind, func(t *testing.T, f *floor) {
				ctx, end := context.WithCancel(t.Context())
				first := generous()
				first.Conn = f.Dial(t)
				first.Handle(kind, failOnce(f))
				var ended sync.WaitGroup
				ended.Go(func() {
					if err := first.Run(ctx); err != nil {
						t.Error(err)
					}
				})
				f.publish(t, mulligan.Job{ID: "x", User: "one"})
				time.Sleep(300 * time.Millisecond)
				if tt.dies {
					first.Conn.Close()
				}
				end()
				ended.Wait()
				first.Conn.Close() // what the process would do later it does not
				stop := f.work(t, generous(), failOnce(f))
				time.Sleep(2 * time.Minute)
				stop()
				st, runs := f.state(t, "x"), f.log.of("x")
				if st.State != mulligan.StatusDone || st.Record.Attempts != 2 || len(runs) != 2 {
					t.Fatalf("it is %s after %d runs: %+v", st.State, len(runs), st.Record)
				}
				failed := st.Record.History[0]
				due := failed.At.Add(failed.Took + failed.Delay)
				if late := runs[1].Sub(due); late < 0 || late > tt.late {
					t.Errorf("it is %v late, want up to %v", late, tt.late)
				}
			})
		})
	}
}
