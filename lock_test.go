package mulligan_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func TestTheLockIsHeldForAsLongAsTheWorkTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := natstest.InBubble(t)
		e.Provision(t, mulligan.Topology{})
		const takes = 5 * time.Minute
		var ends []time.Time
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				err := mulligan.Alone(mulligan.Topology{}, t.Context(), e.JS, func(ctx context.Context) error {
					time.Sleep(takes)
					mu.Lock()
					defer mu.Unlock()
					ends = append(ends, time.Now())
					return ctx.Err()
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for i := 1; i < len(ends); i++ {
			if gap := ends[i].Sub(ends[i-1]); gap < takes {
				t.Errorf("two were at it at once: they ended %v apart and take %v", gap, takes)
			}
		}
	})
}

func TestALockThatIsLostEndsTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := natstest.InBubble(t)
		e.Provision(t, mulligan.Topology{})
		kv, err := e.JS.KeyValue(t.Context(), mulligan.Topology{}.BudgetBucket())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err = mulligan.Alone(mulligan.Topology{}, t.Context(), e.JS, func(ctx context.Context) error {
			if err := kv.Purge(ctx, "lock.consumers"); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		})
		var api *jetstream.APIError
		if !errors.As(err, &api) || time.Since(began) > time.Minute {
			t.Errorf("the work ended after %v with %v, want it told that the lock is lost", time.Since(began), err)
		}
	})
}

func TestTheLockOfAProcessThatWasKilledIsFreeSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := natstest.InBubble(t)
		e.Provision(t, mulligan.Topology{})
		var killed sync.WaitGroup
		killed.Go(func() {
			ctx := call.With(t.Context(), func(point string) {
				if point == "lock.take after" {
					runtime.Goexit()
				}
			})
			_ = mulligan.Alone(mulligan.Topology{}, ctx, e.JS, func(context.Context) error { return nil })
			t.Error("it went on")
		})
		killed.Wait()
		began := time.Now()
		if err := mulligan.Alone(mulligan.Topology{}, t.Context(), e.JS, func(context.Context) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited < time.Second || waited > 22*time.Second {
			t.Errorf("the next one waited for %v, want 20s and a little", waited)
		}
	})
}
