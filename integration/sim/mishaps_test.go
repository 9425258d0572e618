package sim

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/dedupe"
)

// reconfigure changes the stream of a bucket until back is called.
func (w *world) reconfigure(t *testing.T, bucket string, change func(*jetstream.StreamConfig)) (back func()) {
	s, err := w.env.JS.Stream(t.Context(), "KV_"+bucket)
	if err != nil {
		t.Fatal(err)
	}
	was := s.CachedInfo().Config
	is := was
	change(&is)
	set := func(cfg jetstream.StreamConfig) {
		if _, err := w.env.JS.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	set(is)
	return func() {
		set(was)
		w.say("%s is back", bucket)
	}
}

// refuse has every write fail: it is too large.
func refuse(c *jetstream.StreamConfig) { c.MaxMsgSize = 1 }

// listenElsewhere has writes bring no answer.
func listenElsewhere(c *jetstream.StreamConfig) { c.Subjects = []string{"away.>"} }

// forget deletes a consumer: who needs it makes it again, and it delivers
// everything again.
func (w *world) forget(t *testing.T, f fault) {
	consumers := []struct{ stream, durable string }{
		{w.env.Topology.JobsStream(), mulligan.DurableName("here")},
		{w.env.Topology.RetriesStream(), mulligan.DurableName("here")},
		{w.env.Topology.RetriesStream(), mulligan.SchedulerConsumer},
	}
	c := consumers[f.Seat%len(consumers)]
	_ = w.env.JS.DeleteConsumer(t.Context(), c.stream, c.durable) // it may not be there yet
}

// misdate writes a user's budget as a worker with another clock would.
func (w *world) misdate(t *testing.T, f fault) {
	whole := time.Now().Add(f.For)
	if f.What == behind {
		whole = time.Now().Add(-f.For)
	}
	b, err := json.Marshal(budget.UserState{Whole: whole})
	if err != nil {
		t.Fatal(err)
	}
	kv, err := w.env.JS.KeyValue(t.Context(), w.env.Topology.BudgetBucket())
	if err == nil {
		_, err = kv.Put(t.Context(), "user."+[]string{"ada", "bob"}[f.Seat%2], b)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// skew moves what every record says of when its key goes on, as if the worker
// that wrote it had a clock that was ahead or behind.
func (w *world) skew(t *testing.T, f fault) {
	l, err := dedupe.Open(t.Context(), w.env.JS, w.env.Topology)
	if err != nil {
		t.Fatal(err)
	}
	by := f.For
	if f.Seat%2 == 0 {
		by = -by
	}
	for i := range w.Keys {
		err := l.Update(t.Context(), "skew", w.recordKey(i), func(r *mulligan.Record) bool {
			if r.Move == nil || r.Move.Due.IsZero() {
				return false
			}
			r.Move.Due = r.Move.Due.Add(by)
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
