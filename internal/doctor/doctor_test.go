package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

var topology mulligan.Topology

// installed is a server as `mulligan provision` leaves it, with some kinds.
func installed(t *testing.T, kinds ...mulligan.Kind) *natstest.Env {
	t.Helper()
	e := natstest.Server(t)
	ctx := t.Context()
	if err := topology.Ensure(ctx, e.JS); err != nil {
		t.Fatal(err)
	}
	var downstreams []string
	for i := range kinds {
		k, err := kinds[i].Normal()
		if err != nil {
			t.Fatal(err)
		}
		kinds[i] = k
		downstreams = append(downstreams, k.Downstream)
	}
	if _, err := topology.Declare(ctx, e.JS, kinds); err != nil {
		t.Fatal(err)
	}
	if err := topology.EnsureConsumers(ctx, e.JS, downstreams); err != nil {
		t.Fatal(err)
	}
	return e
}

// visit returns what is found, but what is well.
func visit(t *testing.T, e *natstest.Env, monitor string) []Finding {
	t.Helper()
	found, err := Doctor{Conn: e.Conn, Monitor: monitor}.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(found, func(f Finding) bool { return f.Status == OK })
}

func TestAFreshInstallationFailsNoCheck(t *testing.T) {
	e := installed(t, mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed})
	found := visit(t, e, "")
	if Failed(found) > 0 {
		t.Errorf("found %+v", found)
	}
	for _, want := range []string{"fsync", "workers", "schedulers"} {
		if !slices.ContainsFunc(found, func(f Finding) bool { return f.Check == want && f.Status == Warn && f.Do != "" }) {
			t.Errorf("no warning about %s in %+v", want, found)
		}
	}
}

func TestWhatIsWrongIsFound(t *testing.T) {
	change := func(stream string, to func(*jetstream.StreamConfig)) func(context.Context, jetstream.JetStream) error {
		return func(ctx context.Context, js jetstream.JetStream) error {
			s, err := js.Stream(ctx, stream)
			if err != nil {
				return err
			}
			cfg := s.CachedInfo().Config
			to(&cfg)
			_, err = js.UpdateStream(ctx, cfg)
			return err
		}
	}
	durable := func(to func(*jetstream.ConsumerConfig)) func(context.Context, jetstream.JetStream) error {
		return func(ctx context.Context, js jetstream.JetStream) error {
			c, err := js.Consumer(ctx, topology.JobsStream(), "default")
			if err != nil {
				return err
			}
			cfg := c.CachedInfo().Config
			to(&cfg)
			_, err = js.UpdateConsumer(ctx, topology.JobsStream(), cfg)
			return err
		}
	}
	for _, c := range []struct {
		name   string
		spoil  func(context.Context, jetstream.JetStream) error
		status Status
		check  string
		detail string
	}{
		{"a stream is missing", func(ctx context.Context, js jetstream.JetStream) error {
			return js.DeleteStream(ctx, topology.EventsStream())
		},
			Fail, "stream MULLIGAN_EVENTS", "missing"},
		{"a bucket is missing", func(ctx context.Context, js jetstream.JetStream) error {
			return js.DeleteKeyValue(ctx, topology.LedgerBucket())
		}, Fail, "stream KV_mulligan_ledger", "missing"},
		{"a stream has lost its subjects", change(topology.DeadStream(), func(c *jetstream.StreamConfig) { c.Subjects = []string{"elsewhere.>"} }),
			Fail, "stream MULLIGAN_DEAD", "elsewhere"},
		{"jobs drive out jobs", change(topology.JobsStream(), func(c *jetstream.StreamConfig) { c.DiscardNewPerSubject = false }),
			Fail, "stream MULLIGAN_JOBS", "one message per subject"},
		{"retries have a limit", change(topology.RetriesStream(), func(c *jetstream.StreamConfig) { c.MaxBytes = 1 << 20 }),
			Fail, "stream MULLIGAN_RETRIES", "no limits"},
		{"an older program made a stream", change(topology.JobsStream(), func(c *jetstream.StreamConfig) { c.Metadata = nil }),
			Warn, "stream MULLIGAN_JOBS", "older"},
		{"a newer program made a stream", change(topology.JobsStream(), func(c *jetstream.StreamConfig) { c.Metadata["mulligan.topology"] = "99" }),
			Warn, "stream MULLIGAN_JOBS", "newer"},
		{"a consumer is missing", func(ctx context.Context, js jetstream.JetStream) error {
			return js.DeleteConsumer(ctx, topology.RetriesStream(), "default")
		}, Fail, "consumer MULLIGAN_RETRIES default", "missing"},
		{"a consumer of deferred jobs is missing", func(ctx context.Context, js jetstream.JetStream) error {
			return js.DeleteConsumer(ctx, topology.RetriesStream(), topology.DeferredQueue("default").Durable)
		}, Fail, "consumer MULLIGAN_RETRIES default_deferred", "missing"},
		{"a kind is not delivered", durable(func(c *jetstream.ConsumerConfig) {
			c.FilterSubjects = []string{"mulligan.jobs.other.*"}
			c.FilterSubject = ""
		}),
			Fail, "consumer MULLIGAN_JOBS default", "mulligan.jobs.email.send.*"},
		{"a consumer has a BackOff", durable(func(c *jetstream.ConsumerConfig) { c.BackOff, c.MaxDeliver = []time.Duration{time.Second}, 3 }),
			Fail, "consumer MULLIGAN_JOBS default", "BackOff"},
		{"a consumer has another AckWait", durable(func(c *jetstream.ConsumerConfig) { c.AckWait = time.Second }),
			Fail, "consumer MULLIGAN_JOBS default", "AckWait"},
		{"a consumer gives up", durable(func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 5 }),
			Fail, "consumer MULLIGAN_JOBS default", "5 deliveries"},
		{"a consumer has a limit of jobs in hand", durable(func(c *jetstream.ConsumerConfig) { c.MaxAckPending = 7 }),
			Fail, "consumer MULLIGAN_JOBS default", "stops at 7 jobs"},
		{"a consumer delivers no payloads", durable(func(c *jetstream.ConsumerConfig) { c.HeadersOnly = true }),
			Fail, "consumer MULLIGAN_JOBS default", "without their payloads"},
		{"a consumer pushes", func(ctx context.Context, js jetstream.JetStream) error {
			if err := js.DeleteConsumer(ctx, topology.JobsStream(), "default"); err != nil {
				return err
			}
			_, err := js.CreatePushConsumer(ctx, topology.JobsStream(), jetstream.ConsumerConfig{Durable: "default", FilterSubject: "mulligan.jobs.email.send.*",
				DeliverSubject: "nobody", AckPolicy: jetstream.AckExplicitPolicy})
			return err
		}, Fail, "consumer MULLIGAN_JOBS default", "pushes jobs to nobody"},
		{"a consumer is paused", func(ctx context.Context, js jetstream.JetStream) error {
			_, err := js.PauseConsumer(ctx, topology.JobsStream(), "default", time.Now().Add(time.Hour))
			return err
		}, Warn, "consumer MULLIGAN_JOBS default", "paused for another"},
		{"a consumer was reset to a place ahead", func(ctx context.Context, js jetstream.JetStream) error {
			if _, err := js.Publish(ctx, "mulligan.jobs.email.send.a", nil); err != nil {
				return err
			}
			s, err := js.Stream(ctx, topology.JobsStream())
			if err != nil {
				return err
			}
			_, err = s.ResetConsumerToSequence(ctx, "default", 100)
			return err
		}, Fail, "consumer MULLIGAN_JOBS default", "mulligan.jobs.email.send.a"},
		{"others ask in all places", func(ctx context.Context, js jetstream.JetStream) error {
			inbox := nats.NewInbox()
			if _, err := js.Conn().SubscribeSync(inbox); err != nil {
				return err
			}
			for range 512 {
				if err := js.Conn().PublishRequest("$JS.API.CONSUMER.MSG.NEXT.MULLIGAN_JOBS.default", inbox, []byte(`{"batch":1,"expires":60000000000}`)); err != nil {
					return err
				}
			}
			for waiting := 0; waiting < 512; { // the server takes them in its own time
				info, err := mulligan.ConsumerInfo(ctx, js, "MULLIGAN_JOBS", "default")
				if err != nil {
					return err
				}
				waiting = info.NumWaiting
			}
			return nil
		}, Warn, "consumer MULLIGAN_JOBS default", "512 places"},
		{"a letter waits for a person", func(ctx context.Context, js jetstream.JetStream) error {
			_, err := js.Publish(ctx, "mulligan.dead.email.send.a", nil)
			return err
		}, Warn, "dead letters", "1 dead"},
		{"the letters are full", func(ctx context.Context, js jetstream.JetStream) error {
			if err := change(topology.DeadStream(), func(c *jetstream.StreamConfig) { c.MaxBytes = 1000 })(ctx, js); err != nil {
				return err
			}
			_, err := js.Publish(ctx, "mulligan.dead.email.send.a", make([]byte, 920))
			return err
		}, Fail, "dead letters", "fill"},
		{"a spent job waits", func(ctx context.Context, js jetstream.JetStream) error {
			_, err := js.Publish(ctx, "mulligan.retry.spent.email.send.a", nil)
			return err
		}, Warn, "spent jobs", "1 spent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := installed(t, mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed})
			if err := c.spoil(t.Context(), e.JS); err != nil {
				t.Fatal(err)
			}
			found := visit(t, e, "")
			if !slices.ContainsFunc(found, func(f Finding) bool {
				return f.Check == c.check && f.Status == c.status && strings.Contains(f.Detail, c.detail) && f.Do != ""
			}) {
				t.Errorf("no %s about %s with %q in %+v", c.status, c.check, c.detail, found)
			}
		})
	}
}

func TestAConsumerIsStalledIfItIsAskedAndGivesNothing(t *testing.T) {
	info := func(waiting, pending, delivered uint64) *jetstream.ConsumerInfo {
		return &jetstream.ConsumerInfo{NumWaiting: int(waiting), NumPending: pending, Delivered: jetstream.SequenceInfo{Consumer: delivered}}
	}
	for _, c := range []struct {
		name     string
		was, now *jetstream.ConsumerInfo
		want     bool
	}{
		{"nobody asks", info(0, 9, 3), info(0, 9, 3), false},
		{"nothing waits", info(2, 0, 3), info(2, 0, 3), false},
		{"it delivers", info(2, 9, 3), info(2, 9, 4), false},
		{"nobody asks any more", info(2, 9, 3), info(0, 9, 3), false},
		{"asked in vain", info(2, 9, 3), info(1, 12, 3), true},
	} {
		if got := stalled(c.was, c.now); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestManyDownstreamsAreTooMany(t *testing.T) {
	var kinds []mulligan.Kind
	for i := range 11 {
		kinds = append(kinds, mulligan.Kind{Name: fmt.Sprintf("k%d", i), Effect: mulligan.Pure, Downstream: fmt.Sprintf("d%d", i)})
	}
	found := visit(t, installed(t, kinds...), "")
	if !slices.ContainsFunc(found, func(f Finding) bool { return f.Check == "downstreams" && f.Status == Warn }) {
		t.Errorf("no warning in %+v", found)
	}
}

func TestLiveWorkersAndSchedulersAreFound(t *testing.T) {
	e := installed(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	w := &consumer.Worker{Conn: e.Conn}
	w.Handle(mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed},
		mulligan.HandlerFunc(func(context.Context, *mulligan.Job) ([]byte, error) { return nil, nil }))
	go func() { ended <- w.Run(ctx) }()
	go func() { ended <- (&scheduler.Scheduler{Conn: e.Conn}).Run(ctx) }()
	defer func() {
		stop()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		found := visit(t, e, "")
		if len(found) == 1 && found[0].Check == "fsync" {
			break // each visit waits for answers, so this takes its time
		}
		if t.Context().Err() != nil {
			t.Fatalf("still found %+v", found)
		}
	}
	live, err := Live(ctx, e.Conn, topology, consumer.ServiceName)
	if err != nil || len(live) != 1 || !slices.Equal(live[0].Kinds, []string{"email.send"}) {
		t.Errorf("live workers: %+v, %v", live, err)
	}
	if live, err = Live(ctx, e.Conn, mulligan.Topology{Prefix: "other"}, consumer.ServiceName); err != nil || len(live) != 0 {
		t.Errorf("workers of another topology: %+v, %v", live, err)
	}
}

func TestAServerWithoutJetStreamFails(t *testing.T) {
	ns, err := server.NewServer(&server.Options{DontListen: true, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	defer ns.Shutdown()
	nc, err := nats.Connect("", nats.InProcessServer(ns))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	found := visit(t, &natstest.Env{Conn: nc}, "")
	if Failed(found) != 1 || found[0].Check != "jetstream" {
		t.Errorf("found %+v, want that JetStream is not enabled and nothing more", found)
	}
}

func TestTheMonitoringPageTellsOfFlushesAndRoom(t *testing.T) {
	for _, c := range []struct{ name, page, flush, room string }{
		{"before every answer", `{"jetstream":{"config":{"sync_interval":120000000000,"sync_always":true,"max_storage":104857600},"stats":{"storage":83885000}}}`, "ok", "ok"},
		{"every two minutes", `{"jetstream":{"config":{"sync_interval":120000000000,"max_storage":104857600}}}`, "every 2m0s", "ok"},
		{"four fifths are used", `{"jetstream":{"config":{"sync_always":true,"max_storage":104857600},"stats":{"storage":83886080}}}`, "ok", "80 of 100 MiB"},
		{"more is used than may be", `{"jetstream":{"config":{"sync_always":true,"max_storage":104857600},"stats":{"storage":209715200}}}`, "ok", "200 of 100 MiB"},
		{"a page that does not tell", `{}`, "does not tell", ""},
		{"no page", `not found`, "monitoring page", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(c.page)) }))
			defer page.Close()
			f := &findings{Doctor: Doctor{Monitor: page.URL}}
			f.disk(t.Context())
			want := map[string]string{"fsync": c.flush, "disk space": c.room}
			for _, got := range f.found {
				if want := want[got.Check]; want == "" || (want == "ok") != (got.Status == OK) || want != "ok" && !strings.Contains(got.Detail, want) {
					t.Errorf("found %+v, want %q", got, want)
				}
				delete(want, got.Check)
			}
			if want["fsync"] != "" || want["disk space"] != "" {
				t.Errorf("found %+v, and nothing of %v", f.found, want)
			}
		})
	}
}

func TestAClockThatIsOffIsFound(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name  string
		there time.Time
		want  Status
	}{
		{"a little", now.Add(-800 * time.Millisecond), OK},
		{"two seconds ahead", now.Add(2 * time.Second), Warn},
		{"two seconds behind", now.Add(-2 * time.Second), Warn},
	} {
		f := &findings{}
		if f.clock(now, c.there); f.found[0].Status != c.want {
			t.Errorf("%s: %+v, want %s", c.name, f.found[0], c.want)
		}
	}
}

func TestVersionsAreRead(t *testing.T) {
	for version, want := range map[string][2]int{"2.15.2": {2, 15}, "v2.14.0-RC.1": {2, 14}, "3.0": {3, 0}, "": {0, 0}, "main": {0, 0}} {
		if major, minor := parseVersion(version); [2]int{major, minor} != want {
			t.Errorf("%q is %d.%d, want %v", version, major, minor, want)
		}
	}
}

func TestReplicasAreCompared(t *testing.T) {
	peers := func(n int, offline bool) *jetstream.ClusterInfo {
		c := &jetstream.ClusterInfo{Name: "c"}
		for range n {
			c.Replicas = append(c.Replicas, &jetstream.PeerInfo{Current: true, Offline: offline})
		}
		return c
	}
	for _, c := range []struct {
		name    string
		want    int
		cluster *jetstream.ClusterInfo
		status  Status
	}{
		{"one of a single server", 1, nil, OK},
		{"one in a cluster", 1, peers(0, false), Warn},
		{"three of three", 3, peers(2, false), OK},
		{"two of three", 3, peers(1, false), Fail},
		{"three, some offline", 3, peers(2, true), Warn},
	} {
		f := &findings{}
		nodes := 1
		if c.cluster != nil {
			nodes += len(c.cluster.Replicas)
		}
		f.replicas("stream", jetstream.StreamConfig{Replicas: c.want}, c.cluster, nodes)
		if f.found[0].Status != c.status {
			t.Errorf("%s: %+v, want %s", c.name, f.found[0], c.status)
		}
	}
}

func TestWhatHoldsJobsBackIsFound(t *testing.T) {
	e := installed(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	w := &consumer.Worker{Conn: e.Conn, Downstreams: map[string]consumer.Downstream{"mailer": {Capacity: 10, Peak: 20}}}
	kind := mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed, Downstream: "mailer"}
	w.Handle(kind, mulligan.HandlerFunc(func(context.Context, *mulligan.Job) ([]byte, error) {
		return nil, mulligan.RefusedCredential(errors.New("API key has expired"))
	}))
	go func() { ended <- w.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	pub := &mulligan.Publisher{Conn: e.Conn, Kinds: []mulligan.Kind{kind}}
	if _, err := pub.Publish(ctx, mulligan.Job{Kind: kind.Name, ID: "1"}); err != nil {
		t.Fatal(err)
	}
	for {
		var credential, storm bool
		found := visit(t, e, "")
		for _, f := range found {
			if f.Check != "downstream mailer" {
				continue
			}
			credential = credential || f.Status == Fail && strings.Contains(f.Detail, "refuses the credential") && strings.Contains(f.Do, "renew")
			storm = storm || f.Status == Warn && strings.Contains(f.Detail, "a peak of 20/s is 23/s with its retries") && strings.HasPrefix(f.Do, "keep the peak under")
		}
		if credential && storm {
			return // each visit waits for answers, so this takes its time
		}
		if t.Context().Err() != nil {
			t.Fatalf("still found %+v", found)
		}
	}
}
