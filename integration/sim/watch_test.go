package sim

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// A revision is what the record of a key said from a time on.
type revision struct {
	key string
	at  time.Time
	rec *mulligan.Record
}

// A watch sees every record change.
type watch struct {
	watcher jetstream.KeyWatcher
	done    chan []revision
}

func observe(t *testing.T, e *natstest.Env) *watch {
	kv, err := e.JS.KeyValue(t.Context(), e.Topology.LedgerBucket())
	if err != nil {
		t.Fatal(err)
	}
	watcher, err := kv.WatchAll(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	w := &watch{watcher, make(chan []revision, 1)}
	go func() {
		var seen []revision
		for u := range watcher.Updates() {
			if u == nil {
				continue
			}
			if rec, err := mulligan.DecodeRecord(u.Value()); err == nil {
				seen = append(seen, revision{u.Key(), u.Created(), rec})
			}
		}
		w.done <- seen
	}()
	return w
}

// end returns what was seen.
func (w *watch) end() []revision {
	_ = w.watcher.Stop()
	return <-w.done
}
