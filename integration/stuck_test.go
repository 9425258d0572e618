package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/doctor"
)

const toSay = 30 * time.Second // within which jobs that wait in vain go on, or it is said why

// An operator meddles with the consumer of a fleet at work.
func TestJobsGoOnWhateverAnOperatorDoesToTheirConsumer(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	f := newFleet(t, p, 2)
	ctx, jobs, durable := t.Context(), f.Topology.JobsStream(), mulligan.DurableName(fleetDownstream)
	round := 0
	publish := func() (done func() bool) {
		round++
		id := fmt.Sprint(fine, "-", round)
		f.publish(t, []mulligan.Job{{Kind: fleetKind, ID: id, Payload: []byte(payload(id))}})
		return func() bool { return len(p.byJob()[fleetKind+"/"+id]) > 0 }
	}
	logged := func(text string) bool { return f.workers[0].log.has(text) || f.workers[1].log.has(text) }

	c, err := f.JS.Consumer(ctx, jobs, durable)
	if err != nil {
		t.Fatal(err)
	}
	cfg := c.CachedInfo().Config
	cfg.FilterSubject, cfg.FilterSubjects = "mulligan.jobs.other.*", nil
	if _, err := f.JS.UpdateConsumer(ctx, jobs, cfg); err != nil {
		t.Fatal(err)
	}
	eventually(t, toSay, "a job runs though its consumer had another filter", publish())
	eventually(t, toSay, "the log says what was wrong, and that it is over", func() bool {
		return logged("it does not deliver mulligan.jobs.email.send.*") && logged("the consumer was put right") && logged("jobs no longer wait in vain")
	})

	if err := f.JS.DeleteConsumer(ctx, jobs, durable); err != nil {
		t.Fatal(err)
	}
	eventually(t, toSay, "a job runs though its consumer was deleted", publish())

	if _, err := f.JS.PauseConsumer(ctx, jobs, durable, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	done := publish()
	eventually(t, toSay, "both workers show that the consumer is paused", func() bool {
		return f.counts(t)["mulligan_stuck"].sum(`downstream="mailer"`, `why="paused"`) == 2
	})
	if !logged("nats consumer resume MULLIGAN_JOBS mailer") {
		t.Error("the log does not say how it goes on")
	}
	found := string(answer(t, "doctor", "--server", f.URL))
	for _, want := range []string{"paused for another", "stuck, seen by worker", "nats consumer resume MULLIGAN_JOBS mailer"} {
		if !strings.Contains(found, want) {
			t.Errorf("the doctor does not say %q:\n%s", want, found)
		}
	}
	if done() {
		t.Error("the job ran though its consumer is paused")
	}
	if _, err := f.JS.ResumeConsumer(ctx, jobs, durable); err != nil {
		t.Fatal(err)
	}
	eventually(t, toSay, "the job runs", done)
	eventually(t, toSay, "the workers no longer show it", func() bool { return f.counts(t)["mulligan_stuck"].sum() == 0 })
	streams{f.JS}.settled(t, time.Minute)
	f.checkDone(t)
}

// A worker with the rights of its role mends nothing. It says what an operator
// does, and goes on when that is done.
func TestAWorkerWithNarrowRightsSaysWhatAnOperatorDoes(t *testing.T) {
	g := startGuarded(t)
	kinds := []mulligan.Kind{normal(t, "email.send", mulligan.Keyed)}
	operator := g.as(t, "operator")
	provisionAs(t, operator, kinds)
	js, err := jetstream.New(operator)
	if err != nil {
		t.Fatal(err)
	}
	ran, log := make(chan string, 16), new(transcript)
	w := consumer.Worker{Conn: g.as(t, "worker"), Log: zerolog.New(log)}
	w.Handle(kinds[0], mulligan.HandlerFunc(func(_ context.Context, j *mulligan.Job) ([]byte, error) {
		ran <- j.ID
		return nil, nil
	}))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	eventually(t, toSay, "the worker runs", func() bool { return log.has("worker runs") })

	jobs, durable := mulligan.Topology{}.JobsStream(), mulligan.DurableName(mulligan.DefaultDownstream)
	if err := js.DeleteConsumer(ctx, jobs, durable); err != nil {
		t.Fatal(err)
	}
	pub := mulligan.Publisher{Conn: g.as(t, "publisher"), Kinds: kinds}
	if _, err := pub.Publish(ctx, mulligan.Job{Kind: kinds[0].Name, ID: "a"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, toSay, "the log says what is to be done", func() bool {
		return log.has(`"why":"missing"`) && log.has("mulligan provision") && log.has("no right to change consumers")
	})
	all, err := doctor.Doctor{Conn: operator}.Check(ctx)
	if err != nil || !strings.Contains(fmt.Sprint(all), "stuck, seen by worker") {
		t.Errorf("the doctor finds %+v, %v", all, err)
	}
	provisionAs(t, operator, kinds)
	select {
	case <-ran:
	case <-time.After(toSay):
		t.Errorf("the job does not run; the log ends with\n%s", log.tail(10))
	}
	eventually(t, toSay, "the log says that it is over", func() bool { return log.has("jobs no longer wait in vain") })

	// Jobs that were passed over it finds, but does not rescue.
	g.passOver(t, js, kinds[0])
	eventually(t, toSay, "the log says that jobs were passed over", func() bool { return log.has(`"why":"passed_over"`) })
	provisionAs(t, operator, kinds)
	select {
	case id := <-ran:
		if id != "passed" {
			t.Errorf("%s ran", id)
		}
	case <-time.After(toSay):
		t.Errorf("the job does not run; the log ends with\n%s", log.tail(10))
	}
}

func TestAWorkerThatMayNotAskForJobsSaysSo(t *testing.T) {
	const right = "$JS.API.CONSUMER.MSG.NEXT.MULLIGAN_JOBS.*"
	g := startGuarded(t, func(o *server.Options) {
		for _, u := range o.Users {
			u.Permissions.Publish.Allow = slices.DeleteFunc(u.Permissions.Publish.Allow, func(s string) bool { return s == right })
		}
	})
	kinds := []mulligan.Kind{normal(t, "email.send", mulligan.Keyed)}
	provisionAs(t, g.as(t, "operator"), kinds)
	log := new(transcript)
	w := consumer.Worker{Conn: g.as(t, "worker"), Log: zerolog.New(log)}
	w.Handle(kinds[0], mulligan.HandlerFunc(func(context.Context, *mulligan.Job) ([]byte, error) { return nil, nil }))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	pub := mulligan.Publisher{Conn: g.as(t, "publisher"), Kinds: kinds}
	if _, err := pub.Publish(ctx, mulligan.Job{Kind: kinds[0].Name, ID: "a"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, toSay, "the log says that jobs wait", func() bool { return log.has("1 jobs wait, but no request brings any") })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// passOver resets a paused consumer to behind a job that is published meanwhile.
func (g *guarded) passOver(t *testing.T, js jetstream.JetStream, kind mulligan.Kind) {
	t.Helper()
	ctx, jobs, durable := t.Context(), mulligan.Topology{}.JobsStream(), mulligan.DurableName(mulligan.DefaultDownstream)
	if _, err := js.PauseConsumer(ctx, jobs, durable, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	pub := mulligan.Publisher{Conn: g.as(t, "publisher"), Kinds: []mulligan.Kind{kind}}
	if _, err := pub.Publish(ctx, mulligan.Job{Kind: kind.Name, ID: "passed"}); err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(ctx, jobs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ResetConsumerToSequence(ctx, durable, s.CachedInfo().State.LastSeq+1); err != nil {
		t.Fatal(err)
	}
	if _, err := js.ResumeConsumer(ctx, jobs, durable); err != nil {
		t.Fatal(err)
	}
}
