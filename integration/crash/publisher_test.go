package crash

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// press is where publishers crash: whoever publishes does so again, in a new
// process, until it is told that its jobs are stored.
type press struct {
	*natstest.Env
	*fate
	kind mulligan.Kind
	many bool // jobs at once

	mu   sync.Mutex
	runs map[string]int
}

func publisherTales() (all []tale) {
	for _, many := range []bool{false, true} {
		kind, what := mulligan.Kind{Name: "press.one", Effect: mulligan.Keyed}, "one job, and once more"
		if many {
			kind, what = mulligan.Kind{Name: "press.many", Effect: mulligan.Pure}, "many jobs"
		}
		all = append(all, tale{"a publisher of " + what, func(t *testing.T, e *natstest.Env, b *book) {
			e.Provision(t, mulligan.Topology{})
			p := &press{Env: e, fate: &fate{book: b}, kind: kind, many: many, runs: map[string]int{}}
			quiet := &fate{book: b, deaf: func(string) bool { return true }}
			worker := &service{fate: quiet, run: p.work}
			p.lives(t, 10, func(id string) (int, bool) { return p.live(t, id, worker), false })
		}})
	}
	all = append(all, tale{"a key that another payload comes under", conflict})
	return all
}

// live has jobs published, and then run.
func (p *press) live(t *testing.T, id string, worker *service) (runs int) {
	t.Helper()
	var jobs []mulligan.Job
	for i := range 3 {
		jobs = append(jobs, mulligan.Job{Kind: p.kind.Name, ID: fmt.Sprintf("%s-%d", id, i), Payload: []byte("payload")})
	}
	if !p.many {
		jobs = jobs[:1]
	}
	err := p.again(t, func(ctx context.Context) error { return p.publish(ctx, jobs) })
	if err != nil {
		t.Fatal(err)
	}
	pub := &mulligan.Publisher{Conn: p.Conn, Kinds: []mulligan.Kind{p.kind}}
	while(t, func() { rest(t, p.Env, pub, jobs[0]) }, worker)
	for _, job := range jobs {
		p.Accept(job.Kind, job.ID)
		p.mu.Lock()
		if n := p.runs[job.ID]; n != 1 {
			t.Errorf("job %s ran %d times; crashes at %v", job.ID, n, p.ends())
		}
		runs += p.runs[job.ID]
		p.mu.Unlock()
	}
	return runs
}

// publish publishes twice what it publishes one by one.
func (p *press) publish(ctx context.Context, jobs []mulligan.Job) error {
	pub := &mulligan.Publisher{Conn: p.Conn, Kinds: []mulligan.Kind{p.kind}}
	if p.many {
		var errs error
		for _, o := range pub.PublishMany(ctx, jobs) {
			errs = errors.Join(errs, o.Err)
		}
		return errs
	}
	_, err := pub.Publish(ctx, jobs[0])
	if err == nil {
		_, err = pub.Publish(ctx, jobs[0])
	}
	return err
}

func (p *press) work(ctx context.Context) error {
	w := &consumer.Worker{Conn: p.Conn, Concurrency: 4}
	w.Handle(p.kind, mulligan.HandlerFunc(func(_ context.Context, job *mulligan.Job) ([]byte, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.runs[job.ID]++
		p.Ran(job.Kind, job.ID)
		return []byte("result"), nil
	}))
	return w.Run(ctx)
}

// conflict lets a stranger publish another payload under a key that is done: it
// gets a letter of its own, and the key's record and result stand.
func conflict(t *testing.T, e *natstest.Env, b *book) {
	e.Provision(t, mulligan.Topology{})
	kind := mulligan.Kind{Name: "press.conflict", Effect: mulligan.Keyed}
	p := &press{Env: e, fate: &fate{book: b, deaf: starts}, kind: kind, runs: map[string]int{}}
	pub := &mulligan.Publisher{Conn: e.Conn, Kinds: []mulligan.Kind{kind}}
	sched := &scheduler.Scheduler{Conn: e.Conn}
	live := func(id string) (int, bool) {
		job := mulligan.Job{Kind: kind.Name, ID: id, Payload: []byte("payload")}
		if _, err := pub.Publish(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		rest(t, e, pub, job)
		if _, err := e.JS.Publish(t.Context(), mulligan.Subject(e.Topology.JobsRoot(), job.Kind, mulligan.Token(id)), []byte("another")); err != nil {
			t.Fatal(err)
		}
		st := rest(t, e, pub, job)
		l, err := sched.Letter(t.Context(), job.Kind, id)
		if err != nil || l.Reason != mulligan.KeyConflict || string(l.Payload) != "another" || st.State != mulligan.StatusDone || letters(t, e) != 1 {
			t.Fatalf("job %s is %s, its letter %+v, %v; crashes at %v", id, st.State, l, err, p.ends())
		}
		dead, err := e.JS.Stream(t.Context(), e.Topology.DeadStream())
		if err == nil {
			err = dead.DeleteMsg(t.Context(), l.Seq) // a person discards it
		}
		if err != nil {
			t.Fatal(err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.runs[id], false
	}
	while(t, func() { p.lives(t, 2, live) }, &service{fate: p.fate, run: p.work},
		&service{fate: p.fate, run: func(ctx context.Context) error { return (&scheduler.Scheduler{Conn: e.Conn}).Run(ctx) }})
}
