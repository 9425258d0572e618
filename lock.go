package mulligan

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/pause"
)

// lockHold is how long a lock outlives a process that crashed, and all others wait
// then; one that lives says so four times as often. Two at once do harm only if one
// was stopped for longer than this and then goes on, and a look at the consumers
// finds that and mends it.
const lockHold = 20 * time.Second

// lock is a key of the bucket of budgets that one process at a time has.
type lock struct {
	js       jetstream.JetStream
	kv       jetstream.KeyValue
	key      string
	revision uint64
}

// alone does what no two processes may at once: a consumer's configuration is
// read, changed and written, and the server has no compare-and-set for it. The
// lock is held for as long as do takes; when it cannot be, do's context ends.
func (t Topology) alone(ctx context.Context, js jetstream.JetStream, do func(ctx context.Context) error) error {
	kv, err := js.KeyValue(ctx, t.BudgetBucket())
	if err != nil {
		return fmt.Errorf("ensure consumers: %w", notProvisioned(err))
	}
	l := lock{js: js, kv: kv, key: "lock.consumers"}
	if err := l.take(ctx); err != nil {
		return fmt.Errorf("ensure consumers: %w", err)
	}
	held, end := context.WithCancelCause(ctx)
	var holder sync.WaitGroup
	holder.Go(func() { end(l.hold(held)) })
	err = do(held)
	if cause := context.Cause(held); err != nil && cause != nil {
		err = errors.Join(err, cause)
	}
	end(nil)
	holder.Wait()
	_ = call.Err(ctx, "lock.free", func() error { // lost, it expires
		return kv.Delete(context.WithoutCancel(ctx), l.key, jetstream.LastRevision(l.revision))
	})
	return err
}

// take waits until nobody has the lock.
func (l *lock) take(ctx context.Context) (err error) {
	for {
		l.revision, err = call.Do(ctx, "lock.take", func() (uint64, error) {
			return l.kv.Create(ctx, l.key, nil, jetstream.KeyTTL(lockHold))
		})
		if !taken(err) {
			return err
		}
		if err := pause.For(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("another process is at it: %w", err)
		}
	}
}

// taken reports whether another process has the lock, in all the words that there
// are for it: of the client, of a server, and of a cluster.
func taken(err error) bool {
	const wrongLastSequence, inCluster = jetstream.JSErrCodeStreamWrongLastSequence, 10164
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) && (api.ErrorCode == wrongLastSequence || api.ErrorCode == inCluster)
}

// hold keeps the lock from expiring until ctx ends, or says why it could not.
func (l *lock) hold(ctx context.Context) error {
	for pause.For(ctx, lockHold/4) == nil {
		msg := nats.NewMsg("$KV." + l.kv.Bucket() + "." + l.key)
		ack, err := call.Do(ctx, "lock.hold", func() (*jetstream.PubAck, error) {
			return l.js.PublishMsg(ctx, msg, jetstream.WithMsgTTL(lockHold), jetstream.WithExpectLastSequencePerSubject(l.revision))
		})
		if err != nil {
			return fmt.Errorf("lock %s is lost: %w", l.key, err)
		}
		l.revision = ack.Sequence
	}
	return nil
}
