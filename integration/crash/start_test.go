package crash

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// startTales have a worker of a new version start where an old one has been, and
// an operator: it mends the streams and consumers, takes a kind over from another
// downstream, and adopts its queued jobs and a retry that was passed over.
func startTales() []tale {
	return []tale{{"a worker that starts behind another version", func(t *testing.T, e *natstest.Env, b *book) {
		// To adopt a job takes so long that the lock has to be held meanwhile.
		f := &fate{book: b, locks: true, slow: map[string]time.Duration{"adopt.publish before": 20 * time.Second}}
		f.deaf = func(point string) bool { return !early(point) }
		f.lives(t, 3, func(id string) (int, bool) { return startLate(t, e, f, id), false })
	}}}
}

// early are the points of a worker's start.
func early(point string) bool {
	what, _, _ := strings.Cut(point, ".")
	return strings.Contains("lock stream bucket consumer kind adopt", what)
}

const waiting = 2 // jobs to be adopted

func startLate(t *testing.T, e *natstest.Env, f *fate, id string) int {
	t.Helper()
	e.Topology = mulligan.Topology{Prefix: id}
	moved := mulligan.Kind{Name: "moved", Effect: mulligan.Keyed, Downstream: "old"}
	stays := mulligan.Kind{Name: "stays", Effect: mulligan.Keyed, Downstream: "new"}
	conn := e.Dial(t) // a publisher watches the kinds for as long as its connection lives
	defer conn.Close()
	pub := &mulligan.Publisher{Conn: conn, Topology: e.Topology, Kinds: []mulligan.Kind{moved, stays}}
	before(t, e, pub)
	moved.Downstream = "new"
	var mu sync.Mutex
	ran := map[string]int{}
	worker := &service{fate: f, run: func(ctx context.Context) error {
		w := &consumer.Worker{Conn: e.Conn, Topology: e.Topology, Concurrency: 2}
		for _, k := range []mulligan.Kind{moved, stays} {
			w.Handle(k, mulligan.HandlerFunc(func(_ context.Context, job *mulligan.Job) ([]byte, error) {
				mu.Lock()
				defer mu.Unlock()
				ran[job.ID]++
				return nil, nil
			}))
		}
		return w.Run(ctx)
	}}
	while(t, func() {
		for i := range waiting {
			if st := rest(t, e, pub, mulligan.Job{Kind: moved.Name, ID: fmt.Sprint(i)}); st.State != mulligan.StatusDone {
				t.Errorf("%s: job %d is %s; crashes at %v", id, i, st.State, f.ends())
			}
		}
	}, worker)
	mu.Lock()
	defer mu.Unlock()
	if len(ran) != waiting+1 {
		t.Errorf("%s: jobs that ran: %v; crashes at %v", id, ran, f.ends())
	}
	settled(t, e, f)
	for name := range e.JS.StreamNames(t.Context()).Name() {
		if err := e.JS.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	total := 0
	for _, n := range ran {
		total += n
	}
	return total
}

// before is how an old version leaves the streams: with jobs of a kind that lie
// before the place which the consumer has reached that will get them.
func before(t *testing.T, e *natstest.Env, pub *mulligan.Publisher) {
	t.Helper()
	ctx := t.Context()
	e.Provision(t, e.Topology)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := e.Topology.Declare(ctx, e.JS, pub.Kinds)
	must(err)
	must(e.Topology.EnsureConsumers(ctx, e.JS, []string{"old", "new"}))
	for i := range waiting {
		_, err = pub.Publish(ctx, mulligan.Job{Kind: pub.Kinds[0].Name, ID: fmt.Sprint(i)})
		must(err)
	}
	_, err = pub.Publish(ctx, mulligan.Job{Kind: pub.Kinds[1].Name, ID: "other"})
	must(err)
	c, err := e.JS.Consumer(ctx, e.Topology.JobsStream(), mulligan.DurableName("new"))
	must(err)
	msg, err := c.Next()
	must(err)
	must(msg.DoubleAck(ctx))

	// What somebody has changed by hand, or an older version had otherwise.
	must(e.JS.DeleteStream(ctx, e.Topology.EventsStream()))
	must(e.JS.DeleteKeyValue(ctx, e.Topology.LedgerBucket()))
	jobs, err := e.JS.Stream(ctx, e.Topology.JobsStream())
	must(err)
	cfg := jobs.CachedInfo().Config
	cfg.Description = "old"
	_, err = e.JS.UpdateStream(ctx, cfg)
	must(err)
	pushed := e.Topology.DeferredQueue("new")
	c, err = e.JS.Consumer(ctx, pushed.Stream, pushed.Durable)
	must(err)
	push := c.CachedInfo().Config
	push.DeliverSubject, push.MaxWaiting = e.Conn.NewInbox(), 0 // nobody is there: nothing is in hand
	must(e.JS.DeleteConsumer(ctx, pushed.Stream, pushed.Durable))
	_, err = e.JS.CreatePushConsumer(ctx, pushed.Stream, push)
	must(err)
	passOver(t, e, pub.Kinds[1].Name)
	s, err := e.JS.Consumer(ctx, e.Topology.RetriesStream(), mulligan.SchedulerConsumer)
	must(err)
	had := s.CachedInfo().Config
	had.AckWait = time.Minute
	_, err = e.JS.UpdateConsumer(ctx, e.Topology.RetriesStream(), had)
	must(err)
}

// passOver has a retry that is due lie before the place that its consumer was put
// at by hand.
func passOver(t *testing.T, e *natstest.Env, kind string) {
	t.Helper()
	ctx, due := t.Context(), e.Topology.DueQueue("new")
	job, err := mulligan.OpenJob(kind, "passed", &nats.Msg{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ack, err := e.JS.PublishMsg(ctx, job.Moved(mulligan.Subject(due.Root, kind, "passed")))
	if err != nil {
		t.Fatal(err)
	}
	retries, err := e.JS.Stream(ctx, due.Stream)
	if err == nil {
		_, err = retries.ResetConsumerToSequence(ctx, due.Durable, ack.Sequence+1)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// settled checks that nothing is left to be done by the next one that starts.
func settled(t *testing.T, e *natstest.Env, f *fate) {
	t.Helper()
	again := 0
	ctx := hooked(t.Context(), func(point string) {
		if early(point) && !strings.HasPrefix(point, "lock.") {
			again++
		}
	})
	err := e.Topology.Ensure(ctx, e.JS)
	if err == nil {
		err = e.Topology.EnsureConsumers(ctx, e.JS, []string{"new", "old"})
	}
	if err != nil || again != 0 {
		t.Errorf("%s: %d steps are left, %v; crashes at %v", e.Topology.Prefix, again, err, f.ends())
	}
}
