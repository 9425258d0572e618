package crash

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// downlog is a downstream with a log of its own: what it did, by key. One that
// honours keys answers a repeated key with its first answer and does nothing.
type downlog struct {
	honours bool

	mu    sync.Mutex
	did   map[string]int    // effects by key
	keys  map[string]int    // calls by key
	spoke map[string]string // answers by key
}

// do has the effect, unless the key is one it honours and knows.
func (p *downlog) do(key string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys[key]++
	if answer, known := p.spoke[key]; known && p.honours {
		return answer
	}
	p.did[key]++
	p.spoke[key] = fmt.Sprintf("%s, the %d. time", key, p.did[key])
	return p.spoke[key]
}

// calls is the most calls that one of the keys has had.
func (p *downlog) calls(keys []string) (most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range keys {
		most = max(most, p.keys[key])
	}
	return most
}

func (p *downlog) effects(key string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.did[key]
}

// deed is what a handler does: once, or in steps, with a mishap at its first
// attempt.
type deed struct {
	effect mulligan.Effect
	steps  []string // empty: the whole job is one effect
	mishap string   // none, not started, timeout after the effect
}

func (d deed) String() string {
	how := "in one go"
	if len(d.steps) > 0 {
		how = fmt.Sprintf("in %d steps", len(d.steps))
	}
	return fmt.Sprintf("%s, %s, %s", d.effect, how, d.mishap)
}

func deeds() (all []deed) {
	for _, effect := range []mulligan.Effect{mulligan.Keyed, mulligan.Once} {
		for _, steps := range [][]string{nil, {"charge", "mail"}} {
			for _, mishap := range []string{"no mishap", "not started", "timeout after the effect"} {
				all = append(all, deed{effect, steps, mishap})
			}
		}
	}
	return all
}

// parts are the keys under which the downstream sees the job's effects.
func (d deed) parts(job *mulligan.Job) (keys []string) {
	if len(d.steps) == 0 {
		return []string{job.Key()}
	}
	for _, s := range d.steps {
		keys = append(keys, job.StepKey(s))
	}
	return keys
}

// scene is where deeds are done.
type scene struct {
	*natstest.Env
	*fate
	deed deed
	kind mulligan.Kind
	pub  *mulligan.Publisher
	down *downlog
}

func deedTales() (all []tale) {
	for _, d := range deeds() {
		all = append(all, tale{d.String(), func(t *testing.T, e *natstest.Env, b *book) {
			e.Provision(t, mulligan.Topology{})
			kind := mulligan.Kind{Name: "deed." + string(d.effect), Effect: d.effect, Policy: mulligan.Policy{Total: time.Minute}}
			s := &scene{Env: e, fate: &fate{book: b, deaf: starts}, deed: d, kind: kind, pub: &mulligan.Publisher{Conn: e.Conn, Kinds: []mulligan.Kind{kind}},
				down: &downlog{honours: d.effect == mulligan.Keyed, did: map[string]int{}, keys: map[string]int{}, spoke: map[string]string{}}}
			while(t, func() {
				s.lives(t, 2, func(id string) (int, bool) { return s.play(t, id) })
			}, &service{fate: s.fate, run: s.work},
				&service{fate: s.fate, run: func(ctx context.Context) error { return (&scheduler.Scheduler{Conn: e.Conn}).Run(ctx) }})
		}})
	}
	return all
}

// play lets one job live until it is done, with a person who resolves it should
// it end in doubt.
func (s *scene) play(t *testing.T, id string) (runs int, doubt bool) {
	t.Helper()
	job := mulligan.Job{Kind: s.kind.Name, ID: id, Payload: []byte("payload of " + id)}
	if _, err := s.pub.Publish(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	s.Accept(job.Kind, job.ID)
	st := rest(t, s.Env, s.pub, job)
	for range 5 { // a doubt for each step, and one for each crash
		if st.State == mulligan.StatusDone {
			break
		}
		if doubt = true; s.deed.effect != mulligan.Once || st.State != mulligan.StatusDead || st.Record.Reason != mulligan.InDoubt {
			t.Fatalf("job %s is %s: %+v; crashes at %v", id, st.State, st.Record, s.ends())
		}
		s.resolve(t, job, st.Record)
		st = rest(t, s.Env, s.pub, job)
	}
	s.check(t, job, st)
	if s.deed.effect == mulligan.Once { // how often it is run is no matter: its effects are checked
		return 0, doubt
	}
	return s.down.calls(s.deed.parts(&job)), doubt
}

// check compares what the record says with the downstream's own log.
func (s *scene) check(t *testing.T, job mulligan.Job, st mulligan.Status) {
	t.Helper()
	if st.State != mulligan.StatusDone {
		t.Fatalf("job %s is %s: %+v", job.ID, st.State, st.Record)
	}
	for _, key := range s.deed.parts(&job) {
		if n := s.down.effects(key); n != 1 {
			t.Errorf("job %s: %d effects under %s, want 1; record %+v", job.ID, n, key, st.Record)
		}
	}
	if n := letters(t, s.Env); n != 0 {
		t.Errorf("job %s is done and %d letters are left", job.ID, n)
	}
}

// resolve is a person who has looked into the downstream's log.
func (s *scene) resolve(t *testing.T, job mulligan.Job, r *mulligan.Record) {
	t.Helper()
	sched := &scheduler.Scheduler{Conn: s.Conn}
	if _, err := sched.Replay(t.Context(), job.Kind, job.ID); !errors.Is(err, mulligan.ErrInDoubt) {
		t.Fatalf("a letter in doubt was replayed: %v", err)
	}
	var err error
	step := r.OpenStep()
	switch {
	case step != nil && s.down.effects(job.StepKey(step.Name)) > 0:
		_, err = sched.ResolveStepDone(t.Context(), job.Kind, job.ID, scheduler.StepDone{Name: step.Name, Result: []byte(`"by hand"`)})
	case step == nil && len(s.deed.steps) == 0 && s.down.effects(job.Key()) > 0:
		err = sched.ResolveDone(t.Context(), job.Kind, job.ID, []byte("by hand"))
	default:
		_, err = sched.ResolveNotDone(t.Context(), job.Kind, job.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *scene) work(ctx context.Context) error {
	w := &consumer.Worker{Conn: s.Conn, Concurrency: 4}
	w.Handle(s.kind, mulligan.HandlerFunc(func(ctx context.Context, job *mulligan.Job) ([]byte, error) {
		if len(s.deed.steps) == 0 {
			answer, err := s.once(job, job.Key())
			return []byte(answer), err
		}
		for _, name := range s.deed.steps {
			if _, err := mulligan.Step(ctx, job, name, func(context.Context) (string, error) { return s.once(job, job.StepKey(name)) }); err != nil {
				return nil, err
			}
		}
		return []byte("all done"), nil
	}))
	return w.Run(ctx)
}

// once has the effect behind one key, with the deed's mishap at the first attempt.
func (s *scene) once(job *mulligan.Job, key string) (string, error) {
	if job.Attempt == 1 && s.deed.mishap == "not started" {
		return "", mulligan.NotStarted(errors.New("refused"))
	}
	answer := s.down.do(key)
	if job.Attempt == 1 && s.deed.mishap == "timeout after the effect" {
		return "", mulligan.Typed("timeout", context.DeadlineExceeded)
	}
	return answer, nil
}
