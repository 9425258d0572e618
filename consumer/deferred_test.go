package consumer_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/consumer"
)

// stingy is a worker whose downstream has two tokens for retries, and hardly
// another for hours.
func stingy() *consumer.Worker {
	return &consumer.Worker{
		UserRate:    budget.Rate{PerSecond: 1000, Burst: 1000},
		Downstreams: map[string]consumer.Downstream{mulligan.DefaultDownstream: {Cap: 2, Floor: 0.001}},
	}
}

func TestADeferredFirstAttemptDoesNotWaitBehindRetriesThatHaveNoToken(t *testing.T) {
	kind := pure
	kind.Policy = mulligan.Policy{Attempts: 2}
	bubble(t, kind, func(t *testing.T, f *floor) {
		stop := f.work(t, stingy(), func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			switch runs := f.log.note(j.ID); {
			case j.User != "": // of one user, so that the breaker stays closed
				return nil, errFlaky
			case j.ID == "snoozes" && runs == 1:
				return nil, mulligan.Snooze(10 * time.Second)
			}
			return nil, nil
		})
		const retries = 100
		for _, id := range ids("retry-", retries) {
			f.publish(t, mulligan.Job{ID: id, User: "ada"})
		}
		time.Sleep(20 * time.Second)
		if n := f.Account(t).Due; n < retries-5 {
			t.Fatalf("%d retries wait for a token, want almost all of %d", n, retries)
		}
		due := time.Now().Add(10 * time.Second)
		f.publish(t, mulligan.Job{ID: "later", NotBefore: due}, mulligan.Job{ID: "snoozes"}, mulligan.Job{ID: "fails", User: "ada", NotBefore: due})
		time.Sleep(time.Minute)
		for id, runs := range map[string]int{"later": 1, "snoozes": 2, "fails": 1} { // a retry of the last has no token either
			at := f.log.of(id)
			if len(at) != runs || at[runs-1].Before(due) || at[runs-1].After(due.Add(time.Second)) {
				t.Errorf("job %s ran at %v, want %d runs, the last of them at %v", id, at, runs, due)
			}
		}
		if c := f.Account(t); c.Due < retries-5 || c.Deferred != 0 {
			t.Errorf("got %+v, want the retries where they were, and nothing that was deferred", c)
		}
		stop()
	})
}

func TestADeferredJobIsNotPulledWhileTheDownstreamIsHeld(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			if f.log.note(j.ID) == 1 && j.ID == "hint" {
				return nil, mulligan.After(50*time.Second, errFlaky)
			}
			return nil, nil
		})
		due := time.Now().Add(10 * time.Second)
		for _, id := range ids("job-", 10) {
			f.publish(t, mulligan.Job{ID: id, NotBefore: due})
		}
		time.Sleep(time.Second)
		f.publish(t, mulligan.Job{ID: "hint"})
		time.Sleep(45 * time.Second)
		if s := f.stands(t); s.Held != string(budget.GateClosed) {
			t.Fatalf("the downstream stands at %+v, want its gate closed", s)
		}
		for _, id := range ids("job-", 10) {
			if n := len(f.log.of(id)); n != 0 {
				t.Errorf("job %s ran while the gate is closed", id)
			}
		}
		if c, pulled := f.Account(t), f.pulled(t, mulligan.Topology{}.DeferredQueue(mulligan.DefaultDownstream)); c.Deferred != 10 || pulled != 0 {
			t.Errorf("got %+v and %d pulled, want ten that are due, and none pulled", c, pulled)
		}
		f.settled(t, ids("job-", 10)...)
		stop()
	})
}

// What lies where deferred jobs are pulled, but is a retry by now, goes to where
// retries wait for their tokens; and what an older program parked there is done.
func TestWhatComesBackIsPulledWithATokenIfItIsARetry(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		top := f.Topology
		ledger, err := f.JS.KeyValue(t.Context(), top.LedgerBucket())
		if err != nil {
			t.Fatal(err)
		}
		comesBack := func(root, id string, attempts int, verb mulligan.Verb) {
			t.Helper()
			move := &mulligan.Move{Address: mulligan.Address(top.JobsStream(), 99), Verb: verb, Due: time.Now()}
			rec := mulligan.Record{State: mulligan.Live, Effect: mulligan.Keyed, Payload: mulligan.FingerprintOf(nil), Attempts: attempts, Move: move}
			if _, err := ledger.Put(t.Context(), mulligan.RecordKey(keyed.Name, id), rec.Encode()); err != nil {
				t.Fatal(err)
			}
			job, err := mulligan.OpenJob(keyed.Name, id, &nats.Msg{}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.JS.PublishMsg(t.Context(), job.Moved(mulligan.Subject(root, keyed.Name, id))); err != nil {
				t.Fatal(err)
			}
			f.Accept(keyed.Name, id)
		}
		for i := range 10 {
			comesBack(top.DeferredRoot(), fmt.Sprint("retry-", i), 1, mulligan.Park)
			comesBack(top.DeferredRoot(), fmt.Sprint("snoozed-", i), 1, mulligan.Defer)
		}
		comesBack(top.DueRoot(), "older", 0, mulligan.Defer)
		stop := f.work(t, stingy(), func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note(j.ID)
			return nil, mulligan.Permanent(errFlaky)
		})
		time.Sleep(time.Minute)
		ran := func(prefix string) (n int) {
			for _, id := range ids(prefix, 10) {
				n += len(f.log.of(id))
			}
			return n
		}
		if r, s, o := ran("retry-"), ran("snoozed-"), len(f.log.of("older")); r != 2 || s != 10 || o != 1 {
			t.Errorf("%d retries ran, %d jobs that had snoozed and %d of an older program; want 2, since there are two tokens, 10 and 1", r, s, o)
		}
		if c := f.Account(t); c.Due != 8 || c.Deferred != 0 {
			t.Errorf("got %+v, want the other retries to wait for tokens", c)
		}
		stop()
	})
}
