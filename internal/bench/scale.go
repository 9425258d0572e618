package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
)

// scale runs jobs of 20 ms with more and more workers.
func scale(workers int) Case {
	const each, concurrency, takes = 2400, 16, 20 * time.Millisecond
	return Case{
		Name:    fmt.Sprintf("workers-%d", workers),
		About:   fmt.Sprintf("%d workers run %d jobs of %v each, %d at once", workers, each, takes, concurrency),
		Against: "1 worker",
		// So that a ratio of one is linear.
		Measures: []Measure{{Name: "rate of each", Unit: "/s", Goal: 0.95}},
		bare: func(ctx context.Context, f *field) ([]float64, error) {
			return f.crew(ctx, 1, each, concurrency, takes)
		},
		ours: func(ctx context.Context, f *field) ([]float64, error) {
			return f.crew(ctx, workers, each, concurrency, takes)
		},
	}
}

// crew has so many workers, each with a connection of its own, run what waits, from
// when each has a job.
func (f *field) crew(ctx context.Context, workers, each, concurrency int, takes time.Duration) ([]float64, error) {
	n := workers * each
	if err := f.fillBare(ctx, pure, n, small); err != nil {
		return nil, err
	}
	figures, err := f.drained(ctx, n, func(ctx context.Context, took func()) error {
		var (
			all, idle sync.WaitGroup // idle are the workers that have no job yet
			errs      = make([]error, workers)
		)
		idle.Add(workers)
		for i := range workers {
			conn, err := f.dial()
			if err != nil {
				return err
			}
			defer conn.Close()
			w := &consumer.Worker{Conn: conn, Topology: f.top, Concurrency: concurrency}
			begun := sync.OnceFunc(idle.Done)
			w.Handle(kindNamed(pure), mulligan.HandlerFunc(func(context.Context, *mulligan.Job) ([]byte, error) {
				begun()
				idle.Wait() // what is measured is not how they start
				time.Sleep(takes)
				took()
				return nil, nil
			}))
			all.Go(func() { errs[i] = w.Run(ctx) })
		}
		all.Wait()
		return errors.Join(errs...)
	})
	if err != nil {
		return nil, err
	}
	return []float64{figures[0] / float64(workers)}, nil
}
