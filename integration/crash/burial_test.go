package crash

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// burialTales are of a record that is not seen at first as it was stored before the
// spent message, as by a server of a cluster that leads no more; and is seen so
// before it is marked.
func burialTales() []tale {
	return []tale{{"a spent job whose record is not seen at first", func(t *testing.T, e *natstest.Env, b *book) {
		e.Provision(t, mulligan.Topology{})
		f := &fate{book: b, deaf: starts, slow: map[string]time.Duration{"bury.mark.store before": 2 * time.Second}}
		while(t, func() {
			f.lives(t, 2, func(id string) (int, bool) {
				unseen(t, e, id)
				return 0, false
			})
		}, &service{fate: f, run: func(ctx context.Context) error { return (&scheduler.Scheduler{Conn: e.Conn}).Run(ctx) }})
	}}}
}

func unseen(t *testing.T, e *natstest.Env, id string) {
	t.Helper()
	const kind = "email.send"
	job := mulligan.Job{Kind: kind, ID: id, Payload: []byte("payload of " + id)}
	env, err := mulligan.OpenJob(kind, mulligan.Token(id), &nats.Msg{Data: job.Payload}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	move := mulligan.Move{Verb: mulligan.Spend, Reason: mulligan.AttemptsExhausted}
	if _, err := e.JS.PublishMsg(t.Context(), env.SpentMessage(mulligan.Subject(e.Topology.SpentRoot(), kind, env.Token), move)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	ledger, err := e.JS.KeyValue(t.Context(), e.Topology.LedgerBucket())
	if err != nil {
		t.Fatal(err)
	}
	spent := mulligan.Record{State: mulligan.Spent, Effect: mulligan.Keyed, Payload: env.Fingerprint(), Reason: move.Reason, Attempts: 4}
	if _, err := ledger.Put(t.Context(), env.RecordKey(), spent.Encode()); err != nil {
		t.Fatal(err)
	}
	st := rest(t, e, &mulligan.Publisher{Conn: e.Conn}, job)
	if n := letters(t, e); n != 1 || st.State != mulligan.StatusDead || st.Record.Attempts != 4 {
		t.Errorf("job %s is %s with %d letters; want one of a dead job", id, st.State, n)
	}
	l, err := (&scheduler.Scheduler{Conn: e.Conn}).Letter(t.Context(), kind, id)
	if err != nil {
		t.Fatal(err)
	}
	dead, err := e.JS.Stream(t.Context(), e.Topology.DeadStream())
	if err == nil {
		err = dead.DeleteMsg(t.Context(), l.Seq)
	}
	if err != nil {
		t.Error(err)
	}
}
