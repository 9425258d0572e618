package crash

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// An act is what a person does about a dead letter, in a program that may crash
// and is then called again.
type act struct {
	name   string
	effect mulligan.Effect
	first  error // how the first attempt ended
	did    bool  // and whether it had its effect
	queued bool  // the key was published again, and no worker runs meanwhile
	do     func(ctx context.Context, s *scheduler.Scheduler, kind, id string) error
}

func acts() []act {
	doubtful := mulligan.Typed("timeout", context.DeadlineExceeded)
	replay := func(ctx context.Context, s *scheduler.Scheduler, kind, id string) error {
		_, err := s.Replay(ctx, kind, id)
		return err
	}
	return []act{
		{name: "says that a job in doubt was done", effect: mulligan.Once, first: doubtful, did: true,
			do: func(ctx context.Context, s *scheduler.Scheduler, kind, id string) error {
				return s.ResolveDone(ctx, kind, id, []byte("by hand"))
			}},
		{name: "sends a job in doubt back, having seen that it was not done", effect: mulligan.Once, first: doubtful,
			do: func(ctx context.Context, s *scheduler.Scheduler, kind, id string) error {
				_, err := s.ResolveNotDone(ctx, kind, id)
				return err
			}},
		{name: "replays a letter twice", effect: mulligan.Keyed, first: mulligan.Permanent(errors.New("no")),
			do: func(ctx context.Context, s *scheduler.Scheduler, kind, id string) error {
				if err := replay(ctx, s, kind, id); err != nil {
					return err
				}
				return replay(ctx, s, kind, id)
			}},
		{name: "replays a key that is queued already", effect: mulligan.Keyed, first: mulligan.Permanent(errors.New("no")), queued: true, do: replay},
	}
}

// desk is where a person acts.
type desk struct {
	*natstest.Env
	*fate
	act  act
	kind mulligan.Kind
	pub  *mulligan.Publisher
	down *downlog

	mu   sync.Mutex
	runs map[string]int
}

func personTales() (all []tale) {
	for _, a := range acts() {
		all = append(all, tale{"a person who " + a.name, func(t *testing.T, e *natstest.Env, b *book) {
			e.Provision(t, mulligan.Topology{})
			kind := mulligan.Kind{Name: "desk." + string(a.effect), Effect: a.effect}
			d := &desk{Env: e, fate: &fate{book: b, deaf: starts}, act: a, kind: kind, pub: &mulligan.Publisher{Conn: e.Conn, Kinds: []mulligan.Kind{kind}},
				runs: map[string]int{}, down: &downlog{did: map[string]int{}, keys: map[string]int{}, spoke: map[string]string{}}}
			quiet := &fate{book: b, deaf: func(string) bool { return true }} // only the person's program crashes
			while(t, func() {
				d.lives(t, 2, func(id string) (int, bool) { return d.live(t, id, quiet), false })
			}, &service{fate: quiet, run: func(ctx context.Context) error { return (&scheduler.Scheduler{Conn: e.Conn}).Run(ctx) }})
		}})
	}
	return all
}

// live lets a job die, the person act, and the job come to its end.
func (d *desk) live(t *testing.T, id string, quiet *fate) (runs int) {
	t.Helper()
	job := mulligan.Job{Kind: d.kind.Name, ID: id, Payload: []byte("payload of " + id)}
	if _, err := d.pub.Publish(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	worker := &service{fate: quiet, run: d.work}
	while(t, func() {
		if st := rest(t, d.Env, d.pub, job); st.State != mulligan.StatusDead {
			t.Fatalf("job %s is %s: %+v", id, st.State, st.Record)
		}
	}, worker)
	if d.act.queued {
		if _, err := d.JS.Publish(t.Context(), mulligan.Subject(d.Topology.JobsRoot(), job.Kind, mulligan.Token(id)), job.Payload); err != nil {
			t.Fatal(err)
		}
	}
	err := d.again(t, func(ctx context.Context) error {
		return d.act.do(ctx, &scheduler.Scheduler{Conn: d.Conn}, job.Kind, id)
	})
	refused := errors.Is(err, scheduler.ErrQueued)
	if d.act.queued && !refused || err != nil && !refused && !errors.Is(err, mulligan.ErrNotFound) {
		t.Fatalf("the person was told %v", err)
	}
	while(t, func() { d.check(t, job) }, worker)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.runs[id]
}

// check says how it has to end: done, with one effect and no letter. A message
// that was queued already finds its key dead and is buried over the letter, unless
// the replay crashed when it had reopened the key: then it is what runs.
func (d *desk) check(t *testing.T, job mulligan.Job) {
	t.Helper()
	st := rest(t, d.Env, d.pub, job)
	effects, left := d.down.effects(job.Key()), letters(t, d.Env)
	done := st.State == mulligan.StatusDone && effects == 1 && left == 0
	dead := st.State == mulligan.StatusDead && effects == 0 && left == 1
	if ok := done && (!d.act.queued || len(d.ends()) > 0) || dead && d.act.queued; !ok {
		t.Fatalf("job %s is %s with %d letters and %d effects; crashes at %v; record %+v", job.ID, st.State, left, effects, d.ends(), st.Record)
	}
	if dead {
		dead, err := d.JS.Stream(t.Context(), d.Topology.DeadStream())
		if err == nil {
			err = dead.Purge(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (d *desk) work(ctx context.Context) error {
	w := &consumer.Worker{Conn: d.Conn, Concurrency: 4}
	w.Handle(d.kind, mulligan.HandlerFunc(func(_ context.Context, job *mulligan.Job) ([]byte, error) {
		d.mu.Lock()
		d.runs[job.ID]++
		first := d.runs[job.ID] == 1
		d.mu.Unlock()
		if first && !d.act.did {
			return nil, d.act.first
		}
		answer := d.down.do(job.Key())
		if first {
			return nil, d.act.first
		}
		return []byte(answer), nil
	}))
	return w.Run(ctx)
}
