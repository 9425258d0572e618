package consumer_test

import (
	"context"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/call"
)

// A server of a cluster that leads no more answers for a while from what it knew: of
// a once job, that it had not started.
func TestAStepBeginsThoughItsStartIsNotSeenAtFirst(t *testing.T) {
	bubble(t, once, func(t *testing.T, f *floor) {
		ledger, err := f.JS.KeyValue(t.Context(), f.Topology.LedgerBucket())
		if err != nil {
			t.Fatal(err)
		}
		key, reads := mulligan.RecordKey(once.Name, "a"), 0
		var now []byte
		put := func(value []byte) {
			if _, err := ledger.Put(t.Context(), key, value); err != nil {
				t.Error(err)
			}
		}
		ctx, end := context.WithCancel(call.With(t.Context(), func(point string) {
			switch point {
			case "step.begin.load before":
				if reads++; reads == 1 {
					entry, err := ledger.Get(t.Context(), key)
					if err != nil {
						t.Error(err)
						return
					}
					now = entry.Value()
					put((&mulligan.Record{State: mulligan.Live, Effect: mulligan.Once, Payload: mulligan.FingerprintOf(nil)}).Encode())
				}
			case "step.begin.load after":
				if reads == 1 {
					put(now)
				}
			}
		}))
		w := consumer.Worker{Conn: f.Conn}
		w.Handle(once, mulligan.HandlerFunc(func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			_, err := mulligan.Step(ctx, j, "charge", func(context.Context) (int, error) { return f.log.note(j.ID), nil })
			return nil, err
		}))
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		f.publish(t, mulligan.Job{ID: "a"})
		time.Sleep(time.Minute)
		st := f.state(t, "a")
		if reads != 2 || st.State != mulligan.StatusDone || st.Record.Attempts != 1 || len(f.log.of("a")) != 1 {
			t.Errorf("after %d reads %s: %+v; want two, and the job done at its first attempt", reads, st.State, st.Record)
		}
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// The same of a key: that it was dead, before it was reopened.
func TestAJobIsNotSpentForARecordThatIsNoMore(t *testing.T) {
	for _, old := range []mulligan.State{mulligan.Spent, mulligan.Dead} {
		t.Run(string(old), func(t *testing.T) {
			bubble(t, keyed, func(t *testing.T, f *floor) {
				ledger, err := f.JS.KeyValue(t.Context(), f.Topology.LedgerBucket())
				if err != nil {
					t.Fatal(err)
				}
				payload := []byte("x")
				write := func(s mulligan.State) {
					rec := mulligan.Record{State: s, Effect: mulligan.Keyed, Payload: mulligan.FingerprintOf(payload), Reason: mulligan.AttemptsExhausted}
					if s == mulligan.Live {
						rec.Reason, rec.Replay = "", "reopened"
					}
					if _, err := ledger.Put(t.Context(), mulligan.RecordKey(keyed.Name, "a"), rec.Encode()); err != nil {
						t.Error(err)
					}
				}
				reads := 0
				ctx, end := context.WithCancel(call.With(t.Context(), func(point string) {
					switch point {
					case "admit.load before":
						if reads++; reads == 1 {
							write(old)
						}
					case "admit.load after":
						if reads == 1 {
							write(mulligan.Live)
						}
					}
				}))
				w := consumer.Worker{Conn: f.Conn}
				w.Handle(keyed, mulligan.HandlerFunc(func(_ context.Context, j *mulligan.Job) ([]byte, error) {
					f.Ran(j.Kind, j.ID)
					return nil, nil
				}))
				ended := make(chan error, 1)
				go func() { ended <- w.Run(ctx) }()
				f.publish(t, mulligan.Job{ID: "a", Payload: payload})
				time.Sleep(time.Minute)
				st := f.state(t, "a")
				if reads != 2 || st.State != mulligan.StatusDone || st.Record.Attempts != 1 {
					t.Errorf("after %d reads %s: %+v; want two, and the job done at its first attempt", reads, st.State, st.Record)
				}
				end()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
