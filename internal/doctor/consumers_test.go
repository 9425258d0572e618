package doctor

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// A job that lies below the place that its consumer has reached may be one that is
// just being removed.
func TestOnlyWhatStaysWasPassedOver(t *testing.T) {
	for name, stays := range map[string]bool{"passed over": true, "just being removed": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := natstest.InBubble(t)
				e.Provision(t, topology)
				s := passOver(t, e)
				var remover sync.WaitGroup
				defer remover.Wait()
				if !stays {
					remover.Go(func() {
						time.Sleep(mulligan.SettleWait / 2)
						if err := s.DeleteMsg(t.Context(), s.CachedInfo().State.LastSeq); err != nil {
							t.Error(err)
						}
					})
				}
				said := slices.ContainsFunc(visit(t, e, ""), func(f Finding) bool {
					return f.Status == Fail && strings.Contains(f.Detail, `passed over jobs and will never deliver them, such as "mulligan.retry.spent.email.send.a"`)
				})
				if said != stays {
					t.Errorf("it is said that a job was passed over: %v, want %v", said, stays)
				}
			})
		})
	}
}

// passOver stores a spent job and resets its consumer to behind it.
func passOver(t *testing.T, e *natstest.Env) jetstream.Stream {
	t.Helper()
	if _, err := e.JS.Publish(t.Context(), mulligan.Subject(topology.SpentRoot(), "email.send", "a"), nil); err != nil {
		t.Fatal(err)
	}
	s, err := e.JS.Stream(t.Context(), topology.RetriesStream())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ResetConsumerToSequence(t.Context(), mulligan.SchedulerConsumer, s.CachedInfo().State.LastSeq+1); err != nil {
		t.Fatal(err)
	}
	return s
}
