package consumer_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/call"
)

// What each path of a job asks the server between its delivery and its end. An ack
// and a nak are sent and not answered; all else is a round trip. A delivery that is
// not the first notes its start, so that a crash of its handler is counted.
func TestCallsOfTheServerByAJob(t *testing.T) {
	long := mulligan.After(3*time.Second, errFlaky) // too long for a nak
	notStarted := mulligan.NotStarted(errFlaky)
	for _, tt := range []struct {
		name   string
		kind   mulligan.Kind
		job    mulligan.Job
		errors []error // of its attempts; the next succeeds
		want   string
	}{
		{"pure", pure, mulligan.Job{}, nil, "ack"},
		{"keyed: the record is read, since the key may be done, and then says so", keyed, mulligan.Job{}, nil, "admit.load done.store ack"},
		{"once: the start is noted, and the end", once, mulligan.Job{}, nil, "admit.store done.store ack"},
		{"pure, a nak", pure, mulligan.Job{}, []error{errFlaky}, "fail.store nak admit.load admit.store done.store ack"},
		{"pure, parked: stored as a schedule before it is acknowledged for certain", pure, mulligan.Job{}, []error{long}, "fail.store park.publish park.ack admit.load done.store ack"},
		{"keyed, a nak", keyed, mulligan.Job{}, []error{errFlaky}, "admit.load fail.store nak admit.load admit.store done.store ack"},
		{"once, a nak", once, mulligan.Job{}, []error{notStarted}, "admit.store fail.store nak admit.load admit.store done.store ack"},
		{"a user's budget", pure, mulligan.Job{User: "ada"}, []error{errFlaky}, "fail.load budget.load budget.store fail.store nak admit.load admit.store done.store ack"},
		{"a user's budget, parked: asked when the retry is due", pure, mulligan.Job{User: "ada"}, []error{long}, "fail.load fail.store park.publish park.ack admit.load budget.load budget.store done.store ack"},
		{"a task's budget", pure, mulligan.Job{Task: "trip"}, []error{errFlaky}, "fail.load task.load task.store fail.store nak admit.load admit.store done.store ack"},
		{"spent", pure, mulligan.Job{}, []error{mulligan.Permanent(errFlaky)}, "fail.store spend.publish spend.ack"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, tt.kind, func(t *testing.T, f *floor) {
				var (
					mu  sync.Mutex
					got []string
				)
				ctx, end := context.WithCancel(call.With(t.Context(), func(point string) {
					step, before := strings.CutSuffix(point, " before")
					move, _, _ := strings.Cut(step, ".")
					if before && slices.Contains(strings.Fields("admit fail done ack nak park spend budget task"), move) {
						mu.Lock()
						defer mu.Unlock()
						got = append(got, step)
					}
				}))
				w := consumer.Worker{Conn: f.Conn}
				w.Handle(tt.kind, mulligan.HandlerFunc(func(_ context.Context, j *mulligan.Job) ([]byte, error) {
					if n := f.log.note(j.ID); n <= len(tt.errors) {
						return nil, tt.errors[n-1]
					}
					f.Ran(j.Kind, j.ID)
					return nil, nil
				}))
				ended := make(chan error, 1)
				go func() { ended <- w.Run(ctx) }()
				tt.job.ID = "a"
				time.Sleep(time.Second) // what was published before its consumer is looked up
				f.publish(t, tt.job)
				time.Sleep(time.Minute)
				end()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if is := strings.Join(got, " "); is != tt.want {
					t.Errorf("got  %s\nwant %s", is, tt.want)
				}
			})
		})
	}
}
