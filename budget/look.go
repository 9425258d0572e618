package budget

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// Books is the bucket of budgets as operators see it. It is safe for concurrent
// use.
type Books struct{ kv jetstream.KeyValue }

// OpenBooks looks up the budgets of a topology.
func OpenBooks(ctx context.Context, js jetstream.JetStream, t mulligan.Topology) (*Books, error) {
	kv, err := js.KeyValue(ctx, t.BudgetBucket())
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, fmt.Errorf("%w (%w)", mulligan.ErrNoTopology, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: open the budgets: %w", mulligan.ErrUnavailable, err)
	}
	return &Books{kv: kv}, nil
}

// User returns what is known of a user's retries. One who has had none lately
// has the zero state.
func (b *Books) User(ctx context.Context, user string) (s UserState, err error) {
	return s, b.read(ctx, userKey(user), &s)
}

// Task returns what is known of a task's retries. One that has had none has the
// zero state.
func (b *Books) Task(ctx context.Context, task string) (s TaskState, err error) {
	return s, b.read(ctx, taskKey(task), &s)
}

// ResetUser forgets a user: the whole burst may be used again.
func (b *Books) ResetUser(ctx context.Context, user string) error {
	return b.reset(ctx, userKey(user))
}

// ResetTask forgets a task: it may have all its retries again.
func (b *Books) ResetTask(ctx context.Context, task string) error {
	return b.reset(ctx, taskKey(task))
}

func (b *Books) read(ctx context.Context, key string, into any) error {
	e, err := b.kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: read budget %s: %w", mulligan.ErrUnavailable, key, err)
	}
	if err := json.Unmarshal(e.Value(), into); err != nil {
		return fmt.Errorf("budget %s is unreadable: %w; reset it", key, err)
	}
	return nil
}

// reset deletes the key. A worker that writes it at the same moment reads it
// again, and finds none.
func (b *Books) reset(ctx context.Context, key string) error {
	if err := b.kv.Delete(ctx, key); err != nil {
		return fmt.Errorf("%w: reset budget %s: %w", mulligan.ErrUnavailable, key, err)
	}
	return nil
}
