package mulligan_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func TestStatus(t *testing.T) {
	const key = "email.send.1"
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, e *natstest.Env)
		want string
	}{
		{"a job that was never published is unknown", func(*testing.T, *natstest.Env) {}, "unknown"},
		{"a job that nobody serves is queued", func(t *testing.T, e *natstest.Env) { publish(t, e, "email.send", "1", "") }, "queued"},
		{"a job that was not pulled yet is queued", func(t *testing.T, e *natstest.Env) {
			serve(t, e)
			publish(t, e, "email.send", "1", "")
		}, "queued"},
		{"a job behind others in a worker's hands is queued", func(t *testing.T, e *natstest.Env) {
			serve(t, e)
			publish(t, e, "email.send", "0", "")
			pull(t, e, e.Topology.FreshQueue("mailer"))
			publish(t, e, "email.send", "1", "")
		}, "queued"},
		{"a job in a worker's hands is running", func(t *testing.T, e *natstest.Env) {
			serve(t, e)
			publish(t, e, "email.send", "1", "")
			pull(t, e, e.Topology.FreshQueue("mailer"))
		}, "running"},
		{"a job between two attempts is waiting", func(t *testing.T, e *natstest.Env) {
			serve(t, e)
			publish(t, e, "email.send", "1", "")
			pull(t, e, e.Topology.FreshQueue("mailer"))
			writeRecord(t, e, key, &mulligan.Record{State: mulligan.Live, Move: &mulligan.Move{Verb: mulligan.Nak, Due: time.Now().Add(time.Minute)}})
		}, "waiting"},
		{"a parked job is waiting", func(t *testing.T, e *natstest.Env) {
			writeRecord(t, e, key, &mulligan.Record{State: mulligan.Parked})
			schedule(t, e)
		}, "waiting"},
		{"a job with a record and no message is waiting", func(t *testing.T, e *natstest.Env) {
			writeRecord(t, e, key, &mulligan.Record{State: mulligan.Live})
		}, "waiting"},
		{"a retry that is due is queued", func(t *testing.T, e *natstest.Env) {
			serve(t, e)
			put(t, e, mulligan.Subject(e.Topology.DueRoot(), "email.send", "1"))
		}, "queued"},
		{"a retry in a worker's hands is running", func(t *testing.T, e *natstest.Env) {
			serve(t, e)
			put(t, e, mulligan.Subject(e.Topology.DueRoot(), "email.send", "1"))
			pull(t, e, e.Topology.DueQueue("mailer"))
		}, "running"},
		{"a deferred job that is due is queued", func(t *testing.T, e *natstest.Env) {
			serve(t, e)
			put(t, e, mulligan.Subject(e.Topology.DeferredRoot(), "email.send", "1"))
			put(t, e, mulligan.Subject(e.Topology.DueRoot(), "email.send", "0"))
			pull(t, e, e.Topology.DueQueue("mailer"))
		}, "queued"},
		{"a deferred job in a worker's hands is running", func(t *testing.T, e *natstest.Env) {
			serve(t, e)
			put(t, e, mulligan.Subject(e.Topology.DeferredRoot(), "email.send", "1"))
			pull(t, e, e.Topology.DeferredQueue("mailer"))
		}, "running"},
		{"a job handed to the schedulers is spent", func(t *testing.T, e *natstest.Env) {
			put(t, e, mulligan.Subject(e.Topology.SpentRoot(), "email.send", "1"))
		}, "spent"},
		{"a job whose record says spent is spent", func(t *testing.T, e *natstest.Env) {
			writeRecord(t, e, key, &mulligan.Record{State: mulligan.Spent})
		}, "spent"},
		{"a job whose record says dead is dead", func(t *testing.T, e *natstest.Env) {
			writeRecord(t, e, key, &mulligan.Record{State: mulligan.Dead})
		}, "dead"},
		{"a job whose record says done is done", func(t *testing.T, e *natstest.Env) {
			writeRecord(t, e, key, &mulligan.Record{State: mulligan.Done})
			publish(t, e, "email.send", "1", "")
		}, "done"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, p := publisher(t)
			tt.do(t, e)
			// A publisher that does not know the kind finds it among those declared.
			for _, p := range []*mulligan.Publisher{p, {Conn: e.Conn}} {
				got, err := p.Status(t.Context(), "email.send", "1")
				if err != nil || got.State != tt.want || got.Kind != "email.send" || got.ID != "1" {
					t.Errorf("got %+v, %v; want %s", got, err, tt.want)
				}
			}
		})
	}
}

func serve(t *testing.T, e *natstest.Env) {
	t.Helper()
	declare(t, e, normal(t, "email.send", mulligan.Keyed, "mailer"))
}

// pull hands one message to a worker that does nothing with it.
func pull(t *testing.T, e *natstest.Env, q mulligan.Queue) {
	t.Helper()
	if _, err := consumer(t, e, q).Next(jetstream.FetchMaxWait(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, e *natstest.Env, subject string) {
	t.Helper()
	if _, err := e.JS.Publish(t.Context(), subject, nil); err != nil {
		t.Fatal(err)
	}
}

func schedule(t *testing.T, e *natstest.Env) {
	t.Helper()
	m := &nats.Msg{Subject: mulligan.Subject(e.Topology.AtRoot(), "email.send", "1") + ".JOBS:1", Header: nats.Header{
		"Nats-Schedule":        {"@at " + time.Now().Add(time.Hour).UTC().Format(time.RFC3339)},
		"Nats-Schedule-Target": {mulligan.Subject(e.Topology.DueRoot(), "email.send", "1")},
	}}
	if _, err := e.JS.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

func TestStatusRefuses(t *testing.T) {
	_, p := publisher(t)
	if _, err := p.Status(t.Context(), "a..b", "1"); !errors.Is(err, mulligan.ErrBadKind) {
		t.Errorf("a bad kind: got %v, want ErrBadKind", err)
	}
	if _, err := p.Status(t.Context(), "a.b", ""); !errors.Is(err, mulligan.ErrBadID) {
		t.Errorf("no ID: got %v, want ErrBadID", err)
	}
	e := natstest.Server(t)
	if _, err := (&mulligan.Publisher{Conn: e.Conn}).Status(t.Context(), "a.b", "1"); !errors.Is(err, mulligan.ErrNoTopology) {
		t.Errorf("no topology: got %v, want ErrNoTopology", err)
	}
}
