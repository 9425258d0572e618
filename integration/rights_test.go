package integration

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// guarded is a server on which each role has the rights of
// deploy/nats-rights.conf and no more.
type guarded struct {
	url string

	mu      sync.Mutex
	refused []string
}

func startGuarded(t *testing.T, change ...func(o *server.Options)) *guarded {
	t.Helper()
	for _, role := range []string{"PUBLISHER", "WORKER", "SCHEDULER", "OPERATOR"} {
		t.Setenv(role+"_PASSWORD", "secret")
	}
	opts, err := server.ProcessConfigFile(filepath.Join(repository(t), "deploy", "nats-rights.conf"))
	if err != nil {
		t.Fatal(err)
	}
	opts.Host, opts.Port, opts.StoreDir = "127.0.0.1", server.RANDOM_PORT, t.TempDir()
	opts.JetStream, opts.NoLog, opts.NoSigs = true, true, true
	for _, c := range change {
		c(opts)
	}
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	return &guarded{url: s.ClientURL()}
}

func (g *guarded) as(t *testing.T, role string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(g.url, nats.UserInfo(role, "secret"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.refused = append(g.refused, role+": "+err.Error())
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// A pure kind and a keyed one: one job of each works at once, recovers after a
// nak and a park, is buried and replayed.
func TestRightsOfEachRoleAreEnough(t *testing.T) {
	g := startGuarded(t)
	kinds := []mulligan.Kind{normal(t, "llm.complete", mulligan.Pure), normal(t, "email.send", mulligan.Keyed)}
	operator := g.as(t, "operator")
	provisionAs(t, operator, kinds)

	flaky := errors.New("flaky")
	w := consumer.Worker{Conn: g.as(t, "worker")}
	for _, k := range kinds {
		w.Handle(k, mulligan.HandlerFunc(func(_ context.Context, job *mulligan.Job) ([]byte, error) {
			switch {
			case job.ID == "dies" && job.User != "":
				return nil, mulligan.Permanent(flaky)
			case job.ID == "recovers" && job.Attempt == 1:
				return nil, flaky
			case job.ID == "recovers" && job.Attempt == 2:
				return nil, mulligan.After(2100*time.Millisecond, flaky) // too long for a nak
			}
			return []byte("{}"), nil
		}))
	}
	s := scheduler.Scheduler{Conn: g.as(t, "scheduler")}
	ctx, stop := context.WithCancel(t.Context())
	var roles sync.WaitGroup
	for _, run := range []func(context.Context) error{w.Run, s.Run} {
		roles.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	events := follow(t, operator)
	added := normal(t, "sms.send", mulligan.Keyed)
	pub := mulligan.Publisher{Conn: g.as(t, "publisher"), Kinds: append(kinds, added)}
	if _, err := pub.Publish(t.Context(), mulligan.Job{Kind: added.Name, ID: "early"}); err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		for _, id := range []string{"works", "recovers", "dies"} {
			job := mulligan.Job{Kind: k.Name, ID: id, User: "ada"}
			if id == "recovers" {
				job.NotBefore = time.Now().Add(time.Second)
			}
			for range 2 { // the second is a duplicate
				if _, err := pub.Publish(t.Context(), job); err != nil {
					t.Errorf("publish %s %s: %v", k.Name, id, err)
				}
			}
			if _, err := pub.Status(t.Context(), k.Name, id); err != nil {
				t.Errorf("status of %s %s: %v", k.Name, id, err)
			}
		}
	}
	events.await(t, mulligan.EventRecovered, len(kinds))
	events.await(t, mulligan.EventDead, len(kinds))
	replayer := scheduler.Scheduler{Conn: operator}
	letters, err := replayer.Letters(t.Context(), scheduler.Query{})
	if err != nil || len(letters) != len(kinds) {
		t.Errorf("got %d letters and %v, want %d", len(letters), err, len(kinds))
	}
	for _, l := range letters {
		if _, err := replayer.Replay(t.Context(), l.Kind, l.ID); err != nil {
			t.Errorf("replay %s %s: %v", l.Kind, l.ID, err)
		}
	}
	events.await(t, mulligan.EventDead, len(kinds))
	provisionAs(t, operator, []mulligan.Kind{added}) // adopts its job
	stop()
	roles.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.refused) > 0 {
		t.Errorf("refused:\n%s", strings.Join(g.refused, "\n"))
	}
}

func normal(t *testing.T, name string, effect mulligan.Effect) mulligan.Kind {
	t.Helper()
	k, err := mulligan.Kind{Name: name, Effect: effect}.Normal()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func provisionAs(t *testing.T, nc *nats.Conn, kinds []mulligan.Kind) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	var topology mulligan.Topology
	if err := topology.Ensure(t.Context(), js); err != nil {
		t.Fatal(err)
	}
	if _, err := topology.Declare(t.Context(), js, kinds); err != nil {
		t.Fatal(err)
	}
	if err := topology.EnsureConsumers(t.Context(), js, []string{mulligan.DefaultDownstream}); err != nil {
		t.Fatal(err)
	}
}

// events are those that were told and not yet awaited.
type events struct {
	told chan *nats.Msg
	seen map[string]int
}

func follow(t *testing.T, nc *nats.Conn) *events {
	t.Helper()
	e := &events{told: make(chan *nats.Msg, 1024), seen: map[string]int{}}
	if _, err := nc.ChanSubscribe(mulligan.Topology{}.EventsRoot()+".>", e.told); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return e
}

// await takes n events of a sort.
func (e *events) await(t *testing.T, what string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for e.seen[what] < n {
		select {
		case m := <-e.told:
			var event mulligan.Event
			if err := json.Unmarshal(m.Data, &event); err != nil {
				t.Fatal(err)
			}
			e.seen[event.Event]++
		case <-ctx.Done():
			t.Fatalf("got %v, want %d of %s", e.seen, n, what)
		}
	}
	e.seen[what] -= n
}
