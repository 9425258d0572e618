package integration

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

func TestKillServerInTheMiddle(t *testing.T) {
	t.Parallel()
	const jobs = 400
	lines, data := load(jobs), t.TempDir()
	p := newProvider(t)
	p.took = 10 * time.Millisecond
	serve := func(config string) *proc {
		return start(t, "serve", "--config", config, "--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0", "--data", data)
	}
	// Published while nobody does them, so that the jobs wait over a restart.
	s := serve(config(t, nil, ""))
	publish(t, s.NATS, lines)
	if code := s.stop(t, time.Minute); code != 0 {
		t.Fatalf("serve ended with %d", code)
	}

	third := make(chan struct{})
	p.watch = func(n int) {
		if n == jobs/3 {
			close(third)
		}
	}
	s = serve(config(t, p, "first"))
	<-third
	s.kill(t)
	before := len(p.log())
	s = serve(config(t, p, "second"))
	connect(t, s.NATS).settled(t, 2*time.Minute)
	t.Logf("killed after %d calls, %d calls in all", before, len(p.log()))
	checkKilled(t, p, s, lines)
}

// checkKilled checks that every job ended as if nothing had happened, but for
// one more run: that which was cut, and whose end nobody recorded, or that of a
// pure job whose first delivery the server has forgotten.
func checkKilled(t *testing.T, p *provider, s *proc, lines []line) {
	t.Helper()
	seen, again := p.byJob(), map[string]int{}
	for _, l := range lines {
		want, visits, got := fates()[l.class()], seen[l.Kind+"/"+l.ID], s.job(t, l)
		if got.State == mulligan.StatusUnknown && l.Kind == pureKind && l.class() == fine && len(visits) > 0 {
			got.State, got.Attempts = mulligan.StatusDone, 1 // nothing is kept of it
		}
		if got.State != want.state || got.Reason != want.reason {
			t.Errorf("%s %s is %+v, want %+v", l.Kind, l.ID, got, want)
		}
		extra := len(visits) - got.Attempts
		if extra < 0 || len(visits) < want.attempts || len(visits) > want.attempts+1 || l.Kind == keyedKind && got.Attempts > policyAttempts {
			t.Errorf("%s was called %d times and has %d attempts on record, of %d; one kill costs one run at most", l.ID, len(visits), got.Attempts, want.attempts)
		}
		again[l.Kind] += extra
		if effect := p.effectOf(l.Kind + "/" + l.ID); got.Result.Effect != 0 && got.Result.Effect != effect {
			t.Errorf("%s has the result %+v, the provider's is %d", l.ID, got.Result, effect)
		}
	}
	t.Logf("runs that were cut: %v", again)
	// What a record protects is run again only if it was in hand.
	if again[keyedKind] > slots {
		t.Errorf("%d keyed jobs ran once more, %d at most were in hand", again[keyedKind], slots)
	}
	written := map[string]int{}
	for _, l := range letters(t, s) {
		written[l.Kind+"/"+l.ID] = l.Attempts
	}
	checkLetters(t, s, lines, func(l line) int {
		n := s.job(t, l).Attempts
		// The server may have forgotten that a pure job was delivered, and its letter
		// may have been written before the kill: the run that this costs is added to
		// the record, and the letter stays as it was.
		if l.Kind == pureKind && written[l.Kind+"/"+l.ID] == n-1 {
			return n - 1
		}
		return n
	})
}

func TestKillWorkerInAHandler(t *testing.T) {
	t.Parallel()
	const jobs = 40
	e := natstest.Server(t)
	e.Provision(t, mulligan.Topology{})
	p := newProvider(t)
	start(t, "scheduler", "--server", e.URL)
	first := start(t, "worker", "--server", e.URL, "--config", config(t, p, "first"))
	eventually(t, 30*time.Second, "the first worker runs", func() bool { return first.log.has("worker runs") })
	var lines []line
	for i := range jobs {
		class, kind := fine, keyedKind
		if i%5 == 0 {
			class = held
		}
		if i%2 == 0 {
			kind = pureKind
		}
		id := fmt.Sprintf("%s-%d", class, i)
		lines = append(lines, line{Kind: kind, ID: id, Payload: []byte(payload(id))})
		e.Accept(kind, id)
	}
	publish(t, e.URL, lines)
	eventually(t, 30*time.Second, "every job was called", func() bool { return len(p.byJob()) == jobs })
	first.kill(t)
	close(p.hold)
	killed := time.Now()
	start(t, "worker", "--server", e.URL, "--config", config(t, p, "second"))
	streams{e.JS}.settled(t, 2*time.Minute)

	for _, l := range lines {
		visits := p.byJob()[l.Kind+"/"+l.ID]
		last := visits[len(visits)-1]
		if last.status != 200 || last.attempt != 1 || last.worker == "first" && l.class() == held {
			t.Errorf("%s ended with the call %+v", l.ID, last)
		}
		if l.class() == held && len(visits) != 2 {
			t.Errorf("%s was called %d times, want once by each worker", l.ID, len(visits))
		}
		if l.class() == held && last.at.Sub(killed) > 2*mulligan.AckWait {
			t.Errorf("%s waited %v for another worker", l.ID, last.at.Sub(killed))
		}
		e.Ran(l.Kind, l.ID)
	}
	if c := e.Account(t); c.Dead != 0 {
		t.Errorf("a job died of a killed worker: %+v", c)
	}
}

func TestAJobThatKillsItsProcessDiesAloneAndItsNeighboursAreDone(t *testing.T) {
	for _, effect := range []mulligan.Effect{mulligan.Pure, mulligan.Keyed} {
		t.Run(string(effect), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { poison(t, mulligan.Kind{Name: "poison." + string(effect), Effect: effect}) })
		})
	}
}

// poison publishes a job that kills its process among others that run beside it
// or wait in the same process, and starts the process again each time.
func poison(t *testing.T, kind mulligan.Kind) {
	const neighbours = 40
	e := natstest.InBubble(t)
	e.Provision(t, mulligan.Topology{})
	pub := &mulligan.Publisher{Conn: e.Conn, Kinds: []mulligan.Kind{kind}}
	for i := range neighbours + 1 {
		id := fmt.Sprint("neighbour-", i)
		if i == 2 {
			id = "poison"
		}
		if _, err := pub.Publish(t.Context(), mulligan.Job{Kind: kind.Name, ID: id}); err != nil {
			t.Fatal(err)
		}
		e.Accept(kind.Name, id)
	}
	ctx, end := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		if err := (&scheduler.Scheduler{Conn: e.Conn}).Run(ctx); err != nil {
			t.Error(err)
		}
	})
	all.Go(func() {
		for ctx.Err() == nil {
			mortal(t, ctx, e, kind)
		}
	})
	began := time.Now()
	for e.Account(t).Held() > 0 && time.Since(began) < time.Hour {
		time.Sleep(time.Second)
	}
	t.Logf("it killed %d processes, and all had ended after %v", e.Runs(kind.Name, "poison"), time.Since(began))
	end()
	all.Wait()

	l, err := (&scheduler.Scheduler{Conn: e.Conn}).Letter(t.Context(), kind.Name, "poison")
	if err != nil || l.Reason != mulligan.Crashed || e.Runs(kind.Name, "poison") != 3 {
		t.Errorf("after %d kills: letter %+v, %v; want crashed after three", e.Runs(kind.Name, "poison"), l, err)
	}
	if c := e.Account(t); c.Dead != 1 || c.Held() != 0 {
		t.Errorf("%+v, want one letter and nothing left", c)
	}
	for i := range neighbours + 1 {
		if id := fmt.Sprint("neighbour-", i); i != 2 && e.Runs(kind.Name, id) == 0 {
			t.Errorf("%s did not run to its end", id)
		}
	}
}

// mortal is a process with a worker. The poison ends all that runs in it, and
// cuts its connection first: nothing is given back, nothing more is recorded.
func mortal(t *testing.T, ctx context.Context, e *natstest.Env, kind mulligan.Kind) {
	life, die := context.WithCancel(ctx)
	defer die()
	conn, err := nats.Connect("", nats.InProcessServer(e))
	if err != nil {
		t.Error(err)
		die()
		return
	}
	defer conn.Close()
	w := consumer.Worker{Conn: conn, Concurrency: 4}
	w.Handle(kind, mulligan.HandlerFunc(func(_ context.Context, job *mulligan.Job) ([]byte, error) {
		took := 2 * time.Second
		if job.ID == "poison" {
			took = time.Second
		}
		select {
		case <-time.After(took):
		case <-life.Done():
			runtime.Goexit()
		}
		e.Ran(kind.Name, job.ID)
		if job.ID == "poison" {
			conn.Close()
			die()
			runtime.Goexit()
		}
		return nil, nil
	}))
	if err := w.Run(life); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		t.Error(err)
	}
}
