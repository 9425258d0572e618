package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/mulligan-queue/mulligan"
)

// publishOne publishes one at a time, from so many goroutines.
func publishOne(goroutines int) Case {
	n := 3000 * min(goroutines, 5)
	publish := func(one func(ctx context.Context, f *field, i int) error) side {
		return func(ctx context.Context, f *field) ([]float64, error) {
			if err := one(ctx, f, -1); err != nil { // looks up what it needs
				return nil, err
			}
			return timed(n, func() error {
				return share(n, goroutines, func(i int) error { return one(ctx, f, i) })
			})
		}
	}
	return Case{
		Name: fmt.Sprintf("publish-%d", goroutines), About: fmt.Sprintf("publish %d pure jobs of 256 B one at a time, %d at once; bare: PublishMsg with Nats-Msg-Id to the same stream", n, goroutines),
		Measures: throughput(0.95, 0, 0),
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
		Measures: throughput(0.95, 0, 0),
		bare: func(ctx context.Context, f *field) ([]float64, error) {
			return timed(n, func() error { return f.fillBare(ctx, pure, n, small) })
		},
		ours: publishAll(n),
	}
}

func publishAll(n int) side {
	return func(ctx context.Context, f *field) ([]float64, error) {
		jobs := make([]mulligan.Job, n)
		for i := range jobs {
			jobs[i] = job(pure, i, small)
		}
		return timed(n, func() error {
			for _, o := range f.pub.PublishMany(ctx, jobs) {
				if o.Err != nil {
					return o.Err
				}
			}
			return nil
		})
	}
}

// publishFile publishes many by the command, as a process of its own.
func publishFile() Case {
	const n = 40_000
	c := publishMany()
	c.Name, c.About = "publish-file", fmt.Sprintf("`mulligan publish --file` with %d pure jobs of 256 B, from its start to its end; bare: PublishMsgAsync, %d without an answer at most", n, window)
	c.Measures = []Measure{{Name: "rate", Unit: "/s", Goal: 0.95}}
	c.ours = func(ctx context.Context, f *field) ([]float64, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
		file, err := os.CreateTemp("", "mulligan-bench-*.jsonl")
		if err != nil {
			return nil, err
		}
		defer func() { _ = os.Remove(file.Name()) }()
		payload := strings.Repeat("x", small-2) // and its quotes
		for i := range n {
			if _, err := fmt.Fprintf(file, `{"kind":%q,"id":%q,"payload":%q}`+"\n", pure, id(i), payload); err != nil {
				return nil, err
			}
		}
		if err := file.Close(); err != nil {
			return nil, err
		}
		return timed(n, func() error {
			out, err := exec.CommandContext(ctx, self, "publish", "--file", file.Name(), "--server", f.server.URL).CombinedOutput()
			if err != nil {
				return fmt.Errorf("publish --file: %w: %s", err, out)
			}
			return nil
		})
	}
	return c
}

// publishSynced publishes many to a server that flushes each to disk before it
// answers.
func publishSynced() Case {
	const one, many = 500, 10_000
	return Case{
		Name: "publish-synced", Sync: "always",
		About:    fmt.Sprintf("publish %d pure jobs of 256 B to a server that flushes always; bare: PublishMsg, %d one at a time", many, one),
		Measures: []Measure{{Name: "rate", Unit: "/s", Goal: 3}},
		bare: func(ctx context.Context, f *field) ([]float64, error) {
			return timed(one, func() error {
				for i := range one {
					if _, err := f.stores.PublishMsg(ctx, f.message(pure, i, small)); err != nil {
						return err
					}
				}
				return nil
			})
		},
		ours: publishAll(many),
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
	return f.fill(ctx, n, func(i int) *nats.Msg { return f.message(kind, i, size) })
}

// fill stores messages and returns once all are.
func (f *field) fill(ctx context.Context, n int, message func(i int) *nats.Msg) error {
	var failed atomic.Pointer[error]
	js, err := jetstream.New(f.stores.Conn(), jetstream.WithPublishAsyncMaxPending(window),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) { failed.Store(&err) }))
	if err != nil {
		return err
	}
	for i := range n {
		if _, err := js.PublishMsgAsync(message(i)); err != nil {
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

// timed does n jobs' work and returns jobs per second, and the processor time and
// the allocations of this process for each.
func timed(n int, work func() error) ([]float64, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began, used := time.Now(), processorTime()
	if err := work(); err != nil {
		return nil, err
	}
	took, cpu := time.Since(began), processorTime()-used
	runtime.ReadMemStats(&after)
	return []float64{float64(n) / took.Seconds(), cpu.Seconds() / float64(n) * 1e6, float64(after.Mallocs-before.Mallocs) / float64(n)}, nil
}

// throughput are the measures of timed, with goals for the rate and the processor
// time beside the bare side's, and for the allocations over it; zero is none.
func throughput(rate, cpu, allocations float64) []Measure {
	return []Measure{
		{Name: "rate", Unit: "/s", Goal: rate}, {Name: "cpu", Unit: "µs", Goal: cpu, AtMost: true},
		{Name: "allocations", Goal: allocations, AtMost: true, Over: true},
	}
}

// share calls do for 0 to n-1, so many at once, and returns the first error.
func share(n, atOnce int, do func(i int) error) error {
	var all errgroup.Group
	all.SetLimit(atOnce)
	for i := range n {
		all.Go(func() error { return do(i) })
	}
	return all.Wait()
}
