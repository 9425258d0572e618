package demo

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func TestTrickleJobsAreWorthWatching(t *testing.T) {
	t.Parallel()
	keys := map[string]bool{}
	users := map[string]int{}
	tasks := map[string]int{}
	firstBad := 0
	const jobs = 200
	for n := 1; n <= jobs; n++ {
		j := job("a", n)
		again := job("b", n)
		keys[j.Key()], keys[again.Key()] = true, true
		users[j.User]++
		tasks[j.Task]++
		path := map[string]string{Complete: "/complete", Send: "/send"}[j.Kind]
		if _, err := work(path, j.Key(), j.Payload); err != nil && firstBad == 0 {
			firstBad = n
		}
	}
	if len(keys) != 2*jobs {
		t.Errorf("%d keys in two runs, want %d", len(keys), 2*jobs)
	}
	if len(users) < 3 || len(tasks) < 10 {
		t.Errorf("got %d users and %d tasks, want several", len(users), len(tasks))
	}
	if firstBad < 2 || firstBad > 10 {
		t.Errorf("the first job that dies is number %d, want it soon", firstBad)
	}
}

func TestTrickleStoresJobs(t *testing.T) {
	t.Parallel()
	env := natstest.Server(t)
	env.Provision(t, mulligan.Topology{})
	pub := &mulligan.Publisher{Conn: env.Conn, Topology: env.Topology, Kinds: []mulligan.Kind{
		{Name: Complete, Effect: mulligan.Pure}, {Name: Send, Effect: mulligan.Keyed},
	}}
	stored, err := env.Conn.SubscribeSync(env.Topology.JobsRoot() + ".>")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- Trickle(ctx, pub, time.Millisecond) }()
	for n := range 6 {
		m, err := stored.NextMsg(5 * time.Second)
		if err != nil {
			t.Fatalf("job %d: %v", n+1, err)
		}
		kind, _ := mulligan.SplitSubject(env.Topology.JobsRoot(), m.Subject)
		if want := []string{Complete, Send}[n%2]; kind != want {
			t.Errorf("job %d: got %s, want %s", n+1, kind, want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got %v, want no error", err)
	}
}

func TestTrickleFailsForAKindThatIsNotDeclared(t *testing.T) {
	t.Parallel()
	env := natstest.Server(t)
	env.Provision(t, mulligan.Topology{})
	pub := &mulligan.Publisher{Conn: env.Conn, Topology: env.Topology, Kinds: []mulligan.Kind{{Name: Complete, Effect: mulligan.Pure}}}
	if err := Trickle(t.Context(), pub, time.Millisecond); !errors.Is(err, mulligan.ErrUnknownKind) {
		t.Errorf("got %v, want an unknown kind", err)
	}
}
