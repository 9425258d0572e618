package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan/internal/watch"
)

// Stuck says that jobs of a stream wait in vain.
type Stuck = watch.Stuck

// own is what this worker knows itself of whether jobs wait in vain.
func (s *source) own() watch.Own {
	l := s.lane
	d := l.state(time.Now())
	return watch.Own{
		Overdue: s == l.fresh && int(l.overdue.Load()) >= l.slots, // said once, with the fresh jobs
		Held:    d.Held != "" || s == l.fresh && l.w.holding.Load() || s == l.due && l.short.Load(),
		Busy:    d.InHand > 0,
	}
}

// filters are what the consumer needs for this worker's kinds.
func (s *source) filters() (all []string) {
	for name, k := range s.lane.w.kinds {
		if _, moved := s.lane.w.moved.Load(name); k.Downstream == s.lane.downstream && !moved {
			all = append(all, s.Filter(name))
		}
	}
	return all
}

// errBarred says that a worker with narrow rights mends nothing.
var errBarred = errors.New("this worker has no right to change consumers")

// mend makes the consumers of a downstream as they should be, and reports whether
// there was anything to do. A worker that was refused it tries again, but not
// soon: the server leaves every question of his unanswered.
func (w *Worker) mend(ctx context.Context, downstream string) (mended bool, err error) {
	if at := w.barred.Load(); at != nil && time.Since(*at) < watch.MendEvery {
		return false, errBarred
	}
	before := w.Conn.LastError()
	mended, err = w.Topology.MendConsumers(ctx, w.js, []string{downstream})
	if refused := w.Conn.LastError(); err != nil && refused != before && errors.Is(refused, nats.ErrPermissionViolation) {
		now := time.Now()
		w.barred.Store(&now)
		return mended, fmt.Errorf("%w: %w", errBarred, refused)
	}
	return mended, err
}
