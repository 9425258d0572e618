package crash

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// A story is one job's life, told by what its handler answers. It is told once
// without a crash, which numbers the points before and after every network call
// and handler, and then once for each point with a crash exactly there.
type story struct {
	name   string
	job    mulligan.Job
	answer func(attempt int, age time.Duration, replayed bool) error
	twice  time.Duration // when it is published again; zero for never
	later  time.Duration // how long it is not to be run
	replay bool
}

func stories() []story {
	flaky := errors.New("flaky")
	return []story{
		{name: "fails, is nak'd, is parked, recovers", job: mulligan.Job{User: "ada"}, answer: func(attempt int, _ time.Duration, _ bool) error {
			return []error{flaky, mulligan.After(3*time.Second, flaky), nil}[min(attempt-1, 2)]
		}},
		{name: "dies, is buried, is replayed, succeeds", replay: true, answer: func(_ int, _ time.Duration, replayed bool) error {
			if replayed {
				return nil
			}
			return mulligan.Permanent(flaky)
		}},
		{name: "snoozes, then fails for good", answer: func(_ int, age time.Duration, _ bool) error {
			if age < 2*time.Second {
				return mulligan.Snooze(3 * time.Second)
			}
			return mulligan.Permanent(flaky)
		}},
		{name: "is published for later", later: 3 * time.Second, answer: func(int, time.Duration, bool) error { return nil }},
		{name: "is published again while its retry is parked", twice: time.Second, answer: func(attempt int, _ time.Duration, _ bool) error {
			if attempt == 1 {
				return mulligan.After(3*time.Second, flaky)
			}
			return nil
		}},
	}
}

// stage is where stories are told: one server for all of them.
type stage struct {
	*natstest.Env
	kind mulligan.Kind
	pub  *mulligan.Publisher

	mu       sync.Mutex
	runs     map[string]int
	oks      map[string]int
	replayed map[string]bool
	born     map[string]time.Time
}

func TestACrashAtEveryStepLosesNothingAndCostsAtMostOneRun(t *testing.T) {
	for _, effect := range []mulligan.Effect{mulligan.Pure, mulligan.Keyed} {
		for _, st := range stories() {
			t.Run(fmt.Sprintf("a %s job that %s", effect, st.name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := natstest.InBubble(t)
					e.Provision(t, mulligan.Topology{})
					kind := mulligan.Kind{Name: "story." + string(effect), Effect: effect}
					s := &stage{Env: e, kind: kind, pub: &mulligan.Publisher{Conn: e.Conn, Kinds: []mulligan.Kind{kind}},
						runs: map[string]int{}, oks: map[string]int{}, replayed: map[string]bool{}, born: map[string]time.Time{}}
					var points []string
					s.tell(t, st, "whole", func(p string) bool { points = append(points, p); return false })
					if len(points) < 6 {
						t.Fatalf("only %d points: %v", len(points), points)
					}
					base := s.runs["whole"]
					for i := range points {
						id, n := fmt.Sprintf("crash-%d", i), 0
						at := ""
						s.tell(t, st, id, func(p string) bool {
							if n++; n != i+1 {
								return false
							}
							at = p
							return true
						})
						if s.runs[id] > base+1 {
							t.Errorf("a crash at %q (point %d) cost %d runs, %d without it", at, i, s.runs[id], base)
						}
					}
					t.Logf("%d points, %d runs without a crash: %v", len(points), base, slices.Compact(slices.Sorted(slices.Values(points))))
				})
			})
		}
	}
}

// tell lets one job live until it has ended. crash is asked at every point
// whether the process that passes it ends there; another takes its place.
func (s *stage) tell(t *testing.T, st story, id string, crash func(point string) bool) {
	t.Helper()
	job := st.job
	job.Kind, job.ID, job.Payload = s.kind.Name, id, []byte("payload of "+id)
	if st.later > 0 {
		job.NotBefore = time.Now().Add(st.later)
	}
	s.born[id] = time.Now()
	if _, err := s.pub.Publish(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	if st.twice > 0 {
		go func() {
			time.Sleep(st.twice)
			if _, err := s.pub.Publish(t.Context(), job); err != nil {
				t.Error(err)
			}
		}()
	}
	var once sync.Mutex
	hooked := crashing(func(p string) bool {
		once.Lock()
		defer once.Unlock()
		return crash(p)
	})
	worker := func(process context.Context) *consumer.Worker { return s.worker(st, process) }
	processes{s.Conn, worker, hooked}.during(t, func() { s.settle(t, st, job, hooked) })
}

func (s *stage) worker(st story, process context.Context) *consumer.Worker {
	w := &consumer.Worker{Conn: s.Conn, Concurrency: 4}
	w.Handle(s.kind, mulligan.HandlerFunc(func(_ context.Context, job *mulligan.Job) ([]byte, error) {
		return call.Do(process, "handler", func() ([]byte, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.runs[job.ID]++
			if string(job.Payload) != "payload of "+job.ID {
				return nil, fmt.Errorf("payload %q", job.Payload)
			}
			err := st.answer(job.Attempt, time.Since(s.born[job.ID]), s.replayed[job.ID])
			if err == nil {
				s.oks[job.ID]++
			}
			return []byte("result"), err
		})
	}))
	return w
}

// settle waits until nothing of the job is left in a stream, replays it if the
// story says so, and checks how it ended.
func (s *stage) settle(t *testing.T, st story, job mulligan.Job, hooked hooking) {
	t.Helper()
	time.Sleep(st.twice + time.Second)
	want := mulligan.StatusDone
	if st.answer(9, time.Hour, true) != nil {
		want = mulligan.StatusDead
	}
	if st.replay {
		s.await(t, job, mulligan.StatusDead)
		s.mu.Lock()
		s.replayed[job.ID] = true
		s.mu.Unlock()
		s.replay(t, job, hooked)
	}
	s.await(t, job, want)
	c := s.Account(t)
	if letters := c.Dead; want == mulligan.StatusDone && letters != 0 {
		t.Errorf("job %s is done and %d letters are left", job.ID, letters)
	}
	if want == mulligan.StatusDead {
		s.bin(t, job)
	}
}

// await waits until the job is in a state and no message of it is left.
func (s *stage) await(t *testing.T, job mulligan.Job, state string) {
	t.Helper()
	began := time.Now()
	for wait := time.Second; time.Since(began) < 3*time.Hour; wait = wait * 5 / 4 {
		time.Sleep(wait)
		if s.Held(t) > 0 {
			continue
		}
		got, err := s.pub.Status(t.Context(), job.Kind, job.ID)
		if err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		oks := s.oks[job.ID]
		s.mu.Unlock()
		pureDone := got.State == mulligan.StatusUnknown && oks > 0
		if got.State == state || state == mulligan.StatusDone && pureDone {
			return
		}
		t.Fatalf("job %s is %s with nothing left in the streams, want %s; record %+v", job.ID, got.State, state, got.Record)
	}
	t.Fatalf("job %s is not %s after three hours: %+v", job.ID, state, s.Account(t))
}

// replay replays the job's letter until it is gone, in a process that may crash.
func (s *stage) replay(t *testing.T, job mulligan.Job, hooked hooking) {
	t.Helper()
	for range 5 {
		ctx, die := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			defer close(done)
			_, err := (&scheduler.Scheduler{Conn: s.Conn}).Replay(hooked(ctx, die), job.Kind, job.ID)
			done <- err
		}()
		err, ended := <-done
		die()
		if ended && (err == nil || errors.Is(err, mulligan.ErrNotFound)) {
			return
		}
		if ended && !errors.Is(err, scheduler.ErrQueued) {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
	t.Fatalf("the letter of %s could not be replayed", job.ID)
}

// bin checks the job's letter and deletes it, so that the next story starts
// with none.
func (s *stage) bin(t *testing.T, job mulligan.Job) {
	t.Helper()
	l, err := (&scheduler.Scheduler{Conn: s.Conn}).Letter(t.Context(), job.Kind, job.ID)
	if err != nil || string(l.Payload) != string(job.Payload) || l.Reason != mulligan.PermanentFailure || len(l.History) == 0 {
		t.Errorf("letter %+v, %v", l, err)
	}
	dead, err := s.JS.Stream(t.Context(), mulligan.Topology{}.DeadStream())
	if err == nil {
		err = dead.DeleteMsg(t.Context(), l.Seq)
	}
	if err != nil {
		t.Error(err)
	}
}
