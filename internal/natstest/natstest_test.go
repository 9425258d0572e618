package natstest_test

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func TestMain(m *testing.M) { os.Exit(natstest.Main(m)) }

func TestAScheduleOfHoursPassesAtOnceInABubble(t *testing.T) {
	began := time.Now()
	synctest.Test(t, func(t *testing.T) {
		e := natstest.InBubble(t)
		e.Provision(t, mulligan.Topology{})
		top := e.Topology
		start := time.Now()
		due := mulligan.Subject(top.DueRoot(), "a.b", "1")
		m := &nats.Msg{Subject: mulligan.Subject(top.AtRoot(), "a.b", "1") + ".x", Data: []byte("later"), Header: nats.Header{
			"Nats-Schedule":        {"@at " + start.Add(6*time.Hour).UTC().Format(time.RFC3339)},
			"Nats-Schedule-Target": {due},
		}}
		if _, err := e.JS.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if got := e.Account(t); got.At != 1 || got.Held() != 1 {
			t.Errorf("before it is due: got %+v, want one schedule", got)
		}
		c, err := e.JS.CreateConsumer(t.Context(), top.RetriesStream(), jetstream.ConsumerConfig{FilterSubject: due, AckPolicy: jetstream.AckExplicitPolicy})
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Next(jetstream.FetchMaxWait(7 * time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if late := time.Since(start) - 6*time.Hour; late < -time.Second || late > time.Second {
			t.Errorf("the schedule fired %v late", late)
		}
		if err := got.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("six hours took %v", took)
	}
}

func TestAJobOutlivesARestart(t *testing.T) {
	for name, check := range map[string]func(*testing.T, func(testing.TB) *natstest.Env){
		"with a port": restarts,
		"in a bubble": func(t *testing.T, _ func(testing.TB) *natstest.Env) {
			synctest.Test(t, func(t *testing.T) { restarts(t, natstest.InBubble) })
		},
	} {
		t.Run(name, func(t *testing.T) { check(t, natstest.Server) })
	}
}

func restarts(t *testing.T, start func(testing.TB) *natstest.Env) {
	e := start(t)
	e.Provision(t, mulligan.Topology{})
	if _, err := e.JS.Publish(t.Context(), mulligan.Subject(e.Topology.JobsRoot(), "a.b", "1"), nil); err != nil {
		t.Fatal(err)
	}
	e.Accept("a.b", "1")
	url := e.URL
	e.Restart(t)
	if e.URL != url {
		t.Errorf("after the restart it listens on %s, want %s", e.URL, url)
	}
	if got := e.Account(t); got.Jobs != 1 {
		t.Errorf("after the restart: got %+v, want one job", got)
	}
}

func TestALostJobFailsTheTest(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(*testing.T, *natstest.Env)
		lost bool
	}{
		{"a job that is nowhere is lost", func(*testing.T, *natstest.Env) {}, true},
		{"a job that ran is not lost", func(_ *testing.T, e *natstest.Env) { e.Ran("a.b", "1") }, false},
		{"a queued job is not lost", func(t *testing.T, e *natstest.Env) {
			publish(t, e, mulligan.Subject(e.Topology.JobsRoot(), "a.b", "1"))
		}, false},
		{"a job with a letter is not lost", func(t *testing.T, e *natstest.Env) {
			publish(t, e, mulligan.Subject(e.Topology.DeadRoot(), "a.b", "1"))
		}, false},
		{"a job that waits in a schedule is not lost", func(t *testing.T, e *natstest.Env) {
			publish(t, e, mulligan.Subject(e.Topology.AtRoot(), "a.b", "1")+".JOBS:7")
		}, false},
		{"a job that is done is not lost", func(t *testing.T, e *natstest.Env) { record(t, e, mulligan.Done) }, false},
		{"a job of which only a live record is left is lost", func(t *testing.T, e *natstest.Env) { record(t, e, mulligan.Live) }, true},
		{"another job's message does not save it", func(t *testing.T, e *natstest.Env) {
			publish(t, e, mulligan.Subject(e.Topology.JobsRoot(), "a.b", "2"))
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spy := &spy{TB: t}
			e := natstest.Server(spy)
			e.Provision(t, mulligan.Topology{})
			e.Accept("a.b", "1")
			tt.do(t, e)
			spy.end()
			if got := strings.Contains(spy.said, "is lost"); got != tt.lost {
				t.Errorf("the test was told %q, want lost = %v", spy.said, tt.lost)
			}
		})
	}
}

func publish(t *testing.T, e *natstest.Env, subject string) {
	t.Helper()
	if _, err := e.JS.Publish(t.Context(), subject, nil); err != nil {
		t.Fatal(err)
	}
}

func record(t *testing.T, e *natstest.Env, s mulligan.State) {
	t.Helper()
	kv, err := e.JS.KeyValue(t.Context(), e.Topology.LedgerBucket())
	if err != nil {
		t.Fatal(err)
	}
	rec := &mulligan.Record{State: s}
	if _, err := kv.Put(t.Context(), "a.b.1", rec.Encode()); err != nil {
		t.Fatal(err)
	}
}

// A spy is a test whose end and errors another test looks at.
type spy struct {
	testing.TB
	cleanup func()
	said    string
}

func (s *spy) Cleanup(f func())               { s.cleanup = f }
func (s *spy) Errorf(format string, _ ...any) { s.said += format }
func (s *spy) end()                           { s.cleanup() }
