package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// publishOne publishes one at a time, from so many goroutines.
func publishOne(name string, goroutines int) Case {
	n := 3000 * min(goroutines, 5)
	publish := func(one func(ctx context.Context, f *field, i int) error) side {
		return func(ctx context.Context, f *field) ([]float64, error) {
			if err := one(ctx, f, -1); err != nil { // looks up what it needs
				return nil, err
			}
			return f.timed(n, func() error {
				return share(n, goroutines, func(i int) error { return one(ctx, f, i) })
			})
		}
	}
	return Case{
		Name: name, About: fmt.Sprintf("publish %d pure jobs of 256 B one at a time, %d at once; bare: PublishMsg with Nats-Msg-Id to the same stream", n, goroutines),
		Measures: throughput(0.95, 0),
		bare: publish(func(ctx context.Context, f *field, i int) error {
			_, err := f.stores.PublishMsg(ctx, f.message(pure, i, small))
			return err
		}),
		ours: publish(func(ctx context.Context, f *field, i int) error {
			_, err := f.pub.Publish(ctx, job(pure, i, small))
			return err
		}),
	}
}

// publishMany publishes many jobs at once.
func publishMany() Case {
	const n = 40_000
	return Case{
		Name: "publish-many", About: fmt.Sprintf("publish %d pure jobs of 256 B; bare: PublishMsgAsync, %d without an answer at most", n, window),
		Measures: throughput(0.95, 0),
		bare: func(ctx context.Context, f *field) ([]float64, error) {
			return f.timed(n, func() error { return f.fillBare(ctx, pure, n, small) })
		},
		ours: func(ctx context.Context, f *field) ([]float64, error) {
			jobs := make([]mulligan.Job, n)
			for i := range jobs {
				jobs[i] = job(pure, i, small)
			}
			return f.timed(n, func() error {
				for _, o := range f.pub.PublishMany(ctx, jobs) {
					if o.Err != nil {
						return o.Err
					}
				}
				return nil
			})
		},
	}
}

const (
	small = 256
	large = 4 << 10
)

func job(kind string, i, size int) mulligan.Job {
	return mulligan.Job{Kind: kind, ID: id(i), Payload: make([]byte, size)}
}

// message is what a job is on its way, as somebody would write it who has nats.go
// alone.
func (f *field) message(kind string, i, size int) *nats.Msg {
	return &nats.Msg{
		Subject: mulligan.Subject(f.top.JobsRoot(), kind, id(i)), Data: make([]byte, size),
		Header: nats.Header{jetstream.MsgIDHeader: {kind + "/" + id(i)}},
	}
}

func id(i int) string { return fmt.Sprintf("job-%d", i) }

// fillBare stores jobs and returns once all are.
func (f *field) fillBare(ctx context.Context, kind string, n, size int) error {
	var failed atomic.Pointer[error]
	js, err := jetstream.New(f.stores.Conn(), jetstream.WithPublishAsyncMaxPending(window),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) { failed.Store(&err) }))
	if err != nil {
		return err
	}
	for i := range n {
		if _, err := js.PublishMsgAsync(f.message(kind, i, size)); err != nil {
			return err
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// timed does n jobs' work and returns jobs per second, and the processor time of
// this process for each.
func (f *field) timed(n int, work func() error) ([]float64, error) {
	began, used := time.Now(), processorTime()
	if err := work(); err != nil {
		return nil, err
	}
	took, cpu := time.Since(began), processorTime()-used
	return []float64{float64(n) / took.Seconds(), cpu.Seconds() / float64(n) * 1e6}, nil
}

// throughput are the measures of timed; a goal of zero is none.
func throughput(rate, cpu float64) []Measure {
	return []Measure{{Name: "rate", Unit: "/s", Goal: rate}, {Name: "cpu", Unit: "µs", Goal: cpu, AtMost: true}}
}

// share calls do for 0 to n-1 from so many goroutines, and returns the first error.
func share(n, goroutines int, do func(i int) error) error {
	var (
		all   sync.WaitGroup
		next  atomic.Int64
		once  sync.Once
		first error
	)
	for range goroutines {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := do(int(i)); err != nil {
					once.Do(func() { first = err })
					return
				}
			}
		})
	}
	all.Wait()
	return first
}
