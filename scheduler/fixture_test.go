package scheduler_test

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/dedupe"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

const kind = "email.send"

// floor is a server with its streams, a ledger, and a scheduler that does not
// run by itself.
type floor struct {
	*natstest.Env
	*scheduler.Scheduler
	ledger *dedupe.Ledger
	dead   jetstream.Stream
}

func open(t *testing.T, e *natstest.Env, topology mulligan.Topology) *floor {
	t.Helper()
	e.Provision(t, topology)
	f := &floor{Env: e, Scheduler: &scheduler.Scheduler{Conn: e.Conn, Topology: topology}}
	var err error
	if f.ledger, err = dedupe.Open(t.Context(), e.JS, topology); err != nil {
		t.Fatal(err)
	}
	if f.dead, err = e.JS.Stream(t.Context(), topology.DeadStream()); err != nil {
		t.Fatal(err)
	}
	return f
}

func bubble(t *testing.T, topology mulligan.Topology, do func(t *testing.T, f *floor)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { do(t, open(t, natstest.InBubble(t), topology)) })
}

// run lets a scheduler work for a time.
func run(t *testing.T, ctx context.Context, s *scheduler.Scheduler, d time.Duration) {
	t.Helper()
	ctx, end := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(d)
	end()
	done.Wait()
}

// job is a job as its publisher might have stored it.
func job(id string, payload []byte) mulligan.Envelope {
	h := nats.Header{"Mulligan-User": {"ada"}, "Mulligan-Task": {"t-1"}, "Content-Type": {"text/plain"}, "traceparent": {"00-1-2-01"}, "X-Team": {"a", "b"}}
	e, err := mulligan.OpenJob(kind, mulligan.Token(id), &nats.Msg{Header: h, Data: payload}, time.Now().UTC())
	if err != nil {
		panic(err)
	}
	return e
}

// spend hands a job to the schedulers, as a worker does.
func (f *floor) spend(t *testing.T, e mulligan.Envelope, m mulligan.Move) {
	t.Helper()
	subject := mulligan.Subject(f.Env.Topology.SpentRoot(), e.Kind, mulligan.SafeToken(e.Token))
	f.put(t, e.SpentMessage(subject, m))
	f.Accept(e.Kind, e.ID)
}

// letter writes a letter, as a scheduler does, and returns it as stored.
func (f *floor) letter(t *testing.T, l mulligan.Letter) mulligan.Letter {
	t.Helper()
	if l.Reason == "" {
		l.Reason = mulligan.AttemptsExhausted
	}
	subject := mulligan.Subject(f.Env.Topology.DeadRoot(), l.Kind, mulligan.SafeToken(l.Token))
	if l.Reason == mulligan.KeyConflict {
		subject += ".~" + string(l.Fingerprint())
	}
	l.Seq = f.put(t, l.Message(subject))
	return l
}

func (f *floor) put(t *testing.T, m *nats.Msg) uint64 {
	t.Helper()
	ack, err := f.JS.PublishMsg(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

// record writes the record of a job.
func (f *floor) record(t *testing.T, e mulligan.Envelope, r mulligan.Record) {
	t.Helper()
	if r.Payload == "" {
		r.Payload = e.Fingerprint()
	}
	err := f.ledger.Update(t.Context(), "test", e.RecordKey(), func(old *mulligan.Record) bool { *old = r; return true })
	if err != nil {
		t.Error(err)
	}
}

// found returns the record of a job; the zero Record if there is none.
func (f *floor) found(t *testing.T, e mulligan.Envelope) mulligan.Record {
	t.Helper()
	r, err := f.ledger.Load(t.Context(), e.RecordKey())
	if err != nil {
		t.Fatal(err)
	}
	if r == nil {
		return mulligan.Record{}
	}
	return *r
}

func (f *floor) mustLetter(t *testing.T, id string) mulligan.Letter {
	t.Helper()
	l, err := f.Letter(t.Context(), kind, id)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (f *floor) noLetter(t *testing.T, id string) {
	t.Helper()
	if l, err := f.Letter(t.Context(), kind, id); !errors.Is(err, mulligan.ErrNotFound) {
		t.Errorf("job %q has a letter: %+v, %v", id, l, err)
	}
}

// asPublished checks that what came of a job is it, payload and headers.
func asPublished(t *testing.T, got, want mulligan.Envelope) {
	t.Helper()
	a, b := got.Job, want.Job
	a.Deadline, b.Deadline = time.Time{}, time.Time{} // a replay moves it
	if got.Token != want.Token || !reflect.DeepEqual(a, b) {
		if len(want.Payload) > 1000 {
			a.Payload, b.Payload = a.Payload[:min(len(a.Payload), 10)], b.Payload[:10]
		}
		t.Errorf("got %s %+v, want %s %+v", got.Token, a, want.Token, b)
	}
}

func history(n int) []mulligan.Attempt {
	h := make([]mulligan.Attempt, n)
	for i := range h {
		h[i] = mulligan.Attempt{Number: i + 1, Run: "r", At: time.Now().UTC(), Took: time.Second, ErrorType: "http_503", Error: "busy", Verb: mulligan.Park, Delay: time.Second}
	}
	return h
}
