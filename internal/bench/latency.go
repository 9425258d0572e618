package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/mulligan-queue/mulligan"
)

// latency publishes so many jobs a second and measures how long each takes from
// the beginning of its publish to its handler.
func latency(perSecond int) Case {
	const span = 4 * time.Second
	n := perSecond * int(span/time.Second)
	return Case{
		Name:  fmt.Sprintf("latency-%d", perSecond),
		About: fmt.Sprintf("%d pure jobs of 256 B a second for %v: from the beginning of a publish to its handler, 16 at once; bare: PublishMsg, and the same consumer with 16 goroutines", perSecond, span),
		Measures: []Measure{
			{Name: "p50", Unit: "ms", Goal: 1.1, AtMost: true},
			{Name: "p99", Unit: "ms", Goal: 1.1, AtMost: true},
		},
		bare: func(ctx context.Context, f *field) ([]float64, error) {
			seen := newDelays(n)
			err := flow{perSecond: perSecond, n: n, seen: seen, warm: true, publish: func(ctx context.Context, i int) error {
				m := f.message(pure, i, small)
				stamp(m.Data, time.Now())
				_, err := f.stores.PublishMsg(ctx, m)
				return err
			}, consume: func(ctx context.Context) error {
				return f.loop(ctx, pure, 16, func(_ context.Context, m jetstream.Msg) error {
					seen.note(time.Since(stamped(m.Data())))
					return m.Ack()
				})
			}}.run(ctx)
			return seen.quantiles(), err
		},
		ours: func(ctx context.Context, f *field) ([]float64, error) {
			seen := newDelays(n)
			err := flow{perSecond: perSecond, n: n, seen: seen, warm: true, publish: func(ctx context.Context, i int) error {
				j := job(pure, i, small)
				stamp(j.Payload, time.Now())
				_, err := f.pub.Publish(ctx, j)
				return err
			}, consume: func(ctx context.Context) error {
				return f.work(ctx, pure, 16, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
					seen.note(time.Since(stamped(j.Payload)))
					return nil, nil
				})
			}}.run(ctx)
			return seen.quantiles(), err
		},
	}
}

// flow is n jobs that are published at a rate while they are consumed.
type flow struct {
	perSecond, n int
	publish      func(ctx context.Context, i int) error
	consume      func(context.Context) error
	seen         *delays
	warm         bool // it begins once a job was seen, which does not count
}

// run returns when all have been seen.
func (w flow) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- w.consume(ctx) }()
	if w.warm {
		first := w.seen.warmUp()
		if err := w.publish(ctx, w.n); err != nil {
			return err
		}
		if err := event(ctx, first, ended); err != nil {
			return err
		}
	}
	failed := make(chan error, 1)
	go func() {
		failed <- paced(ctx, w.perSecond, w.n, func(i int) error { return w.publish(ctx, i) })
	}()
	if err := event(ctx, w.seen.all, ended); err != nil {
		return err
	}
	if err := <-failed; err != nil { // a job may be seen before its publisher has the answer
		return err
	}
	stop()
	return <-ended
}

// paced calls do for 0 to n-1, so many a second, whether or not those before have
// ended, and returns the first error.
func paced(ctx context.Context, perSecond, n int, do func(i int) error) error {
	var all errgroup.Group
	began := time.Now()
	for i := range n {
		if !sleepUntil(ctx, began.Add(time.Duration(i)*time.Second/time.Duration(perSecond))) {
			break
		}
		all.Go(func() error { return do(i) })
	}
	return all.Wait()
}

func sleepUntil(ctx context.Context, due time.Time) bool {
	wait := time.Until(due)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func stamp(payload []byte, at time.Time) { binary.BigEndian.PutUint64(payload, uint64(at.UnixNano())) }

// stamped is when a payload was stamped; zero of the epoch if it was not.
func stamped(payload []byte) time.Time { return time.Unix(0, int64(binary.BigEndian.Uint64(payload))) }

// delays are those that were seen, of so many.
type delays struct {
	all chan struct{} // closed once all have been seen

	mu   sync.Mutex
	seen []time.Duration
	want int
	warm chan struct{} // closed by the next, which does not count
}

func newDelays(want int) *delays { return &delays{all: make(chan struct{}), want: want} }

func (d *delays) warmUp() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.warm = make(chan struct{})
	return d.warm
}

func (d *delays) note(delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.warm != nil {
		close(d.warm)
		d.warm = nil
		return
	}
	if d.seen = append(d.seen, delay); len(d.seen) == d.want {
		close(d.all)
	}
}

// quantiles are the median and the 99th percentile, in milliseconds.
func (d *delays) quantiles() []float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.seen) == 0 {
		return []float64{0, 0}
	}
	slices.Sort(d.seen)
	at := func(q float64) float64 { return d.seen[int(q*float64(len(d.seen)-1))].Seconds() * 1e3 }
	return []float64{at(0.5), at(0.99)}
}
