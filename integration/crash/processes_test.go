package crash

import (
	"context"
	"runtime"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// hooking gives a process its life, at whose every point somebody is asked
// whether it ends there; die ends the rest of it.
type hooking func(ctx context.Context, die context.CancelFunc) context.Context

// crashing ends a process at the points at which crash says so.
func crashing(crash func(point string) bool) hooking {
	return func(ctx context.Context, die context.CancelFunc) context.Context {
		return call.With(ctx, func(p string) {
			if crash(p) {
				die()
				runtime.Goexit()
			}
		})
	}
}

// processes are a worker and a scheduler.
type processes struct {
	conn   *nats.Conn
	worker func(process context.Context) *consumer.Worker
	hooked hooking
}

// during runs them, and starts each again when it has crashed, until do returns.
func (p processes) during(t *testing.T, do func()) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	var procs sync.WaitGroup
	for _, run := range []func(context.Context) error{
		func(ctx context.Context) error { return p.worker(ctx).Run(ctx) },
		func(ctx context.Context) error { return (&scheduler.Scheduler{Conn: p.conn}).Run(ctx) },
	} {
		procs.Go(func() {
			for ctx.Err() == nil {
				life, die := context.WithCancel(ctx)
				if err := run(p.hooked(life, die)); err != nil {
					t.Error(err)
				}
				die()
			}
		})
	}
	do()
	end()
	procs.Wait()
}
