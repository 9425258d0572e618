package scheduler_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/doctor"
	"github.com/mulligan-queue/mulligan/metrics"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// Somebody spoils the consumer of spent jobs while schedulers run. It is found and
// said by each of them, put right by one, and what was spent is buried within half a
// minute, without a person.
func TestSchedulersGoOnThoughTheirConsumerIsSpoilt(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, f *floor)
		why   string // as the log and the metrics have it
		says  string // of the doctor
	}{
		{"reset to a place ahead", func(t *testing.T, f *floor) { f.ahead(t) }, "passed_over", "it has passed over jobs"},
		{"given another filter", func(t *testing.T, f *floor) {
			f.change(t, func(c *jetstream.ConsumerConfig) {
				c.FilterSubject, c.FilterSubjects = "mulligan.retry.spent.none.*", nil
			})
		}, "config", "it does not deliver mulligan.retry.spent.>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, mulligan.Topology{}, func(t *testing.T, f *floor) {
				said, reg, end := f.crew(t)
				f.pause(t, time.Hour)
				f.spend(t, job("spent", []byte("p")), mulligan.Move{Reason: mulligan.AttemptsExhausted})
				c.spoil(t, f)
				f.pause(t, 0)
				if !diagnosed(t, f, c.says) {
					t.Error("the doctor does not see it")
				}
				time.Sleep(30*time.Second - mulligan.SettleWait) // for which the doctor has waited
				f.mustLetter(t, "spent")
				if n := said.count(`"message":"stuck: `); n != crew || said.count(fmt.Sprintf(`"why":%q`, c.why)) < crew {
					t.Errorf("%d schedulers say it, want %d:\n%s", n, crew, said.text())
				}
				if n := said.count("the consumer was put right"); n != 1 {
					t.Errorf("%d schedulers say that they put it right, want one:\n%s", n, said.text())
				}
				time.Sleep(30 * time.Second)
				if n, over := gauge(t, reg, "mulligan_stuck"), said.count("jobs no longer wait in vain"); n != 0 || over != crew {
					t.Errorf("the metrics show %v, and %d say that it is over:\n%s", n, over, said.text())
				}
				if diagnosed(t, f, c.says) {
					t.Error("the doctor still sees it")
				}
				end()
			})
		})
	}
}

func TestAPauseOfSpentJobsIsSaidAndStays(t *testing.T) {
	bubble(t, mulligan.Topology{}, func(t *testing.T, f *floor) {
		said, reg, end := f.crew(t)
		f.pause(t, time.Hour)
		f.spend(t, job("spent", []byte("p")), mulligan.Move{Reason: mulligan.AttemptsExhausted})
		time.Sleep(30 * time.Second)
		if n := gauge(t, reg, "mulligan_stuck"); n != crew || said.count(`"why":"paused"`) != crew {
			t.Errorf("the metrics show %v schedulers that see it, want %d:\n%s", n, crew, said.text())
		}
		f.noLetter(t, "spent")
		f.pause(t, 0)
		time.Sleep(30 * time.Second)
		f.mustLetter(t, "spent")
		end()
	})
}

const crew = 3 // schedulers

// crew has schedulers run.
func (f *floor) crew(t *testing.T) (said *lines, reg *prometheus.Registry, end func()) {
	t.Helper()
	said, reg = new(lines), prometheus.NewRegistry()
	m := metrics.New(reg)
	ctx, cancel := context.WithCancel(t.Context())
	var runs sync.WaitGroup
	for range crew {
		s := scheduler.Scheduler{Conn: f.Env.Conn, Log: zerolog.New(said), Metrics: m}
		runs.Go(func() {
			if err := s.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(10 * time.Second)
	return said, reg, func() {
		cancel()
		runs.Wait()
	}
}

// pause keeps the consumer of spent jobs from giving any for a time; none ends that.
func (f *floor) pause(t *testing.T, d time.Duration) {
	t.Helper()
	if _, err := f.JS.PauseConsumer(t.Context(), f.Env.Topology.RetriesStream(), mulligan.SchedulerConsumer, time.Now().Add(d)); err != nil {
		t.Fatal(err)
	}
}

// ahead resets the consumer of spent jobs to behind all that there are.
func (f *floor) ahead(t *testing.T) {
	t.Helper()
	s, err := f.JS.Stream(t.Context(), f.Env.Topology.RetriesStream())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ResetConsumerToSequence(t.Context(), mulligan.SchedulerConsumer, s.CachedInfo().State.LastSeq+1); err != nil {
		t.Fatal(err)
	}
}

func (f *floor) change(t *testing.T, change func(c *jetstream.ConsumerConfig)) {
	t.Helper()
	c, err := f.JS.Consumer(t.Context(), f.Env.Topology.RetriesStream(), mulligan.SchedulerConsumer)
	if err != nil {
		t.Fatal(err)
	}
	cfg := c.CachedInfo().Config
	change(&cfg)
	if _, err := f.JS.UpdateConsumer(t.Context(), f.Env.Topology.RetriesStream(), cfg); err != nil {
		t.Fatal(err)
	}
}

func diagnosed(t *testing.T, f *floor, what string) bool {
	t.Helper()
	all, err := doctor.Doctor{Conn: f.Env.Conn, Topology: f.Env.Topology}.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		if one.Status == doctor.Fail && strings.Contains(one.Detail, what) {
			return true
		}
	}
	return false
}

// lines is what schedulers log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) count(what string) int { return strings.Count(l.text(), what) }

// gauge adds up all series of a metric.
func gauge(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range all {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
