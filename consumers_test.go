package mulligan_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// provisioned is a server with the topology and the consumers of kinds.
func provisioned(t *testing.T, kinds ...mulligan.Kind) *natstest.Env {
	t.Helper()
	e := natstest.Server(t)
	e.Provision(t, mulligan.Topology{})
	declare(t, e, kinds...)
	return e
}

// declare does what a worker with these kinds does when it starts.
func declare(t *testing.T, e *natstest.Env, kinds ...mulligan.Kind) {
	t.Helper()
	if err := declareOn(t, e.JS, kinds...); err != nil {
		t.Fatal(err)
	}
}

func declareOn(t *testing.T, js jetstream.JetStream, kinds ...mulligan.Kind) error {
	top := mulligan.Topology{}
	if _, err := top.Declare(t.Context(), js, kinds); err != nil {
		return err
	}
	var downstreams []string
	for _, k := range kinds {
		if !slices.Contains(downstreams, k.Downstream) {
			downstreams = append(downstreams, k.Downstream)
		}
	}
	return top.EnsureConsumers(t.Context(), js, downstreams)
}

// publish stores a job as any NATS client may.
func publish(t *testing.T, e *natstest.Env, kind, id, payload string) {
	t.Helper()
	m := &nats.Msg{Subject: mulligan.Subject(e.Topology.JobsRoot(), kind, mulligan.Token(id)), Data: []byte(payload), Header: nats.Header{"X-Team": {"a"}}}
	if _, err := e.JS.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

func consumer(t *testing.T, e *natstest.Env, q mulligan.Queue) jetstream.Consumer {
	t.Helper()
	c, err := e.JS.Consumer(t.Context(), q.Stream, q.Durable)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// take pulls and acknowledges all there is, and returns kind/token=payload.
func take(t *testing.T, c jetstream.Consumer) []string {
	t.Helper()
	// A consumer hears of a message a moment after the stream has it, so do not
	// ask for what is there at once.
	batch, err := c.Fetch(100, jetstream.FetchMaxWait(300*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for m := range batch.Messages() {
		for _, q := range (mulligan.Topology{}).Queues("") {
			if strings.HasPrefix(m.Subject(), q.Root+".") {
				kind, token := mulligan.SplitSubject(q.Root, m.Subject())
				got = append(got, kind+"/"+token+"="+string(m.Data()))
			}
		}
		if err := m.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Error(); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestAFilterAddedToABusyConsumerMissesOlderJobs(t *testing.T) {
	// The trap that EnsureConsumers avoids. Should the server mend it, the next
	// test says whether adopting is still needed.
	e := natstest.Server(t)
	e.Provision(t, mulligan.Topology{})
	cfg := jetstream.ConsumerConfig{Durable: "bare", FilterSubjects: []string{"mulligan.jobs.a.*"}, AckPolicy: jetstream.AckExplicitPolicy}
	c, err := e.JS.CreateConsumer(t.Context(), e.Topology.JobsStream(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, e, "b", "old", "")
	publish(t, e, "a", "1", "")
	if got := take(t, c); !slices.Equal(got, []string{"a/1="}) {
		t.Fatalf("got %v, want the job of its kind", got)
	}
	cfg.FilterSubjects = append(cfg.FilterSubjects, "mulligan.jobs.b.*")
	if c, err = e.JS.UpdateConsumer(t.Context(), e.Topology.JobsStream(), cfg); err != nil {
		t.Fatal(err)
	}
	publish(t, e, "b", "new", "")
	if got := take(t, c); !slices.Equal(got, []string{"b/new="}) {
		t.Errorf("got %v; the trap is gone if the old job is among them", got)
	}
}

func TestAKindAddedToABusyDownstreamGetsItsOlderJobs(t *testing.T) {
	a, b := normal(t, "a.x", mulligan.Pure, "llm"), normal(t, "b.x", mulligan.Pure, "llm")
	e := provisioned(t, a)
	top := e.Topology
	jobs, adopted, retries := consumer(t, e, top.FreshQueue("llm")), consumer(t, e, top.DeferredQueue("llm")), consumer(t, e, top.DueQueue("llm"))
	publish(t, e, "b.x", "old", "one")
	publish(t, e, "b.x", "old 2", "two")
	publish(t, e, "a.x", "1", "")
	if got := take(t, jobs); !slices.Equal(got, []string{"a.x/1="}) {
		t.Fatalf("got %v, want the job of its kind", got)
	}
	due := mulligan.Subject(top.DueRoot(), "b.x", "parked")
	if _, err := e.JS.Publish(t.Context(), due, []byte("three")); err != nil {
		t.Fatal(err)
	}
	put(t, e, mulligan.Subject(top.DueRoot(), "a.x", "2"))
	if got := take(t, retries); !slices.Equal(got, []string{"a.x/2="}) {
		t.Fatalf("got %v, want the retry of its kind", got)
	}
	if _, err := e.JS.Publish(t.Context(), mulligan.Subject(top.DeferredRoot(), "b.x", "put-off"), []byte("four")); err != nil {
		t.Fatal(err)
	}
	put(t, e, mulligan.Subject(top.DeferredRoot(), "a.x", "3"))
	if got := take(t, adopted); !slices.Equal(got, []string{"a.x/3="}) {
		t.Fatalf("got %v, want the deferred job of its kind", got)
	}
	for range 2 { // the second time there is nothing left to do
		declare(t, e, b)
	}
	publish(t, e, "b.x", "new", "five")
	if got := take(t, jobs); !slices.Equal(got, []string{"b.x/new=five"}) {
		t.Errorf("fresh jobs: got %v, want the new one", got)
	}
	if got := take(t, retries); !slices.Equal(got, []string{"b.x/parked=three"}) {
		t.Errorf("adopted retries: got %v, want the one that is due", got)
	}
	got := take(t, adopted)
	slices.Sort(got)
	if want := []string{"b.x/" + mulligan.Token("old 2") + "=two", "b.x/old=one", "b.x/put-off=four"}; !slices.Equal(got, want) {
		t.Errorf("adopted jobs: got %v, want %v", got, want)
	}
	if c := e.Account(t); c.Held() != 0 {
		t.Errorf("left over: %+v", c)
	}
	for _, c := range []jetstream.Consumer{jobs, adopted, retries} {
		before := c.CachedInfo()
		after := consumer(t, e, mulligan.Queue{Stream: before.Stream, Durable: before.Name}).CachedInfo()
		if !after.Created.Equal(before.Created) {
			t.Errorf("the consumer %s on %s was made again", before.Name, before.Stream)
		}
		if left := after.Config.Metadata["mulligan.adopt"]; left != "" {
			t.Errorf("the consumer %s on %s still has to adopt %q", before.Name, before.Stream, left)
		}
	}
}

// A cluster takes for acknowledged, when another server leads, what lies before the
// place that a consumer has reached and matches its filters.
func TestBeforeAConsumerGetsAKindItsOlderJobsAreAdoptedAndNoneIsPassedOver(t *testing.T) {
	a, b := normal(t, "a.x", mulligan.Pure, "llm"), normal(t, "b.x", mulligan.Pure, "llm")
	e := provisioned(t, a)
	jobs, adopted := e.Topology.FreshQueue("llm"), e.Topology.DeferredQueue("llm")
	publish(t, e, "b.x", "old", "one")
	publish(t, e, "a.x", "1", "")
	if got := take(t, consumer(t, e, jobs)); !slices.Equal(got, []string{"a.x/1="}) {
		t.Fatalf("got %v, want the job of its kind", got)
	}
	begun := 0
	ctx := call.With(t.Context(), func(point string) {
		if point != "adopt.begin before" || !consumer(t, e, jobs).CachedInfo().Paused {
			return // or that of another queue
		}
		begun++
		if n := e.Account(t).Jobs; n != 0 {
			t.Errorf("%d older jobs are left when the filter is added", n)
		}
		publish(t, e, "b.x", "new", "two")
		publish(t, e, "a.x", "2", "")
		if got := take(t, consumer(t, e, jobs)); len(got) != 0 {
			t.Errorf("the consumer goes on meanwhile, and delivers %v", got)
		}
	})
	if _, err := e.Topology.Declare(ctx, e.JS, []mulligan.Kind{b}); err != nil {
		t.Fatal(err)
	}
	if err := e.Topology.EnsureConsumers(ctx, e.JS, []string{"llm"}); err != nil || begun == 0 {
		t.Fatalf("%d filters were added, %v", begun, err)
	}
	for _, tt := range []struct {
		from mulligan.Queue
		want []string
	}{{adopted, []string{"b.x/old=one"}}, {jobs, []string{"b.x/new=two", "a.x/2="}}} {
		if got := take(t, consumer(t, e, tt.from)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.from.Durable, got, tt.want)
		}
	}
}

func TestAnAdoptedJobIsOpenedAsItWasPublished(t *testing.T) {
	a, b := normal(t, "a", mulligan.Pure, "d"), normal(t, "b", mulligan.Pure, "d")
	e := provisioned(t, a)
	sent := &nats.Msg{Subject: "mulligan.jobs.b.1", Data: []byte("p"), Header: nats.Header{"mulligan-user": {"u"}, "X-Team": {"a"}, "Nats-Msg-Id": {"b/1"}}}
	if _, err := e.JS.PublishMsg(t.Context(), sent); err != nil {
		t.Fatal(err)
	}
	publish(t, e, "a", "1", "")
	take(t, consumer(t, e, e.Topology.FreshQueue("d")))
	declare(t, e, b)
	m, err := consumer(t, e, e.Topology.DeferredQueue("d")).Next(jetstream.FetchMaxWait(5 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	got, err := mulligan.OpenMoved("b", "1", &nats.Msg{Header: m.Headers(), Data: m.Data()})
	if err != nil || got.User != "u" || string(got.Payload) != "p" || !reflect.DeepEqual(got.Header, nats.Header{"X-Team": {"a"}}) {
		t.Errorf("got %+v, %v; want it as published", got, err)
	}
	if age := time.Since(got.Published); age < 0 || age > time.Minute || got.Deadline.Sub(got.Published) != mulligan.DefaultDeadline {
		t.Errorf("published %v ago with deadline %v", age, got.Deadline)
	}
}

func TestAnAdoptionThatACrashEndedIsFinished(t *testing.T) {
	a, b := normal(t, "a", mulligan.Pure, "d"), normal(t, "b", mulligan.Pure, "d")
	e := provisioned(t, a)
	jobs := consumer(t, e, e.Topology.FreshQueue("d"))
	publish(t, e, "b", "old", "")
	publish(t, e, "a", "1", "")
	take(t, jobs)
	// As it is when a process dies between giving the filter and adopting.
	cfg := jobs.CachedInfo().Config
	cfg.FilterSubject, cfg.FilterSubjects = "", []string{"mulligan.jobs.a.*", "mulligan.jobs.b.*"}
	cfg.Metadata["mulligan.adopt"] = "mulligan.jobs.b.*"
	if _, err := e.JS.UpdateConsumer(t.Context(), e.Topology.JobsStream(), cfg); err != nil {
		t.Fatal(err)
	}
	declare(t, e, b)
	if got := take(t, consumer(t, e, e.Topology.DeferredQueue("d"))); !slices.Equal(got, []string{"b/old="}) {
		t.Errorf("adopted: got %v, want the job that was left behind", got)
	}
}

func TestAKindMovesToAnotherDownstream(t *testing.T) {
	a, b, c := normal(t, "a", mulligan.Pure, "one"), normal(t, "b", mulligan.Pure, "one"), normal(t, "c", mulligan.Pure, "two")
	e := provisioned(t, a, b, c)
	top := e.Topology
	one, two := consumer(t, e, top.FreshQueue("one")), consumer(t, e, top.FreshQueue("two"))
	publish(t, e, "b", "old", "")
	publish(t, e, "c", "1", "")
	if got := take(t, two); !slices.Equal(got, []string{"c/1="}) {
		t.Fatalf("got %v, want the job of its kind", got)
	}
	b.Downstream = "two"
	declare(t, e, b)
	publish(t, e, "b", "new", "")
	publish(t, e, "a", "1", "")
	if got := take(t, one); !slices.Equal(got, []string{"a/1="}) {
		t.Errorf("the old downstream: got %v, want the kind that it keeps", got)
	}
	if got := take(t, two); !slices.Equal(got, []string{"b/new="}) {
		t.Errorf("the new downstream: got %v, want the new job", got)
	}
	if got := take(t, consumer(t, e, top.DeferredQueue("two"))); !slices.Equal(got, []string{"b/old="}) {
		t.Errorf("what came back to the new downstream: got %v, want the adopted job", got)
	}
	a.Downstream = "two"
	declare(t, e, a) // the old downstream has no kind left
	publish(t, e, "a", "2", "")
	if got := take(t, one); len(got) != 0 {
		t.Errorf("a downstream without kinds: got %v", got)
	}
	if got := take(t, two); !slices.Equal(got, []string{"a/2="}) {
		t.Errorf("the new downstream: got %v, want the job of the moved kind", got)
	}
	for _, c := range []jetstream.Consumer{one, two} {
		info := c.CachedInfo()
		again, err := e.JS.Consumer(t.Context(), info.Stream, info.Name)
		if err != nil || !again.CachedInfo().Created.Equal(info.Created) {
			t.Errorf("consumer %s was made again: %v", info.Name, err)
		}
	}
}

func TestKindsFromSeveralProcessesAtOnceAreAllServed(t *testing.T) {
	e := natstest.Server(t)
	e.Provision(t, mulligan.Topology{})
	var wg sync.WaitGroup
	errs := make([]error, 4)
	var filters []string
	for i := range errs {
		js, err := jetstream.New(e.Dial(t))
		if err != nil {
			t.Fatal(err)
		}
		kinds := []mulligan.Kind{normal(t, fmt.Sprintf("k%d.x", i), mulligan.Pure, "d"), normal(t, fmt.Sprintf("k%d.y", i), mulligan.Keyed, "d")}
		for _, k := range kinds {
			filters = append(filters, "mulligan.jobs."+k.Name+".*")
			publish(t, e, k.Name, "early", "")
		}
		wg.Go(func() { errs[i] = declareOn(t, js, kinds...) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	c := consumer(t, e, e.Topology.FreshQueue("d"))
	got := slices.Sorted(slices.Values(c.CachedInfo().Config.FilterSubjects))
	if slices.Sort(filters); !slices.Equal(got, filters) {
		t.Errorf("got filters %v, want %v", got, filters)
	}
	served := append(take(t, c), take(t, consumer(t, e, e.Topology.DeferredQueue("d")))...)
	if len(served) != len(filters) {
		t.Errorf("served %v, want one job of each kind", served)
	}
}

func TestConsumersNeedTheTopology(t *testing.T) {
	e := natstest.Server(t)
	if err := (mulligan.Topology{}).EnsureConsumers(t.Context(), e.JS, []string{"d"}); !errors.Is(err, mulligan.ErrNoTopology) {
		t.Errorf("got %v, want ErrNoTopology", err)
	}
}

func TestConsumersAreUpdatedInPlace(t *testing.T) {
	a := normal(t, "a", mulligan.Pure, "d")
	e := provisioned(t, a)
	before := consumer(t, e, e.Topology.FreshQueue("d")).CachedInfo()
	cfg := before.Config
	cfg.AckWait, cfg.MaxAckPending = time.Hour, 5
	if _, err := e.JS.UpdateConsumer(t.Context(), e.Topology.JobsStream(), cfg); err != nil {
		t.Fatal(err)
	}
	declare(t, e, a)
	after := consumer(t, e, e.Topology.FreshQueue("d")).CachedInfo()
	if after.Config.AckWait != mulligan.AckWait || after.Config.MaxAckPending != -1 || !after.Created.Equal(before.Created) {
		t.Errorf("got %+v made at %v, want it as it was made at %v", after.Config, after.Created, before.Created)
	}
}

func TestAJobWithABrokenHeaderBlockIsAdopted(t *testing.T) {
	a, b := normal(t, "a", mulligan.Pure, "d"), normal(t, "b", mulligan.Pure, "d")
	e := provisioned(t, a)
	for i, block := range []string{"NATS/1.0\r\nno colon\r\n\r\n", "NATS/1.0\r\nX Team: a\r\n\r\n"} {
		raw(t, e, fmt.Sprintf("HPUB mulligan.jobs.b.%d %d %d\r\n%sp\r\n", i, len(block), len(block)+1, block))
	}
	publish(t, e, "a", "1", "")
	take(t, consumer(t, e, e.Topology.FreshQueue("d")))
	if c := e.Account(t); c.Jobs != 2 {
		t.Fatalf("the server refused the jobs: %+v", c)
	}
	declare(t, e, b)
	got := take(t, consumer(t, e, e.Topology.DeferredQueue("d")))
	if slices.Sort(got); !slices.Equal(got, []string{"b/0=p", "b/1=p"}) {
		t.Errorf("adopted: got %v, want both", got)
	}
}

// raw speaks the protocol itself, as a client with other ideas might.
func raw(t *testing.T, e *natstest.Env, line string) {
	t.Helper()
	conn, err := net.Dial("tcp", e.URL[len("nats://"):])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("CONNECT {\"verbose\":false,\"headers\":true}\r\n" + line + "PING\r\n")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for got := ""; len(got) < 6 || got[len(got)-6:] != "PONG\r\n"; {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got += string(buf[:n])
	}
}

func TestKindsAddedAtOnceToABusyDownstreamStrandNoJob(t *testing.T) {
	const kinds, rounds = 8, 3
	for round := range rounds {
		t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
			e := provisioned(t, normal(t, "k0", mulligan.Keyed, "d"))
			busy, end := context.WithCancel(t.Context())
			var pulls, pubs, adds sync.WaitGroup
			for _, q := range e.Topology.Queues("d") {
				c := consumer(t, e, q)
				pulls.Go(func() { drain(busy, c) })
			}
			publishing, stop := context.WithCancel(t.Context())
			pubs.Go(func() {
				for j := 0; publishing.Err() == nil; j++ {
					if _, err := e.JS.Publish(t.Context(), fmt.Sprintf("mulligan.jobs.k%d.j%d", j%kinds, j), nil); err != nil {
						t.Error(err)
					}
				}
			})
			for i := 1; i < kinds; i++ {
				k := normal(t, fmt.Sprint("k", i), mulligan.Keyed, "d")
				adds.Go(func() {
					_, err := e.Topology.Declare(t.Context(), e.JS, []mulligan.Kind{k})
					if err == nil {
						err = e.Topology.EnsureConsumers(t.Context(), e.JS, []string{"d"})
					}
					if err != nil {
						t.Errorf("add %s: %v", k.Name, err)
					}
				})
			}
			adds.Wait()
			stop()
			pubs.Wait()
			left, tick := uint64(1), time.NewTicker(20*time.Millisecond)
			defer tick.Stop()
			for patience := time.After(20 * time.Second); left > 0; {
				s, err := e.JS.Stream(t.Context(), e.Topology.JobsStream())
				if err != nil {
					t.Fatal(err)
				}
				left = s.CachedInfo().State.Msgs
				select {
				case <-tick.C:
				case <-patience:
					t.Fatalf("%d jobs are stranded", left)
				}
			}
			end()
			pulls.Wait()
		})
	}
}

// drain acknowledges what the consumer gives, until ctx ends.
func drain(ctx context.Context, c jetstream.Consumer) {
	for ctx.Err() == nil {
		batch, err := c.Fetch(50, jetstream.FetchMaxWait(200*time.Millisecond))
		if err != nil {
			continue
		}
		for m := range batch.Messages() {
			_ = m.Ack() // lost, it comes back
		}
	}
}
