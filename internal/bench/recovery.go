package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// recovery starts where a million jobs are stored.
func recovery() Case {
	const n = 1_000_000
	var dir string
	started := func(args ...string) side {
		return func(ctx context.Context, _ *field) ([]float64, error) {
			began := time.Now()
			s, err := Start(ctx, append(args, dir)...)
			if err != nil {
				return nil, err
			}
			took := time.Since(began)
			s.Stop()
			return []float64{took.Seconds()}, nil
		}
	}
	return Case{
		Name:     "recovery",
		About:    fmt.Sprintf("start with %d jobs stored; without: the NATS server alone", n),
		Against:  "the server",
		Measures: []Measure{{Name: "ready", Unit: "s", Goal: 1.5, AtMost: true}},
		setup: func(ctx context.Context) (stop func(), err error) {
			if dir, err = os.MkdirTemp("", "mulligan-bench-"); err != nil {
				return nil, err
			}
			stop = func() { _ = os.RemoveAll(dir) }
			s, err := Start(ctx, "bench", "--sync", "2m", "--serve", dir)
			if err == nil {
				_, err = once(ctx, s, func(ctx context.Context, f *field) ([]float64, error) {
					return nil, f.fillBare(ctx, pure, n, small)
				})
				s.Stop()
			}
			if err != nil {
				stop()
				return nil, errors.Join(fmt.Errorf("store %d jobs", n), err)
			}
			return stop, nil
		},
		bare: started("bench", "--sync", "2m", "--serve"),
		ours: started("serve", "--json", "--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0", "--sync", "2m", "--log-level", "error", "--data"),
	}
}
