package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
)

// meddler is an operator who changes the consumer of fresh jobs.
type meddler struct {
	*floor
	t      *testing.T
	stream string
	name   string
}

func (f *floor) meddler(t *testing.T) meddler {
	return meddler{f, t, f.Topology.JobsStream(), mulligan.DurableName(mulligan.DefaultDownstream)}
}

func (m meddler) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m meddler) config() jetstream.ConsumerConfig {
	m.t.Helper()
	info, err := mulligan.ConsumerInfo(m.t.Context(), m.JS, m.stream, m.name)
	m.must(err)
	return info.Config
}

func (m meddler) remove() {
	m.t.Helper()
	if err := m.JS.DeleteConsumer(m.t.Context(), m.stream, m.name); !errors.Is(err, jetstream.ErrConsumerNotFound) {
		m.must(err)
	}
}

// remake removes the consumer and makes it again, changed. The worker may be
// faster with its own, which is then removed again; and the server fails to store
// one (10012) that is made while it still clears away its namesake.
func (m meddler) remake(change func(c *jetstream.ConsumerConfig)) {
	m.t.Helper()
	cfg := m.config()
	change(&cfg)
	for {
		m.remove()
		err := error(nil)
		if cfg.DeliverSubject != "" {
			_, err = m.JS.CreatePushConsumer(m.t.Context(), m.stream, cfg)
		} else {
			_, err = m.JS.CreateConsumer(m.t.Context(), m.stream, cfg)
		}
		if !errors.Is(err, jetstream.ErrConsumerExists) && !errors.Is(err, &jetstream.APIError{ErrorCode: jetstream.JSErrCodeConsumerCreate}) {
			m.must(err)
			return
		}
	}
}

func (m meddler) update(change func(c *jetstream.ConsumerConfig)) {
	m.t.Helper()
	cfg := m.config()
	change(&cfg)
	_, err := m.JS.UpdateConsumer(m.t.Context(), m.stream, cfg)
	m.must(err)
}

// steal publishes a job and takes it from the worker, for as long as an
// unacknowledged one stays away.
func (m meddler) steal() {
	m.t.Helper()
	c, err := m.JS.Consumer(m.t.Context(), m.stream, m.name)
	m.must(err)
	for n := 0; ; n++ { // the server gives jobs to whoever asks, in turn
		_, err := c.Fetch(1, jetstream.FetchMaxWait(500*time.Millisecond))
		m.must(err)
		m.must(m.Conn.Flush())
		id := fmt.Sprint("stolen-", n)
		m.publish(m.t, mulligan.Job{ID: id})
		time.Sleep(time.Second)
		if len(m.log.of(id)) == 0 {
			return
		}
	}
}

// ahead pauses the consumer, has jobs published, and resets it to behind them.
func (m meddler) ahead() {
	m.t.Helper()
	ctx := m.t.Context()
	_, err := m.JS.PauseConsumer(ctx, m.stream, m.name, time.Now().Add(time.Hour))
	m.must(err)
	m.publish(m.t, mulligan.Job{ID: "passed"})
	s, err := m.JS.Stream(ctx, m.stream)
	m.must(err)
	_, err = s.ResetConsumerToSequence(ctx, m.name, s.CachedInfo().State.LastSeq+1)
	m.must(err)
	_, err = m.JS.ResumeConsumer(ctx, m.stream, m.name)
	m.must(err)
}

// A pure job that was delivered before looks new to a consumer that begins anew.
func TestAConsumerThatBeginsAnewCostsNoAttemptAndNoRecord(t *testing.T) {
	for name, spoil := range map[string]func(m meddler){
		"deleted":    meddler.remove,
		"made again": func(m meddler) { m.remake(func(*jetstream.ConsumerConfig) {}) },
		"reset": func(m meddler) {
			s, err := m.JS.Stream(m.t.Context(), m.stream)
			m.must(err)
			_, err = s.ResetConsumer(m.t.Context(), m.name)
			m.must(err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, pure, func(t *testing.T, f *floor) {
				failed := make(chan struct{})
				stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
					if n := f.log.note(j.ID); n != j.Attempt {
						t.Errorf("run %d of %s is attempt %d", n, j.ID, j.Attempt)
					}
					if j.ID == "fails" && j.Attempt == 1 {
						defer close(failed)
						return nil, mulligan.After(time.Second, errFlaky)
					}
					f.Ran(j.Kind, j.ID)
					return nil, nil
				})
				f.publish(t, mulligan.Job{ID: "before-0"}, mulligan.Job{ID: "before-1"})
				time.Sleep(time.Second)
				f.publish(t, mulligan.Job{ID: "fails"})
				<-failed
				time.Sleep(500 * time.Millisecond)
				if c := f.Account(t); c.Jobs != 1 {
					t.Fatalf("got %+v, want the job among the fresh ones, to be delivered again", c)
				}
				spoil(f.meddler(t))
				f.settled(t, "fails")
				if r := f.Records(t)[mulligan.RecordKey(pure.Name, "fails")]; r == nil || r.State != mulligan.Done || r.Attempts != 2 {
					t.Errorf("the record is %+v, want it done at the second attempt", r)
				}
				stop()
			})
		})
	}
}
