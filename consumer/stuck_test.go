package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/doctor"
	"github.com/mulligan-queue/mulligan/metrics"
)

const found = 30 * time.Second // within which a fault is said, or mended

// An operator, or another client, spoils the consumer of a worker that runs. Jobs
// published then are done within half a minute, without a person, and run once.
func TestAWorkerGoesOnThoughItsConsumerIsSpoilt(t *testing.T) {
	none := []string{"mulligan.jobs.other.*"}
	remade := func(change func(c *jetstream.ConsumerConfig)) func(m meddler) {
		return func(m meddler) { m.remake(change) }
	}
	updated := func(change func(c *jetstream.ConsumerConfig)) func(m meddler) {
		return func(m meddler) { m.update(change) }
	}
	for _, c := range []struct {
		name  string
		spoil func(m meddler)
		says  string // why jobs wait, as the log says it; empty if the next pull may mend it
	}{
		{"removed", meddler.remove, ""},
		{"made again as it was", remade(func(*jetstream.ConsumerConfig) {}), ""},
		{"made again with another filter", remade(func(c *jetstream.ConsumerConfig) { c.FilterSubjects = none }), ""},
		{"made again for one request at a time", remade(func(c *jetstream.ConsumerConfig) { c.MaxWaiting = 1 }), ""},
		{"made again in the rhythm of publishing", remade(func(c *jetstream.ConsumerConfig) { c.ReplayPolicy = jetstream.ReplayOriginalPolicy }), ""},
		{"made again as one that pushes", remade(func(c *jetstream.ConsumerConfig) { c.DeliverSubject, c.MaxWaiting = "nobody", 0 }), ""},
		{"given another filter", updated(func(c *jetstream.ConsumerConfig) { c.FilterSubjects = none }), "config"},
		{"given a limit of jobs, which somebody has", func(m meddler) {
			m.steal()
			m.update(func(c *jetstream.ConsumerConfig) { c.MaxAckPending = 1 })
		}, "config"},
		{"given a limit of jobs in a request", updated(func(c *jetstream.ConsumerConfig) { c.MaxRequestBatch = 1 }), "config"},
		{"given a limit of time for a request", updated(func(c *jetstream.ConsumerConfig) { c.MaxRequestExpires = time.Millisecond }), "config"},
		{"given to a group of clients", updated(func(c *jetstream.ConsumerConfig) {
			c.PriorityPolicy, c.PriorityGroups = jetstream.PriorityPolicyOverflow, []string{"a"}
		}), "config"},
		{"given a limit of idle time", updated(func(c *jetstream.ConsumerConfig) { c.InactiveThreshold = time.Hour }), "config"},
		{"reset to a place ahead", meddler.ahead, "passed_over"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, keyed, func(t *testing.T, f *floor) { goesOn(t, f, c.spoil, c.says) })
		})
	}
}

func goesOn(t *testing.T, f *floor, spoil func(m meddler), says string) {
	w, stop := f.watched(t)
	spoil(f.meddler(t))
	f.publish(t, mulligan.Job{ID: "job-0"}, mulligan.Job{ID: "job-1"}, mulligan.Job{ID: "job-2"})
	spoilt := time.Now()
	f.settled(t, ids("job-", 3)...)
	if took := time.Since(spoilt); took > found {
		t.Errorf("jobs were done after %v", took)
	}
	time.Sleep(found)
	if s := f.stands(t); len(s.Stuck) > 0 {
		t.Errorf("still stuck: %+v", s.Stuck)
	}
	if fault := mulligan.ConsumerFault(f.meddler(t).config(), []string{"mulligan.jobs.email.send.*"}); fault != "" {
		t.Errorf("the consumer is left as it was: %s", fault)
	}
	if says != "" {
		w.said(t, says, 1)
	}
	w.over(t, w.lines.count(begins))
	stop()
	for _, stream := range []string{f.Topology.JobsStream(), f.Topology.RetriesStream()} {
		s, err := f.JS.Stream(t.Context(), stream)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.CachedInfo().State.Msgs; n > 0 {
			t.Errorf("%d messages are left in %s", n, stream)
		}
	}
	for _, id := range ids("job-", 3) {
		if n := len(f.log.of(id)); n != 1 {
			t.Errorf("%s ran %d times", id, n)
		}
	}
}

// What a worker does not mend it says, within half a minute, and says when it is over.
func TestWhatKeepsJobsWaitingIsSaid(t *testing.T) {
	for _, c := range []struct {
		name       string
		spoil, end func(m meddler)
		why        string
	}{
		{"an operator pauses the consumer", func(m meddler) {
			_, err := m.JS.PauseConsumer(m.t.Context(), m.stream, m.name, time.Now().Add(24*time.Hour))
			m.must(err)
		}, func(m meddler) {
			_, err := m.JS.ResumeConsumer(m.t.Context(), m.stream, m.name)
			m.must(err)
		}, "paused"},
		{"a consumer that pushes has jobs in hand", func(m meddler) {
			_, err := m.Conn.Subscribe("somebody", func(*nats.Msg) {})
			m.must(err)
			m.remake(func(c *jetstream.ConsumerConfig) { c.DeliverSubject, c.MaxWaiting = "somebody", 0 })
		}, meddler.remove, "config"},
		{"another consumer has the subjects", func(m meddler) {
			err := errors.New("not yet")
			for err != nil { // until no worker is faster
				m.remove()
				_, err = m.JS.CreateConsumer(m.t.Context(), m.stream, jetstream.ConsumerConfig{Durable: "debug", FilterSubject: "mulligan.jobs.>", AckPolicy: jetstream.AckExplicitPolicy})
			}
		}, func(m meddler) { m.must(m.JS.DeleteConsumer(m.t.Context(), m.stream, "debug")) }, "missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, keyed, func(t *testing.T, f *floor) {
				w, stop := f.watched(t)
				f.publish(t, mulligan.Job{ID: "first"})
				f.settled(t, "first")
				c.spoil(f.meddler(t))
				f.publish(t, mulligan.Job{ID: "job-0"})
				time.Sleep(found)
				if s := f.stands(t); len(s.Stuck) != 1 || s.Stuck[0].Why != c.why || s.Stuck[0].Do == "" || time.Since(s.Stuck[0].Since) > found {
					t.Errorf("got %+v, want %s", s.Stuck, c.why)
				}
				if n, since := gauge(t, w.reg, "mulligan_stuck"), gauge(t, w.reg, "mulligan_stuck_since_seconds"); n != 1 || time.Since(time.Unix(int64(since), 0)) > found {
					t.Errorf("the metrics show %v since %v", n, since)
				}
				if !f.diagnosed(t, "stuck, seen by worker") {
					t.Errorf("the doctor does not say that the worker sees it")
				}
				time.Sleep(10 * time.Minute)
				w.said(t, c.why, 1) // all the time
				if n := len(f.log.of("job-0")); n != 0 {
					t.Errorf("the job ran %d times meanwhile", n)
				}
				c.end(f.meddler(t))
				time.Sleep(found)
				if n := len(f.log.of("job-0")); n != 1 {
					t.Errorf("the job ran %d times", n)
				}
				w.over(t, 1)
				if n := gauge(t, w.reg, "mulligan_stuck") + gauge(t, w.reg, "mulligan_stuck_since_seconds"); n != 0 {
					t.Errorf("the metrics show %v though it is over", n)
				}
				stop()
			})
		})
	}
}

func TestASilentServerIsSaid(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		w, stop := f.watched(t)
		f.Down()
		time.Sleep(found)
		w.said(t, "no_answer", 3) // of fresh jobs, of deferred ones and of retries
		f.Restart(t)
		f.publish(t, mulligan.Job{ID: "job-0"})
		time.Sleep(found)
		w.over(t, 3)
		if n := len(f.log.of("job-0")); n != 1 {
			t.Errorf("the job ran %d times", n)
		}
		stop()
	})
}

func TestHandlersThatNeverEndAreSaid(t *testing.T) {
	kind := keyed
	kind.Policy = mulligan.Policy{Timeout: time.Second}
	bubble(t, kind, func(t *testing.T, f *floor) {
		w, free := watcher{new(lockedBuffer), prometheus.NewRegistry()}, make(chan struct{})
		stop := f.work(t, &consumer.Worker{Concurrency: 2, Log: zerolog.New(w.lines)}, func(context.Context, *mulligan.Job) ([]byte, error) {
			<-free // whatever its context says
			return nil, nil
		})
		f.publish(t, mulligan.Job{ID: "job-0"})
		time.Sleep(found)
		w.said(t, "", 0) // there is a slot left
		f.publish(t, mulligan.Job{ID: "job-1"})
		time.Sleep(found)
		w.said(t, "handlers", 1)
		close(free)
		f.settled(t, ids("job-", 2)...)
		time.Sleep(found)
		w.over(t, 1)
		stop()
	})
}

// A quarter of an hour of what is no fault: jobs without end, long ones, a downstream that fails,
// retries that wait for tokens, and nothing at all.
func TestWhatIsNoFaultIsNeverCalledOne(t *testing.T) {
	for _, c := range []struct {
		name   string
		handle mulligan.HandlerFunc
		jobs   int
	}{
		{"an idle queue", func(context.Context, *mulligan.Job) ([]byte, error) { return nil, nil }, 0},
		{"more jobs than there is room for", func(ctx context.Context, _ *mulligan.Job) ([]byte, error) { return nil, pause(ctx, 9*time.Second) }, 2000},
		{"handlers that take minutes", func(ctx context.Context, _ *mulligan.Job) ([]byte, error) { return nil, pause(ctx, 4*time.Minute) }, 100},
		{"a downstream that fails", func(context.Context, *mulligan.Job) ([]byte, error) { return nil, errFlaky }, 200},
		{"a credential that is refused", func(context.Context, *mulligan.Job) ([]byte, error) { return nil, mulligan.RefusedCredential(errFlaky) }, 50},
		{"retries that wait for tokens", func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			if j.Attempt == 1 {
				return nil, mulligan.After(3*time.Second, errFlaky)
			}
			return nil, nil
		}, 15},
	} {
		t.Run(c.name, func(t *testing.T) {
			kind := keyed
			kind.Policy = mulligan.Policy{Total: time.Hour, Timeout: 5 * time.Minute}
			bubble(t, kind, func(t *testing.T, f *floor) {
				lines := watcher{new(lockedBuffer), nil}
				w := &consumer.Worker{Concurrency: 2, Log: zerolog.New(lines.lines), Downstreams: map[string]consumer.Downstream{mulligan.DefaultDownstream: {Floor: 0.01, Cap: 2}}}
				stop := f.work(t, w, c.handle)
				for i := range c.jobs {
					f.publish(t, mulligan.Job{ID: fmt.Sprint("job-", i), User: fmt.Sprint("user-", i%20)})
				}
				time.Sleep(15 * time.Minute)
				lines.said(t, "", 0)
				stop()
			})
		})
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// diagnosed reports whether the doctor says something.
func (f *floor) diagnosed(t *testing.T, what string) bool {
	t.Helper()
	all, err := doctor.Doctor{Conn: f.Conn}.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(all, func(f doctor.Finding) bool {
		return f.Status != doctor.OK && f.Do != "" && strings.Contains(f.Detail, what)
	})
}

func TestJobsThatAnotherClientTakesAreFound(t *testing.T) {
	const what = "1 jobs of MULLIGAN_JOBS were given to somebody who is no live worker"
	bubble(t, keyed, func(t *testing.T, f *floor) {
		_, stop := f.watched(t)
		f.meddler(t).steal()
		if f.diagnosed(t, what) {
			t.Error("found too early: a worker may let a job go that comes again soon")
		}
		time.Sleep(20 * time.Second)
		if !f.diagnosed(t, what) {
			t.Error("not found")
		}
		time.Sleep(mulligan.AckWait)
		if f.diagnosed(t, what) {
			t.Error("found though the job is back")
		}
		stop()
	})
}

// A consumer is removed, and made again by the workers, while a job runs: the
// server gives the job out once more, and the record holds it back.
func TestAOnceJobInHandRunsOnceThoughItsConsumerIsRemoved(t *testing.T) {
	bubble(t, mulligan.Kind{Name: "smtp.send", Effect: mulligan.Once, Policy: mulligan.Policy{Total: time.Minute, Timeout: time.Minute}}, func(t *testing.T, f *floor) {
		handler := func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note(j.ID)
			return nil, pause(ctx, 20*time.Second)
		}
		for range 3 {
			defer f.work(t, &consumer.Worker{Concurrency: 2}, handler)()
		}
		f.publish(t, mulligan.Job{ID: "job-0"}, mulligan.Job{ID: "job-1"})
		time.Sleep(5 * time.Second)
		for range 3 {
			f.meddler(t).remove()
			time.Sleep(3 * time.Second)
		}
		time.Sleep(time.Minute) // a late end of the first call removes the doubt of the second
		for _, id := range ids("job-", 2) {
			if n, st := len(f.log.of(id)), f.state(t, id); n != 1 || st.State != mulligan.StatusDone {
				t.Errorf("%s ran %d times and is %s", id, n, st.State)
			}
		}
	})
}

// A newer worker declares the kind for another downstream: the old one gets no more
// of it, which is no fault.
func TestAWorkerWhoseKindHasMovedIsNotStuck(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		w, stop := f.watched(t)
		moved := keyed
		moved.Downstream = "elsewhere"
		kind, err := moved.Normal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Topology.Declare(t.Context(), f.JS, []mulligan.Kind{kind}); err != nil {
			t.Fatal(err)
		}
		if err := f.Topology.EnsureConsumers(t.Context(), f.JS, []string{"elsewhere", mulligan.DefaultDownstream}); err != nil {
			t.Fatal(err)
		}
		if has := f.meddler(t).config().FilterSubjects; slices.Contains(has, "mulligan.jobs.email.send.*") {
			t.Errorf("the kind has not moved: %v", has)
		}
		time.Sleep(10 * time.Minute)
		w.said(t, "", 0)
		stop()
	})
}

const begins = `"message":"stuck: `

// watcher is what a worker logs and counts.
type watcher struct {
	lines *lockedBuffer
	reg   *prometheus.Registry
}

func (f *floor) watched(t *testing.T) (w watcher, stop func()) {
	t.Helper()
	w = watcher{new(lockedBuffer), prometheus.NewRegistry()}
	stop = f.work(t, &consumer.Worker{Concurrency: 2, Log: zerolog.New(w.lines), Metrics: metrics.New(w.reg)}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
		f.log.note(j.ID)
		return nil, nil
	})
	f.publish(t, mulligan.Job{ID: "before"})
	f.settled(t, "before")
	return w, stop
}

// said checks how often the log says that jobs wait in vain, and why.
func (w watcher) said(t *testing.T, why string, times int) {
	t.Helper()
	if n := w.lines.count(begins); n != times || times > 0 && w.lines.count(fmt.Sprintf(`"why":%q`, why)) == 0 {
		t.Errorf("%d lines say that jobs wait in vain, want %d with %q:\n%s", n, times, why, w.lines.b.String())
	}
}

func (w watcher) over(t *testing.T, times int) {
	t.Helper()
	if n := w.lines.count("jobs no longer wait in vain"); n != times {
		t.Errorf("%d lines say that it is over, want %d:\n%s", n, times, w.lines.b.String())
	}
}
