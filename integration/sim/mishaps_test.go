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
	consumers := []mulligan.Queue{w.env.Topology.FreshQueue("here"), w.env.Topology.DueQueue("here"),
		{Stream: w.env.Topology.RetriesStream(), Durable: mulligan.SchedulerConsumer}}
	c := consumers[f.Seat%len(consumers)]
	_ = w.env.JS.DeleteConsumer(t.Context(), c.Stream, c.Durable) // it may not be there yet
}

// passOver resets a consumer to a place behind all that has come while it was
// paused: mostly that of fresh jobs, of which there are the most.
func (w *world) passOver(t *testing.T, f fault) {
	q := w.env.Topology.FreshQueue("here")
	if f.Seat == 0 {
		q = w.env.Topology.DueQueue("here")
	}
	span := min(f.For, 20*time.Second)
	if _, err := w.env.JS.PauseConsumer(t.Context(), q.Stream, q.Durable, time.Now().Add(span)); err != nil {
		return // it is not there yet
	}
	time.Sleep(max(span-time.Millisecond, 0))
	s, err := w.env.JS.Stream(t.Context(), q.Stream)
	if err == nil {
		_, err = s.ResetConsumerToSequence(t.Context(), q.Durable, s.CachedInfo().State.LastSeq+1)
	}
	if err != nil {
		t.Fatal(err)
	}
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
		_, err = kv.Put(t.Context(), "user."+f.user(), b)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// user is whose budget a fault is about.
func (f fault) user() string { return users()[f.Seat%2] }

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
