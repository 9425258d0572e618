package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
)

// consume runs jobs that wait already, with a handler that does nothing.
func consume(concurrency, size int) Case {
	n := 60_000
	if concurrency == 1 {
		n = 20_000
	}
	return Case{
		Name: fmt.Sprintf("consume-%d-%s", concurrency, sizeName(size)),
		About: fmt.Sprintf("run %d pure jobs of %s that wait, %d at once, with a handler that does nothing; bare: the same consumer, %d goroutines, ack",
			n, sizeName(size), concurrency, concurrency),
		Measures: throughput(0.95, 1.1, 10),
		bare: func(ctx context.Context, f *field) ([]float64, error) {
			if err := f.fillBare(ctx, pure, n, size); err != nil {
				return nil, err
			}
			return f.drained(ctx, n, func(ctx context.Context, took func()) error {
				return f.loop(ctx, pure, concurrency, func(_ context.Context, m jetstream.Msg) error {
					took()
					return m.Ack()
				})
			})
		},
		ours: func(ctx context.Context, f *field) ([]float64, error) {
			if err := f.fillBare(ctx, pure, n, size); err != nil {
				return nil, err
			}
			return f.drained(ctx, n, func(ctx context.Context, took func()) error {
				return f.work(ctx, pure, concurrency, func(context.Context, *mulligan.Job) ([]byte, error) {
					took()
					return nil, nil
				})
			})
		},
	}
}

func sizeName(size int) string {
	if size >= 1<<10 {
		return fmt.Sprintf("%dKiB", size>>10)
	}
	return fmt.Sprintf("%dB", size)
}

// drained has do take n jobs, and times it from the first that it took until the
// stream is empty. do tells of each that it takes, and ends with its context.
func (f *field) drained(ctx context.Context, n int, do func(ctx context.Context, took func()) error) ([]float64, error) {
	return taken(ctx, n, do, func() error { return f.empty(ctx) })
}

// taken is drained that ends with then, once do took the last job.
func taken(ctx context.Context, n int, do func(ctx context.Context, took func()) error, then func() error) ([]float64, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var count atomic.Int64
	first, last := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- do(ctx, func() {
			switch count.Add(1) {
			case 1:
				close(first)
			case int64(n):
				close(last)
			}
		})
	}()
	if err := event(ctx, first, ended); err != nil {
		return nil, err
	}
	figures, err := timed(n, func() error {
		if err := event(ctx, last, ended); err != nil {
			return err
		}
		return then()
	})
	stop()
	return figures, errors.Join(err, <-ended)
}

// event waits for something, unless what should cause it ends.
func event(ctx context.Context, is <-chan struct{}, ended chan error) error {
	const patience = 2 * time.Minute
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-is:
		return nil
	case err := <-ended:
		ended <- nil
		return errors.Join(errors.New("it ended before its work was done"), err)
	case <-late.C:
		return fmt.Errorf("not done within %v", patience)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// empty waits until no job is left.
func (f *field) empty(ctx context.Context) error {
	for {
		s, err := f.js.Stream(ctx, f.top.JobsStream())
		if err != nil {
			return err
		}
		if s.CachedInfo().State.Msgs == 0 {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
}

// loop is what somebody would write who has nats.go alone.
func (f *field) loop(ctx context.Context, kind string, goroutines int, do func(context.Context, jetstream.Msg) error) error {
	q := f.top.FreshQueue(downstreamOf(kind))
	c, err := f.js.Consumer(ctx, q.Stream, q.Durable)
	if err != nil {
		return err
	}
	messages := make(chan jetstream.Msg)
	consuming, err := c.Consume(func(m jetstream.Msg) {
		select {
		case messages <- m:
		case <-ctx.Done():
		}
	})
	if err != nil {
		return err
	}
	defer consuming.Stop()
	var all sync.WaitGroup
	var failed atomic.Pointer[error]
	for range goroutines {
		all.Go(func() {
			for {
				select {
				case m := <-messages:
					if err := do(ctx, m); err != nil {
						failed.CompareAndSwap(nil, &err)
						return
					}
				case <-ctx.Done():
					return
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil && ctx.Err() == nil {
		return *err
	}
	return nil
}

// work is a worker as a service would run it.
func (f *field) work(ctx context.Context, kind string, concurrency int, h mulligan.HandlerFunc) error {
	w := &consumer.Worker{Conn: f.conn, Topology: f.top, Concurrency: concurrency}
	w.Handle(kindNamed(kind), h)
	return w.Run(ctx)
}
