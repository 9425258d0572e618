package consumer

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/clock"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func TestAWorkerWhoseClockIsOffKeepsAHint(t *testing.T) {
	for _, off := range []time.Duration{-30 * time.Second, 30 * time.Second, -500 * time.Millisecond} {
		t.Run(fmt.Sprint(off), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := natstest.InBubble(t)
				e.Provision(t, mulligan.Topology{})
				k := mulligan.Kind{Name: "story.told", Effect: mulligan.Pure}
				w, ran := &Worker{Conn: e.Conn}, make(chan time.Time, 2)
				now := time.Now()
				w.clock.Set(clock.Sample{Asked: now, Answered: now, Server: now.Add(off)})
				w.Handle(k, mulligan.HandlerFunc(func(_ context.Context, job *mulligan.Job) ([]byte, error) {
					ran <- time.Now()
					if job.Attempt == 1 {
						return nil, mulligan.After(3*time.Second, errors.New("busy"))
					}
					return nil, nil
				}))
				ctx, end := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- w.Run(ctx) }()
				pub := &mulligan.Publisher{Conn: e.Conn, Kinds: []mulligan.Kind{k}}
				if _, err := pub.Publish(ctx, mulligan.Job{Kind: k.Name, ID: "a", Payload: []byte("x")}); err != nil {
					t.Fatal(err)
				}
				first, again := <-ran, <-ran
				if waited := again.Sub(first); waited < 3*time.Second || waited > 4*time.Second {
					t.Errorf("tried again after %v, want 3s and a little", waited)
				}
				end()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// The clock that all share is put right while a handler calls a downstream, which
// then asks to wait.
func TestAHintOfACallHoldsThoughTheClockIsPutRight(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, time.Hour} {
		t.Run(fmt.Sprint(off), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &calls{clock: new(clock.Clock), started: time.Now()}
				e := ending{started: c.clock.Now()}
				c.clock.Set(clock.Sample{Asked: c.started, Answered: c.started, Server: c.started.Add(off)})
				c.Tried(mulligan.After(3*time.Second, errors.New("busy")), false, false)
				time.Sleep(time.Second)
				e.called, e.took = c.finish(nil), time.Since(c.started)
				if got := e.attempt(new(mulligan.Record), 1).Hint; got != 2*time.Second {
					t.Errorf("the hint is %v, want the two seconds that are left", got)
				}
			})
		})
	}
}
