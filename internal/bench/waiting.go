package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// waiting has fresh jobs pass many that wait for a retry.
func waiting() Case {
	const n, perSecond, span = 50_000, 500, 5
	run := func(waiting int) side {
		return func(ctx context.Context, f *field) ([]float64, error) {
			server, worker := f.server.memory(), heap()
			p, err := f.patient(ctx, waiting, func() error { return mulligan.After(time.Hour, errAgain) })
			if err != nil {
				return nil, err
			}
			server, worker = f.server.memory()-server, heap()-worker
			got, err := p.fresh(ctx, perSecond, perSecond*span)
			return append(got, float64(server)/n, float64(worker)/n), errors.Join(err, p.end())
		}
	}
	return Case{
		Name:    "waiting",
		About:   fmt.Sprintf("%d fresh jobs a second for %d s, beside %d jobs that wait for their retry", perSecond, span, n),
		Against: "none waiting",
		Measures: []Measure{
			{Name: "fresh p50", Unit: "ms"},
			{Name: "fresh p99", Unit: "ms", Goal: 1.2, AtMost: true},
			{Name: "server memory", Unit: "B/job", Goal: 1 << 10, AtMost: true, Alone: true},
			{Name: "worker memory", Unit: "B/job", Goal: 16, AtMost: true, Over: true},
		},
		rounds: 3,
		bare:   run(0), ours: run(n),
	}
}

// heap is what this process has in its heap, in bytes.
func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// due has many retries come due at one moment, and fresh jobs beside them.
func due() Case {
	const n, perSecond = 100_000, 200
	return Case{
		Name:  "due-at-once",
		About: fmt.Sprintf("%d retries are due at one moment, and %d fresh jobs a second come beside them, 64 at once; bare: as many messages nak'd until then", n, perSecond),
		Measures: []Measure{
			{Name: "rate", Unit: "/s", Goal: 0.5},
			{Name: "fresh p99", Unit: "ms", Goal: 3, AtMost: true},
		},
		rounds: 1,
		bare: func(ctx context.Context, f *field) ([]float64, error) {
			const settle = 10 * time.Second // for all to be nak'd before
			if err := f.fillBare(ctx, pure, n, small); err != nil {
				return nil, err
			}
			ctx, stop := context.WithCancel(ctx)
			p := &patient{f: f, stop: stop, ended: make(chan error, 1), retried: newDelays(n)}
			at := time.Now().Add(settle)
			go func() {
				p.ended <- f.loop(ctx, pure, 64, func(_ context.Context, m jetstream.Msg) error {
					meta, err := m.Metadata()
					switch {
					case err != nil:
						return err
					case stamped(m.Data()).UnixNano() != 0:
						p.seen.Load().note(time.Since(stamped(m.Data())))
					case meta.NumDelivered == 1:
						return m.NakWithDelay(time.Until(at))
					default:
						p.retried.note(time.Since(at))
					}
					return m.Ack()
				})
			}()
			return p.dueAt(ctx, at, n, perSecond)
		},
		ours: func(ctx context.Context, f *field) ([]float64, error) {
			const settle = 35 * time.Second // for all to have failed before
			at := time.Now().Add(settle)
			p, err := f.patient(ctx, n, func() error { return mulligan.After(time.Until(at), errAgain) })
			if err == nil && !time.Now().Before(at) {
				err = errors.Join(fmt.Errorf("not all had failed within %v", settle), p.end())
			}
			if err != nil {
				return nil, err
			}
			return p.dueAt(ctx, at, n, perSecond)
		},
	}
}

// dueAt publishes fresh jobs from a moment on, until all that are due then are done.
func (p *patient) dueAt(ctx context.Context, at time.Time, n, perSecond int) ([]float64, error) {
	sleepUntil(ctx, at)
	until, done := context.WithCancel(ctx)
	defer done()
	fresh := make(chan []float64, 1)
	failed := make(chan error, 1)
	go func() {
		got, err := p.fresh(until, perSecond, 100*perSecond)
		fresh <- got
		failed <- err
	}()
	if err := event(ctx, p.retried.all, p.ended); err != nil {
		return nil, errors.Join(err, p.end())
	}
	took := time.Since(at)
	done()
	got := <-fresh
	if err := errors.Join(<-failed, p.end()); err != nil {
		return nil, err
	}
	return []float64{float64(n) / took.Seconds(), got[1]}, nil
}

// patient has jobs that wait for a retry.
type patient struct {
	f       *field
	seen    atomic.Pointer[delays] // of fresh jobs
	retried *delays                // of the others
	stop    context.CancelFunc
	ended   chan error
}

// patient runs a worker until n jobs have failed once, as retry says.
func (f *field) patient(ctx context.Context, n int, retry func() error) (*patient, error) {
	ctx, stop := context.WithCancel(ctx)
	p := &patient{f: f, stop: stop, ended: make(chan error, 1), retried: newDelays(n)}
	failed := make(chan struct{})
	var count atomic.Int64
	policy := mulligan.Policy{Attempts: 4, Total: 24 * time.Hour, FirstDelay: time.Second, MaxDelay: time.Minute}
	w := f.eager(64, policy, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
		switch {
		case j.User == "":
			p.seen.Load().note(time.Since(stamped(j.Payload)))
		case j.Attempt > 1:
			p.retried.note(0)
		default:
			if count.Add(1) == int64(n) {
				close(failed)
			}
			return nil, retry()
		}
		return nil, nil
	})
	go func() { p.ended <- w.Run(ctx) }()
	if n == 0 {
		return p, nil
	}
	jobs := make([]mulligan.Job, n)
	for i := range jobs {
		jobs[i] = job(pure, i, small)
		jobs[i].User = "one"
	}
	for _, o := range f.pub.PublishMany(ctx, jobs) {
		if o.Err != nil {
			return nil, errors.Join(o.Err, p.end())
		}
	}
	if err := errors.Join(event(ctx, failed, p.ended), f.empty(ctx)); err != nil {
		return nil, errors.Join(err, p.end())
	}
	return p, nil
}

// fresh publishes up to n fresh jobs, so many a second, and measures how long each
// takes to its handler.
func (p *patient) fresh(ctx context.Context, perSecond, n int) ([]float64, error) {
	seen := newDelays(n)
	p.seen.Store(seen)
	failed := make(chan error, 1)
	go func() {
		failed <- paced(ctx, perSecond, n, func(i int) error {
			payload := make([]byte, small)
			stamp(payload, time.Now())
			// What has begun is stored, also when nobody waits for it any more.
			_, err := p.f.pub.Publish(context.WithoutCancel(ctx), mulligan.Job{Kind: pure, ID: fmt.Sprint("fresh-", i), Payload: payload})
			return err
		})
	}()
	err := event(ctx, seen.all, p.ended)
	if ctx.Err() != nil {
		err = nil
	}
	return seen.quantiles(), errors.Join(err, <-failed)
}

func (p *patient) end() error {
	p.stop()
	return <-p.ended
}
