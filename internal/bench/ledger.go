package bench

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// recorded runs jobs whose effect must not happen twice, which costs two round
// trips before the acknowledgement; the bare loop makes as many.
func recorded(kind string, about string, bare func(ctx context.Context, kv jetstream.KeyValue, key string) error) Case {
	const n, concurrency = 30_000, 16
	return Case{
		Name:     string(kindNamed(kind).Effect),
		About:    fmt.Sprintf("run %d %s jobs of 256 B that wait, %d at once; bare: %s, ack", n, kindNamed(kind).Effect, concurrency, about),
		Measures: throughput(0.9, 0, 0),
		bare: func(ctx context.Context, f *field) ([]float64, error) {
			if err := f.fillBare(ctx, kind, n, small); err != nil {
				return nil, err
			}
			kv, err := f.js.KeyValue(ctx, f.top.LedgerBucket())
			if err != nil {
				return nil, err
			}
			return f.drained(ctx, n, func(ctx context.Context, took func()) error {
				return f.loop(ctx, kind, concurrency, func(ctx context.Context, m jetstream.Msg) error {
					took()
					if err := bare(ctx, kv, m.Subject()); err != nil {
						return err
					}
					return m.Ack()
				})
			})
		},
		ours: func(ctx context.Context, f *field) ([]float64, error) {
			if err := f.fillBare(ctx, kind, n, small); err != nil {
				return nil, err
			}
			return f.drained(ctx, n, func(ctx context.Context, took func()) error {
				return f.work(ctx, kind, concurrency, func(context.Context, *mulligan.Job) ([]byte, error) {
					took()
					return nil, nil
				})
			})
		},
	}
}

// recordSize is about what the record of a job has that succeeded at once.
const recordSize = 400

func keyedJobs() Case {
	return recorded(keyed, "KV get and create", func(ctx context.Context, kv jetstream.KeyValue, key string) error {
		if _, err := kv.Get(ctx, key); err == nil {
			return fmt.Errorf("%s is there already", key)
		}
		_, err := kv.Create(ctx, key, make([]byte, recordSize))
		return err
	})
}

func onceJobs() Case {
	return recorded(unique, "KV create and update", func(ctx context.Context, kv jetstream.KeyValue, key string) error {
		revision, err := kv.Create(ctx, key, make([]byte, recordSize))
		if err != nil {
			return err
		}
		_, err = kv.Update(ctx, key, make([]byte, recordSize), revision)
		return err
	})
}
