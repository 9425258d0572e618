package mulligan_test

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func TestWhatIsWrongWithAConsumer(t *testing.T) {
	e := provisioned(t, mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed, Downstream: mulligan.DefaultDownstream})
	good := consumer(t, e, e.Topology.FreshQueue(mulligan.DefaultDownstream)).CachedInfo().Config
	for _, c := range []struct {
		change func(c *jetstream.ConsumerConfig)
		want   string
	}{
		{func(*jetstream.ConsumerConfig) {}, ""},
		{func(c *jetstream.ConsumerConfig) { c.Description, c.SampleFrequency, c.Replicas = "ours", "10", 3 }, ""},
		{func(c *jetstream.ConsumerConfig) { c.FilterSubjects = append(c.FilterSubjects, "mulligan.jobs.b.*") }, ""},
		{func(c *jetstream.ConsumerConfig) { c.FilterSubject, c.FilterSubjects = "", nil }, "does not deliver mulligan.jobs.email.send.*"},
		{func(c *jetstream.ConsumerConfig) { c.DeliverSubject = "x" }, "pushes jobs to x"},
		{func(c *jetstream.ConsumerConfig) { c.AckPolicy = jetstream.AckNonePolicy }, "explicit acks"},
		{func(c *jetstream.ConsumerConfig) { c.MaxWaiting = 5 }, "5 requests at once"},
		{func(c *jetstream.ConsumerConfig) { c.MaxWaiting = 5000 }, ""},
		{func(c *jetstream.ConsumerConfig) { c.ReplayPolicy = jetstream.ReplayOriginalPolicy }, "no faster than they were published"},
		{func(c *jetstream.ConsumerConfig) { c.BackOff = []time.Duration{time.Second} }, "BackOff"},
		{func(c *jetstream.ConsumerConfig) { c.AckWait = time.Minute }, "AckWait is 1m0s"},
		{func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 3 }, "after 3 deliveries"},
		{func(c *jetstream.ConsumerConfig) { c.MaxAckPending = 1000 }, "at 1000 jobs"},
		{func(c *jetstream.ConsumerConfig) { c.HeadersOnly = true }, "payloads"},
		{func(c *jetstream.ConsumerConfig) { c.MaxRequestBatch = 10 }, "more than 10 jobs"},
		{func(c *jetstream.ConsumerConfig) { c.MaxRequestBatch = mulligan.MaxPull }, ""},
		{func(c *jetstream.ConsumerConfig) { c.MaxRequestExpires = time.Millisecond }, "longer than 1ms"},
		{func(c *jetstream.ConsumerConfig) { c.MaxRequestMaxBytes = 1 }, "bytes of a request"},
		{func(c *jetstream.ConsumerConfig) { c.PriorityGroups = []string{"a"} }, "priority groups"},
		{func(c *jetstream.ConsumerConfig) { c.InactiveThreshold = time.Hour }, "deletes it"},
		{func(c *jetstream.ConsumerConfig) {
			c.MaxDeliver, c.Metadata = 3, map[string]string{"mulligan.topology": "99"}
		}, ""},
	} {
		cfg := good
		c.change(&cfg)
		got := mulligan.ConsumerFault(cfg, []string{"mulligan.jobs.email.send.*"})
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("got %q, want %q of %+v", got, c.want, cfg)
		}
	}
}

// again is what a worker or `mulligan provision` does.
func again(t *testing.T, e *natstest.Env) error {
	t.Helper()
	return e.Topology.EnsureConsumers(t.Context(), e.JS, []string{mulligan.DefaultDownstream})
}

func TestAConsumerThatIsPutRightStaysPaused(t *testing.T) {
	e := provisioned(t, mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed, Downstream: mulligan.DefaultDownstream})
	cfg := consumer(t, e, e.Topology.FreshQueue(mulligan.DefaultDownstream)).CachedInfo().Config
	cfg.MaxAckPending, cfg.Description = 1, "an operator's"
	if _, err := e.JS.PauseConsumer(t.Context(), e.Topology.JobsStream(), cfg.Durable, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.JS.UpdateConsumer(t.Context(), e.Topology.JobsStream(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := again(t, e); err != nil {
		t.Fatal(err)
	}
	info := consumer(t, e, e.Topology.FreshQueue(mulligan.DefaultDownstream)).CachedInfo()
	if !info.Paused || info.Config.Description != cfg.Description || info.Config.MaxAckPending != -1 {
		t.Errorf("paused is %v, the configuration %+v", info.Paused, info.Config)
	}
}

func TestAConsumerIsMadeAnewOnlyWhileNothingIsInHand(t *testing.T) {
	e := provisioned(t, mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed, Downstream: mulligan.DefaultDownstream})
	ctx, stream, name := t.Context(), e.Topology.JobsStream(), mulligan.DurableName(mulligan.DefaultDownstream)
	publish(t, e, "email.send", "a", "{}")
	if err := e.JS.DeleteConsumer(ctx, stream, name); err != nil {
		t.Fatal(err)
	}
	sub, err := e.Conn.SubscribeSync("stranger")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.JS.CreatePushConsumer(ctx, stream, jetstream.ConsumerConfig{Durable: name, DeliverSubject: "stranger", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "mulligan.jobs.email.send.*"}); err != nil {
		t.Fatal(err)
	}
	msg, err := sub.NextMsgWithContext(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := again(t, e); err == nil || !strings.Contains(err.Error(), "1 jobs are in hand") || !strings.Contains(err.Error(), "nats consumer rm MULLIGAN_JOBS "+name) {
		t.Errorf("got %v, want the consumer left alone and the command that removes it", err)
	}
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	publish(t, e, "email.send", "b", "{}")
	if err := msg.AckSync(); err != nil {
		t.Fatal(err)
	}
	if err := again(t, e); err != nil {
		t.Fatal(err)
	}
	if got := take(t, consumer(t, e, e.Topology.FreshQueue(mulligan.DefaultDownstream))); len(got) != 1 {
		t.Errorf("the consumer that was made anew delivers %q, want b alone", got)
	}
}

// ahead resets a consumer to behind all that its stream holds.
func ahead(t *testing.T, e *natstest.Env, q mulligan.Queue) {
	t.Helper()
	s, err := e.JS.Stream(t.Context(), q.Stream)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ResetConsumerToSequence(t.Context(), q.Durable, s.CachedInfo().State.LastSeq+1); err != nil {
		t.Fatal(err)
	}
}

func TestSpentJobsThatWerePassedOverAreHandedOutAgain(t *testing.T) {
	e := provisioned(t)
	q := e.Topology.SpentQueue()
	put(t, e, mulligan.Subject(q.Root, "email.send", "a"))
	ahead(t, e, q)
	for _, want := range []bool{true, false} {
		if mended, err := e.Topology.MendScheduler(t.Context(), e.JS); mended != want || err != nil {
			t.Fatalf("mended is %v, %v; want %v", mended, err, want)
		}
	}
	m, err := consumer(t, e, q).Next(jetstream.FetchMaxWait(5 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if want := mulligan.Subject(q.Root, "email.send", "a"); m.Subject() != want {
		t.Errorf("got %s, want %s", m.Subject(), want)
	}
}

// What was acknowledged lies in the stream for a moment more, below the place that
// its consumer has reached. It is not passed over.
func TestAJobThatIsJustBeingRemovedIsNotPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := natstest.InBubble(t)
		e.Provision(t, mulligan.Topology{})
		declare(t, e, mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed, Downstream: mulligan.DefaultDownstream})
		publish(t, e, "email.send", "a", "{}")
		ahead(t, e, e.Topology.FreshQueue(mulligan.DefaultDownstream))
		s, err := e.JS.Stream(t.Context(), e.Topology.JobsStream())
		if err != nil {
			t.Fatal(err)
		}
		var remover sync.WaitGroup
		remover.Go(func() {
			time.Sleep(mulligan.SettleWait / 2)
			if err := s.DeleteMsg(t.Context(), s.CachedInfo().State.LastSeq); err != nil {
				t.Error(err)
			}
		})
		mended, err := e.Topology.MendConsumers(t.Context(), e.JS, []string{mulligan.DefaultDownstream})
		remover.Wait()
		if c := e.Account(t); mended || err != nil || c.Held() != 0 {
			t.Errorf("mended is %v, %v, and there is %+v; want nothing to do", mended, err, c)
		}
	})
}

func TestOneQueueThatCannotBeMadeLeavesTheOthersNoWorse(t *testing.T) {
	e := provisioned(t, mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed, Downstream: mulligan.DefaultDownstream})
	ctx, due, fresh := t.Context(), e.Topology.DueQueue(mulligan.DefaultDownstream), e.Topology.FreshQueue(mulligan.DefaultDownstream)
	if err := e.JS.DeleteConsumer(ctx, due.Stream, due.Durable); err != nil {
		t.Fatal(err)
	}
	if _, err := e.JS.CreateConsumer(ctx, due.Stream, jetstream.ConsumerConfig{Durable: "debug", FilterSubject: due.Root + ".>", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatal(err)
	}
	publish(t, e, "email.send", "a", "{}")
	ahead(t, e, fresh)
	mended, err := e.Topology.MendConsumers(ctx, e.JS, []string{mulligan.DefaultDownstream})
	if !mended || err == nil || !strings.Contains(err.Error(), "nats consumer rm MULLIGAN_RETRIES debug") {
		t.Errorf("mended is %v, %v; want the other queues mended, and the stranger named", mended, err)
	}
	if got := take(t, consumer(t, e, e.Topology.DeferredQueue(mulligan.DefaultDownstream))); len(got) != 1 {
		t.Errorf("got %q, want the job that the third queue had passed over", got)
	}
}
