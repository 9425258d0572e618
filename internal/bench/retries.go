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
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/consumer"
)

// Each job fails twice: it wants to be tried again after a tenth of a second, and
// then after two.
const firstDelay = 100 * time.Millisecond

func delayOf(attempt int) time.Duration { return firstDelay << (attempt - 1) }

var errAgain = errors.New("not now")

// eager is a worker for which retries are not what is scarce. All jobs that fail are
// one user's: that all of his calls do holds nobody, and what is measured is what a
// retry costs.
func (f *field) eager(concurrency int, p mulligan.Policy, h mulligan.HandlerFunc) *consumer.Worker {
	w := &consumer.Worker{
		Conn: f.conn, Topology: f.top, Concurrency: concurrency, UserRate: budget.Rate{PerSecond: 1e5, Burst: 1e5},
		Downstreams: map[string]consumer.Downstream{mulligan.DefaultDownstream: {Ratio: 1, Cap: 1e6, Floor: 1e6}},
	}
	k := kindNamed(pure)
	k.Policy = p
	w.Handle(k, h)
	return w
}

// retrier runs jobs that fail twice.
func (f *field) retrier(ctx context.Context, concurrency int, run func(j *mulligan.Job)) error {
	p := mulligan.Policy{Attempts: 4, Total: time.Minute, FirstDelay: firstDelay, MaxDelay: time.Second}
	return f.eager(concurrency, p, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
		run(j)
		if j.Attempt <= 2 {
			return nil, errAgain
		}
		return nil, nil
	}).Run(ctx)
}

// retries runs many jobs that wait and all fail twice.
func retries() Case {
	const n, concurrency = 20_000, 64
	return Case{
		Name:     "retries",
		About:    fmt.Sprintf("run %d jobs that wait and fail twice, to be tried again after 100 and 200 ms; bare: NakWithDelay without any limit, and no record of anything", n),
		Measures: []Measure{{Name: "all done", Unit: "s", Goal: 6, AtMost: true, Alone: true}},
		rounds:   3,
		bare: func(ctx context.Context, f *field) ([]float64, error) {
			if err := f.fillBare(ctx, pure, n, small); err != nil {
				return nil, err
			}
			return f.allDone(ctx, n, func(ctx context.Context, done func()) error {
				return f.loop(ctx, pure, concurrency, func(_ context.Context, m jetstream.Msg) error {
					meta, err := m.Metadata()
					if err != nil {
						return err
					}
					if meta.NumDelivered <= 2 {
						return m.NakWithDelay(delayOf(int(meta.NumDelivered)))
					}
					done()
					return m.Ack()
				})
			})
		},
		ours: func(ctx context.Context, f *field) ([]float64, error) {
			var jobs []mulligan.Job
			for i := range n {
				j := job(pure, i, small)
				j.User = "one"
				jobs = append(jobs, j)
			}
			for _, o := range f.pub.PublishMany(ctx, jobs) {
				if o.Err != nil {
					return nil, o.Err
				}
			}
			return f.allDone(ctx, n, func(ctx context.Context, done func()) error {
				return f.retrier(ctx, concurrency, func(j *mulligan.Job) {
					if j.Attempt == 3 {
						done()
					}
				})
			})
		},
	}
}

// allDone times do from its start until it has told of n jobs.
func (f *field) allDone(ctx context.Context, n int, do func(ctx context.Context, done func()) error) ([]float64, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var count atomic.Int64
	all := make(chan struct{})
	ended := make(chan error, 1)
	began := time.Now()
	go func() {
		ended <- do(ctx, func() {
			if count.Add(1) == int64(n) {
				close(all)
			}
		})
	}()
	err := event(ctx, all, ended)
	took := time.Since(began)
	stop()
	return []float64{took.Seconds()}, errors.Join(err, <-ended)
}

// late publishes jobs of which each fails twice, and measures how much later than
// planned each retry begins.
func late() Case {
	const perSecond, n = 200, 800
	return Case{
		Name:     "late",
		About:    fmt.Sprintf("%d new jobs a second that each fail twice, %d in all: how much later than it was to be each retry begins; bare: NakWithDelay", perSecond, n),
		Measures: []Measure{{Name: "p50", Unit: "ms", Goal: 150, AtMost: true, Alone: true}, {Name: "p99", Unit: "ms", Goal: 300, AtMost: true, Alone: true}},
		bare: func(ctx context.Context, f *field) ([]float64, error) {
			seen, due := newDelays(2*n), newDues()
			err := flow{perSecond: perSecond, n: n, seen: seen, publish: func(ctx context.Context, i int) error {
				_, err := f.stores.PublishMsg(ctx, f.message(pure, i, small))
				return err
			}, consume: func(ctx context.Context) error {
				return f.loop(ctx, pure, 64, func(_ context.Context, m jetstream.Msg) error {
					due.met(m.Subject(), seen)
					meta, err := m.Metadata()
					if err != nil || meta.NumDelivered > 2 {
						return errors.Join(err, m.Ack())
					}
					delay := delayOf(int(meta.NumDelivered))
					due.plan(m.Subject(), time.Now().Add(delay))
					return m.NakWithDelay(delay)
				})
			}}.run(ctx)
			return seen.quantiles(), err
		},
		ours: func(ctx context.Context, f *field) ([]float64, error) {
			calls, due := newDelays(3*n), newDues()
			err := flow{perSecond: perSecond, n: n, seen: calls, publish: func(ctx context.Context, i int) error {
				j := job(pure, i, small)
				j.User = "one"
				_, err := f.pub.Publish(ctx, j)
				return err
			}, consume: func(ctx context.Context) error {
				return f.retrier(ctx, 64, func(j *mulligan.Job) {
					calls.note(0)
					due.plan(attemptOf(j.ID, j.Attempt), time.Now())
				})
			}}.run(ctx)
			if err != nil {
				return nil, err
			}
			seen := newDelays(2 * n)
			if err := f.compare(ctx, n, due, seen); err != nil {
				return nil, err
			}
			return seen.quantiles(), nil
		},
	}
}

func attemptOf(id string, attempt int) string { return fmt.Sprint(id, " ", attempt) }

// compare notes how much later than their records say the retries of n jobs began.
func (f *field) compare(ctx context.Context, n int, began *dues, seen *delays) error {
	ledger, err := f.js.KeyValue(ctx, f.top.LedgerBucket())
	if err != nil {
		return err
	}
	for i := range n {
		e, err := ledger.Get(ctx, mulligan.RecordKey(pure, id(i)))
		if err != nil {
			return fmt.Errorf("record of %s: %w", id(i), err)
		}
		r, err := mulligan.DecodeRecord(e.Value())
		if err != nil {
			return err
		}
		for _, a := range r.History {
			if a.Number <= 2 {
				seen.note(began.at[attemptOf(id(i), a.Number+1)].Sub(a.At.Add(a.Took + a.Delay)))
			}
		}
	}
	return nil
}

// dues are when each job is to be tried again.
type dues struct {
	mu sync.Mutex
	at map[string]time.Time
}

func newDues() *dues { return &dues{at: map[string]time.Time{}} }

func (d *dues) plan(job string, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at[job] = at
}

// met notes how late a job is that was to be tried again.
func (d *dues) met(job string, seen *delays) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, ok := d.at[job]; ok {
		seen.note(time.Since(at))
	}
}
