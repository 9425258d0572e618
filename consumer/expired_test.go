package consumer_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/call"
)

// The ledger takes its time to note a start, and the deadline passes meanwhile.
func TestAJobWhoseDeadlinePassesBeforeItsCallIsNotCalled(t *testing.T) {
	for _, point := range []string{"admit.store before", "admit.store after"} {
		t.Run(point, func(t *testing.T) {
			bubble(t, once, func(t *testing.T, f *floor) {
				var slow sync.Once
				ctx, end := context.WithCancel(call.With(t.Context(), func(p string) {
					if p == point {
						slow.Do(func() { time.Sleep(10 * time.Second) })
					}
				}))
				w := consumer.Worker{Conn: f.Conn}
				w.Handle(once, mulligan.HandlerFunc(func(_ context.Context, j *mulligan.Job) ([]byte, error) {
					f.log.note(j.ID)
					return nil, errFlaky
				}))
				ended := make(chan error, 1)
				go func() { ended <- w.Run(ctx) }()
				f.publish(t, mulligan.Job{ID: "a", Deadline: time.Now().Add(5 * time.Second)})
				time.Sleep(time.Minute)
				st := f.state(t, "a")
				if r := st.Record; r == nil || st.State != mulligan.StatusDead || r.Reason != mulligan.Expired || r.Attempts != 0 || r.Starts != 0 || len(f.log.of("a")) != 0 {
					t.Errorf("called %d times, %s: %+v; want it expired without a call", len(f.log.of("a")), st.State, r)
				}
				end()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
