package consumer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/metrics"
)

// What a worker adds to a pure job that succeeds at once: all from the message as
// nats.go hands it over to its ack. Bare is the ack alone.
func BenchmarkAPureJob(b *testing.B) {
	e, w := benched(b)
	l := w.lanes[0]
	b.Run("bare", func(b *testing.B) {
		messages := messagesOf(b, e)
		b.ReportAllocs()
		for b.Loop() {
			if err := messages().Ack(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("mulligan", func(b *testing.B) {
		messages, alarm := messagesOf(b, e), &alarm{lane: l}
		b.ReportAllocs()
		for b.Loop() {
			d := l.fresh.open(messages(), time.Now())
			d.alarm = alarm
			w.hand.add(d)
			l.fresh.add()
			l.start(b.Context(), b.Context(), d)
		}
	})
}

// benched is a worker of one kind that has what it needs, and does not run.
func benched(b *testing.B) (*natstest.Env, *Worker) {
	b.Helper()
	e := natstest.Server(b)
	e.Provision(b, mulligan.Topology{})
	w := &Worker{Conn: e.Conn, Metrics: metrics.New(prometheus.NewRegistry())}
	w.Handle(mulligan.Kind{Name: "llm.complete", Effect: mulligan.Pure}, mulligan.HandlerFunc(func(context.Context, *mulligan.Job) ([]byte, error) { return nil, nil }))
	if err := w.prepare(b.Context()); err != nil {
		b.Fatal(err)
	}
	return e, w
}

// messagesOf returns what makes messages as the server delivers them.
func messagesOf(b *testing.B, e *natstest.Env) func() *nats.Msg {
	b.Helper()
	sub, err := e.Conn.SubscribeSync("bench.nowhere")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = sub.Unsubscribe() })
	header, data, n := nats.Header{"Nats-Msg-Id": {"job-1"}}, make([]byte, 256), 0
	subject := mulligan.Subject(e.Topology.JobsRoot(), "llm.complete", "job-1")
	return func() *nats.Msg {
		n++
		reply := fmt.Sprintf("$JS.ACK.%s.nobody.1.%d.%d.%d.0", e.Topology.JobsStream(), n, n, time.Now().UnixNano())
		return &nats.Msg{Subject: subject, Reply: reply, Header: header, Data: data, Sub: sub}
	}
}

// What it takes to decide on a failed attempt, but for what is asked of NATS: what
// its error means, what the policy makes of that, and what this worker's budgets
// grant, with the end of the call and of its retry's token.
func BenchmarkAFailedAttempt(b *testing.B) {
	_, w := benched(b)
	l, k, errs := w.lanes[0], w.kinds["llm.complete"], []error{errors.New("not now"), mulligan.After(time.Second, errors.New("429"))}
	d := &delivery{lane: l, from: l.fresh, facts: facts{effect: k.Effect, policy: &k.Policy}}
	call := ending{facts: d.facts, called: called{ran: 1}, chance: mulligan.Chance{U: .5, V: .5}}
	b.ReportAllocs()
	var rec mulligan.Record
	for i := 0; b.Loop(); i++ {
		now := time.Now()
		d.deadline = now.Add(time.Hour)
		call.err = errs[i%len(errs)]
		if err := l.enter(b.Context(), d); err != nil {
			b.Fatal(err)
		}
		asked := askOnce{w: w, k: k, d: d, throttled: mulligan.MeaningOf(call.err).Throttled}
		v := k.Policy.Judge(call.attempt(&rec, 1), call.err, call.chance)
		g, err := asked.grant(b.Context(), v, now)
		if v = v.Under(g); err != nil || v.Verb != nak && v.Verb != park {
			b.Fatal(v, err)
		}
		d.permit.End(now, budget.OutcomeOf(context.Canceled)) // tells nothing: the breaker is not what is measured
		asked.settle(b.Context(), verdict{Verb: spend})
	}
}

// What an HTTP target adds to a call of an endpoint that answers at once. Bare is an
// http.Client that sends the same body and its key.
func BenchmarkAnHTTPCall(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the client says if it broke
		w.WriteHeader(http.StatusNoContent)
	}))
	b.Cleanup(s.Close)
	job := &mulligan.Job{Kind: "llm.complete", ID: "job-1", Attempt: 1, AttemptsMax: 5, Payload: make([]byte, 256)}
	b.Run("bare", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, s.URL, bytes.NewReader(job.Payload))
			if err != nil {
				b.Fatal(err)
			}
			r.Header.Set("Idempotency-Key", job.ID)
			resp, err := s.Client().Do(r)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadAll(resp.Body); err != nil {
				b.Fatal(err)
			}
			_ = resp.Body.Close()
		}
	})
	b.Run("mulligan", func(b *testing.B) {
		target := &HTTPTarget{URL: s.URL}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := target.Handle(b.Context(), job); err != nil {
				b.Fatal(err)
			}
		}
	})
}
