package consumer_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// A job whose headers are larger than a publisher takes, as some were before there
// was that limit, is a job like any other: it runs, is parked, buried and replayed
// with its headers.
func TestAJobWithLargerHeadersThanAPublisherTakesIsAJob(t *testing.T) {
	kind := keyed
	kind.Name = strings.Repeat("email-", 21) + "it" // as long as a name may be
	kind.Policy = mulligan.Policy{Attempts: 3, Total: time.Hour}
	bubble(t, kind, func(t *testing.T, f *floor) {
		id, want := strings.Repeat("é", 127), strings.Repeat("u", 59<<10)
		var well atomic.Bool
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			if got := j.Header.Get("X-Line"); f.log.note(j.ID) > 4 || got != want {
				t.Errorf("ran %d times, with a header of %d bytes", len(f.log.of(j.ID)), len(got))
			}
			if well.Load() {
				return nil, nil
			}
			return nil, mulligan.After(3*time.Second, errors.New(strings.Repeat("e", 1000)))
		})
		m := nats.NewMsg(mulligan.Subject(f.Topology.JobsRoot(), kind.Name, mulligan.Token(id)))
		m.Header.Set("X-Line", want)
		m.Data = []byte("p")
		if _, err := f.JS.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		f.Accept(kind.Name, id)
		f.settled(t, id)
		time.Sleep(time.Second) // until it is buried
		s := scheduler.Scheduler{Conn: f.Conn}
		l, err := s.Letter(t.Context(), kind.Name, id)
		if err != nil || l.Reason != mulligan.AttemptsExhausted || l.Header.Get("X-Line") != want || len(l.History) == 0 {
			t.Fatalf("the letter says %s with a header of %d bytes and %d attempts, %v", l.Reason, len(l.Header.Get("X-Line")), len(l.History), err)
		}
		well.Store(true)
		if _, err := s.Replay(t.Context(), kind.Name, id); err != nil {
			t.Fatal(err)
		}
		f.settled(t, id)
		if st := f.state(t, id); st.State != mulligan.StatusDone {
			t.Errorf("it is %s", st.State)
		}
		stop()
	})
}
