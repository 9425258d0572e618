package consumer

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/internal/watch"
)

// Somebody may have given it the right meanwhile.
func TestAWorkerThatWasRefusedToMendTriesAgainLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := natstest.InBubble(t)
		e.Provision(t, mulligan.Topology{})
		w := puller(t, e).l.w
		q := w.lanes[0].fresh.Queue
		if err := e.JS.DeleteConsumer(t.Context(), q.Stream, q.Durable); err != nil {
			t.Fatal(err)
		}
		refused := time.Now()
		w.barred.Store(&refused)
		if mended, err := w.mend(t.Context(), mulligan.DefaultDownstream); mended || !errors.Is(err, errBarred) {
			t.Errorf("at once: %v, %v; want it not tried", mended, err)
		}
		time.Sleep(watch.MendEvery)
		if mended, err := w.mend(t.Context(), mulligan.DefaultDownstream); !mended || err != nil {
			t.Errorf("later: %v, %v; want it mended", mended, err)
		}
	})
}
