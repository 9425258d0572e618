package crash

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// A story is one job's life, told by what its handler answers.
type story struct {
	name   string
	job    mulligan.Job
	answer func(attempt int, age time.Duration, replayed bool) error
	dies   mulligan.Reason // why it is dead in the end; empty if it is done
	twice  time.Duration   // when a stranger publishes it again; zero for never. Both run if they are due together
	later  time.Duration   // how long it is not to be run
	replay bool
	keyed  bool // it is the same for a pure job, which has a record as soon as it fails
}

func stories() []story {
	flaky := errors.New("flaky")
	fails := func(errs ...error) func(int, time.Duration, bool) error {
		return func(attempt int, _ time.Duration, _ bool) error { return errs[min(attempt, len(errs))-1] }
	}
	return []story{
		{name: "fails, is nak'd, is parked, recovers", job: mulligan.Job{User: "ada", TaskRetries: 5}, answer: fails(flaky, mulligan.After(3*time.Second, flaky), nil)},
		{keyed: true, name: "has a user who waits for a place", job: mulligan.Job{User: "bob"}, answer: fails(flaky, flaky, nil)},
		{keyed: true, name: "spends its task's retries", job: mulligan.Job{TaskRetries: 1}, dies: mulligan.TaskBudget, answer: fails(flaky)},
		{name: "dies, is buried, is replayed, succeeds", replay: true, answer: func(_ int, _ time.Duration, replayed bool) error {
			if replayed {
				return nil
			}
			return mulligan.Permanent(flaky)
		}},
		{keyed: true, name: "snoozes, then fails for good", dies: mulligan.PermanentFailure, answer: func(_ int, age time.Duration, _ bool) error {
			if age < 2*time.Second {
				return mulligan.Snooze(3 * time.Second)
			}
			return mulligan.Permanent(flaky)
		}},
		{name: "is published for later", later: 3 * time.Second, answer: fails(nil)},
		{name: "is published again while its retry is parked", twice: time.Second, answer: fails(mulligan.After(3*time.Second, flaky), nil)},
	}
}

// stage is where stories are told.
type stage struct {
	*natstest.Env
	*fate
	story story
	kind  mulligan.Kind
	pub   *mulligan.Publisher

	mu       sync.Mutex
	runs     map[string]int
	oks      map[string]int
	replayed map[string]bool
	born     map[string]time.Time
}

func jobTales() (all []tale) {
	for _, effect := range []mulligan.Effect{mulligan.Pure, mulligan.Keyed} {
		for _, st := range stories() {
			if st.keyed && effect == mulligan.Pure {
				continue
			}
			all = append(all, tale{fmt.Sprintf("a %s job that %s", effect, st.name), func(t *testing.T, e *natstest.Env, b *book) {
				e.Provision(t, mulligan.Topology{})
				kind := mulligan.Kind{Name: "story." + string(effect), Effect: effect}
				s := &stage{Env: e, fate: &fate{book: b, deaf: starts, prompt: st.twice > 0}, story: st, kind: kind, pub: &mulligan.Publisher{Conn: e.Conn, Kinds: []mulligan.Kind{kind}},
					runs: map[string]int{}, oks: map[string]int{}, replayed: map[string]bool{}, born: map[string]time.Time{}}
				while(t, func() {
					s.lives(t, 2, func(id string) (int, bool) { return s.live(t, id), false })
				}, &service{fate: s.fate, run: s.work}, s.scheduler())
			}})
		}
	}
	return all
}

func (s *stage) scheduler() *service {
	return &service{fate: s.fate, run: func(ctx context.Context) error { return (&scheduler.Scheduler{Conn: s.Conn}).Run(ctx) }}
}

// live lets one job live until it has ended, and checks how.
func (s *stage) live(t *testing.T, id string) (runs int) {
	t.Helper()
	job := s.story.job
	job.Kind, job.ID, job.Payload = s.kind.Name, id, []byte("payload of "+id)
	if job.User != "" {
		job.User += id
	}
	if job.TaskRetries > 0 {
		job.Task = id
	}
	if s.story.later > 0 {
		job.NotBefore = time.Now().Add(s.story.later)
	}
	s.mu.Lock()
	s.born[id] = time.Now()
	s.mu.Unlock()
	if _, err := s.pub.Publish(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	if s.story.twice > 0 {
		time.Sleep(s.story.twice)
		if _, err := s.JS.Publish(t.Context(), mulligan.Subject(s.Topology.JobsRoot(), job.Kind, mulligan.Token(id)), job.Payload); err != nil {
			var api *jetstream.APIError // the first is still there, after a crash
			if !errors.As(err, &api) {
				t.Fatal(err)
			}
		}
	}
	want := mulligan.StatusDone
	if s.story.replay {
		s.await(t, job, mulligan.StatusDead)
		s.mu.Lock()
		s.replayed[id] = true
		s.mu.Unlock()
		s.replay(t, job)
	}
	if s.story.dies != "" {
		want = mulligan.StatusDead
	}
	st := s.await(t, job, want)
	if n := s.letters(t); want == mulligan.StatusDone && n != 0 {
		t.Errorf("job %s is done and %d letters are left", id, n)
	}
	if want == mulligan.StatusDead {
		s.bin(t, job, st.Record)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs[id]
}

func (s *stage) work(ctx context.Context) error {
	w := &consumer.Worker{Conn: s.Conn, Concurrency: 4, UserRate: budget.Rate{Burst: 1}}
	w.Handle(s.kind, mulligan.HandlerFunc(func(_ context.Context, job *mulligan.Job) ([]byte, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.runs[job.ID]++
		if string(job.Payload) != "payload of "+job.ID {
			return nil, fmt.Errorf("payload %q", job.Payload)
		}
		err := s.story.answer(job.Attempt, time.Since(s.born[job.ID]), s.replayed[job.ID])
		if err == nil {
			s.oks[job.ID]++
		}
		return []byte("result"), err
	}))
	return w.Run(ctx)
}

// await waits until no message of the job is left, and checks how it ended.
func (s *stage) await(t *testing.T, job mulligan.Job, want string) mulligan.Status {
	t.Helper()
	st := rest(t, s.Env, s.pub, job)
	s.mu.Lock()
	oks := s.oks[job.ID]
	s.mu.Unlock()
	pureDone := st.State == mulligan.StatusUnknown && oks > 0
	if st.State != want && !(want == mulligan.StatusDone && pureDone) {
		t.Fatalf("job %s is %s with nothing left in the streams, want %s; crashes at %v; record %+v", job.ID, st.State, want, s.ends(), st.Record)
	}
	return st
}

// rest waits until no message is left that is to be moved, and says where a job
// is then.
func rest(t *testing.T, e *natstest.Env, pub *mulligan.Publisher, job mulligan.Job) mulligan.Status {
	t.Helper()
	began := time.Now()
	for wait := time.Second; time.Since(began) < 3*time.Hour; wait = min(2*wait, 4*time.Second) {
		time.Sleep(wait)
		if e.Held(t) > 0 {
			continue
		}
		st, err := pub.Status(t.Context(), job.Kind, job.ID)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	t.Fatalf("job %s does not end: %+v", job.ID, e.Account(t))
	return mulligan.Status{}
}

// letters counts the dead letters.
func (s *stage) letters(t *testing.T) uint64 { return letters(t, s.Env) }

func letters(t *testing.T, e *natstest.Env) uint64 {
	t.Helper()
	dead, err := e.JS.Stream(t.Context(), e.Topology.DeadStream())
	if err != nil {
		t.Fatal(err)
	}
	return dead.CachedInfo().State.Msgs
}

// replay replays the job's letter until it is gone, in a process that may crash. It
// is refused while the key is queued: what a scheduler had in hand that crashed comes
// back after AckWait.
func (s *stage) replay(t *testing.T, job mulligan.Job) {
	t.Helper()
	for began := time.Now(); time.Since(began) < 2*mulligan.AckWait; {
		err := s.again(t, func(ctx context.Context) error {
			_, err := (&scheduler.Scheduler{Conn: s.Conn}).Replay(ctx, job.Kind, job.ID)
			return err
		})
		if err == nil || errors.Is(err, mulligan.ErrNotFound) {
			return
		}
		if !errors.Is(err, scheduler.ErrQueued) {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
	t.Fatalf("the letter of %s could not be replayed", job.ID)
}

// bin checks that the job's letter and its record agree, and deletes the letter,
// so that the next story starts with none.
func (s *stage) bin(t *testing.T, job mulligan.Job, r *mulligan.Record) {
	t.Helper()
	l, err := (&scheduler.Scheduler{Conn: s.Conn}).Letter(t.Context(), job.Kind, job.ID)
	if err != nil || string(l.Payload) != string(job.Payload) || l.Reason != s.story.dies || len(l.History) == 0 ||
		r == nil || l.Reason != r.Reason || l.Attempts != r.Attempts {
		t.Errorf("letter %+v, %v; record %+v", l, err, r)
	}
	dead, err := s.JS.Stream(t.Context(), s.Topology.DeadStream())
	if err == nil {
		err = dead.DeleteMsg(t.Context(), l.Seq)
	}
	if err != nil {
		t.Error(err)
	}
}
