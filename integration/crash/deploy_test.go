package crash

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// dock is where a worker is replaced while a job runs.
type dock struct {
	*natstest.Env
	*fate
	heeds bool // the handler heeds its context; else it ends when its job was buried by another worker
	kind  mulligan.Kind

	mu   sync.Mutex
	runs map[string]int
}

func deployTales() []tale {
	return []tale{
		{"a job whose worker is replaced", func(t *testing.T, e *natstest.Env, b *book) { deployed(t, e, b, true) }},
		{"a job whose first call ends late", func(t *testing.T, e *natstest.Env, b *book) { deployed(t, e, b, false) }},
	}
}

func deployed(t *testing.T, e *natstest.Env, b *book, heeds bool) {
	e.Provision(t, mulligan.Topology{})
	d := &dock{Env: e, fate: &fate{book: b, deaf: starts}, heeds: heeds, runs: map[string]int{},
		kind: mulligan.Kind{Name: "dock", Effect: mulligan.Keyed, Policy: mulligan.Policy{Total: time.Hour}}}
	pub := &mulligan.Publisher{Conn: e.Conn, Kinds: []mulligan.Kind{d.kind}}
	worker := &service{fate: d.fate, run: d.work}
	while(t, func() {
		d.lives(t, 2, func(id string) (int, bool) { return d.live(t, id, pub, worker), false })
		time.Sleep(late) // the last one may still try to acknowledge what is no more
	}, worker, &service{fate: d.fate, run: func(ctx context.Context) error { return (&scheduler.Scheduler{Conn: e.Conn}).Run(ctx) }})
}

// live lets one job live through a deployment. Its key is done, unless the call
// that ends late is cut by the crash: then its letter says how it died.
func (d *dock) live(t *testing.T, id string, pub *mulligan.Publisher, worker *service) int {
	t.Helper()
	job := mulligan.Job{Kind: d.kind.Name, ID: id, Payload: []byte("payload")}
	if _, err := pub.Publish(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	for d.ran(id) == 0 {
		time.Sleep(time.Second)
	}
	worker.deploy()
	if !d.heeds {
		time.Sleep(late)
	}
	st := rest(t, d.Env, pub, job)
	n := letters(t, d.Env)
	switch {
	case st.State == mulligan.StatusDone && n == 0:
	case st.State == mulligan.StatusDone && !d.heeds && len(d.ends()) > 0:
		// Nobody was left to have the letter taken back. A replay only does that.
		r, err := (&scheduler.Scheduler{Conn: d.Conn}).Replay(t.Context(), job.Kind, job.ID)
		if left := letters(t, d.Env); err != nil || !r.Done || left != 0 {
			t.Fatalf("the replay of %s, which is done: %+v, %v; %d letters are left", id, r, err, left)
		}
	case st.State == mulligan.StatusDead && n == 1 && !d.heeds && len(d.ends()) > 0:
		d.discard(t, job, st.Record)
	default:
		t.Fatalf("job %s is %s with %d letters; crashes at %v; record %+v", id, st.State, n, d.ends(), st.Record)
	}
	return d.ran(id)
}

func (d *dock) ran(id string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.runs[id]
}

func (d *dock) discard(t *testing.T, job mulligan.Job, r *mulligan.Record) {
	t.Helper()
	l, err := (&scheduler.Scheduler{Conn: d.Conn}).Letter(t.Context(), job.Kind, job.ID)
	if err != nil || l.Reason != r.Reason || l.Attempts != r.Attempts {
		t.Errorf("letter %+v, %v; record %+v", l, err, r)
	}
	dead, err := d.JS.Stream(t.Context(), d.Topology.DeadStream())
	if err == nil {
		err = dead.DeleteMsg(t.Context(), l.Seq)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// late is how long the first call takes that does not heed its context: longer
// than all that happens meanwhile.
const late = 45 * time.Second

func (d *dock) work(ctx context.Context) error {
	w := &consumer.Worker{Conn: d.Conn, Concurrency: 4, Grace: time.Second}
	w.Handle(d.kind, mulligan.HandlerFunc(func(ctx context.Context, job *mulligan.Job) ([]byte, error) {
		d.mu.Lock()
		d.runs[job.ID]++
		first := d.runs[job.ID] == 1
		d.mu.Unlock()
		switch {
		case first && d.heeds:
			// What a step has written of the record the worker has not seen.
			if _, err := mulligan.Step(ctx, job, "begun", func(context.Context) (bool, error) { return true, nil }); err != nil {
				return nil, err
			}
			<-ctx.Done()
			return nil, ctx.Err()
		case first:
			time.Sleep(late)
			return []byte("late"), nil
		case !d.heeds:
			return nil, mulligan.Permanent(errors.New("no"))
		}
		return []byte("result"), nil
	}))
	return w.Run(ctx)
}
