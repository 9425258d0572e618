package budget_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/internal/call"
)

// tasks opens the budgets over a connection of its own, as one worker does.
func (f *floor) tasks(t *testing.T) *budget.Tasks {
	t.Helper()
	tasks, err := budget.OpenTasks(t.Context(), f.JS, f.Topology)
	if err != nil {
		t.Fatal(err)
	}
	return tasks
}

func (f *floor) books(t *testing.T) *budget.Books {
	t.Helper()
	b, err := budget.OpenBooks(t.Context(), f.JS, f.Topology)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestATaskNeverHasMoreRetriesThanItMay(t *testing.T) {
	bubble(t, func(t *testing.T, f *floor) {
		const workers, asks, limit = 4, 20, 7
		var granted atomic.Int32
		var all sync.WaitGroup
		for w := range workers {
			tasks := f.tasks(t)
			all.Go(func() {
				for i := range asks {
					// Some count twice: theirs was a changed payload.
					ask := budget.TaskAsk{Task: "run 7", Retries: 1 + (w+i)%2, Limit: limit}
					ok, err := tasks.Take(t.Context(), ask)
					if err != nil {
						t.Error(err)
					}
					if ok {
						granted.Add(int32(ask.Retries))
					}
				}
			})
		}
		all.Wait()
		s, err := f.books(t).Task(t.Context(), "run 7")
		if err != nil || int(granted.Load()) != limit || s.Used != limit || s.Denied == 0 {
			t.Errorf("%d granted of %d, the bucket has %+v, %v", granted.Load(), limit, s, err)
		}
	})
}

func TestARetryGivenBackIsTheTasksAgain(t *testing.T) {
	bubble(t, func(t *testing.T, f *floor) {
		tasks, ask := f.tasks(t), budget.TaskAsk{Task: "t", Retries: 2, Limit: 2}
		for i, want := range []bool{true, false} {
			if ok, err := tasks.Take(t.Context(), ask); ok != want || err != nil {
				t.Errorf("ask %d: %v, %v", i, ok, err)
			}
		}
		if err := tasks.Back(t.Context(), ask); err != nil {
			t.Fatal(err)
		}
		if ok, err := tasks.Take(t.Context(), ask); !ok || err != nil {
			t.Errorf("after it was given back: %v, %v", ok, err)
		}
	})
}

func TestEachJobSaysHowManyRetriesItsTaskMayHaveHad(t *testing.T) {
	bubble(t, func(t *testing.T, f *floor) {
		tasks := f.tasks(t)
		for i, tt := range []struct {
			limit int
			want  bool
		}{{1, true}, {1, false}, {3, true}, {3, true}, {3, false}, {1, false}} {
			if ok, err := tasks.Take(t.Context(), budget.TaskAsk{Task: "t", Retries: 1, Limit: tt.limit}); ok != tt.want || err != nil {
				t.Errorf("ask %d with a limit of %d: %v, %v; want %v", i, tt.limit, ok, err, tt.want)
			}
		}
	})
}

func TestATaskIsRememberedForLongerThanAnyJobOfItMayLive(t *testing.T) {
	bubble(t, func(t *testing.T, f *floor) {
		if ok, err := f.tasks(t).Take(t.Context(), budget.TaskAsk{Task: "t", Retries: 1, Limit: 5}); !ok || err != nil {
			t.Fatal(ok, err)
		}
		s, err := f.JS.Stream(t.Context(), "KV_"+f.Topology.BudgetBucket())
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.GetLastMsgForSubject(t.Context(), "$KV."+f.Topology.BudgetBucket()+".task.t")
		if err != nil {
			t.Fatal(err)
		}
		if ttl, err := time.ParseDuration(m.Header.Get(jetstream.MsgTTLHeader)); err != nil || ttl <= mulligan.MaxDeadline || ttl > 2*mulligan.MaxDeadline {
			t.Errorf("it is kept for %v, %v; a job may live for %v", ttl, err, mulligan.MaxDeadline)
		}
	})
}

func TestAResetGivesABudgetBackWhole(t *testing.T) {
	bubble(t, func(t *testing.T, f *floor) {
		tasks, books, users := f.tasks(t), f.books(t), f.users(t, budget.Rate{PerSecond: 1, Burst: 1})
		for range 3 {
			take(t, users, "ada")
			if _, err := tasks.Take(t.Context(), budget.TaskAsk{Task: "t", Retries: 1, Limit: 1}); err != nil {
				t.Fatal(err)
			}
		}
		if s, err := books.User(t.Context(), "ada"); err != nil || s.Granted != 1 || s.Reserved != 2 {
			t.Errorf("ada has %+v, %v", s, err)
		}
		if err := books.ResetUser(t.Context(), "ada"); err != nil {
			t.Error(err)
		}
		if err := books.ResetTask(t.Context(), "t"); err != nil {
			t.Error(err)
		}
		if ok, err := tasks.Take(t.Context(), budget.TaskAsk{Task: "t", Retries: 1, Limit: 1}); !ok || err != nil {
			t.Errorf("the task after its reset: %v, %v", ok, err)
		}
		if p := take(t, users, "ada"); p.At.After(time.Now()) {
			t.Errorf("after her reset ada has a place at %v", p.At)
		}
		if s, err := books.User(t.Context(), "nobody"); err != nil || s != (budget.UserState{}) {
			t.Errorf("one who never retried has %+v, %v", s, err)
		}
	})
}

// Also if another asks before it looks again.
func TestAnAskWhoseAnswerIsLostCountsOnce(t *testing.T) {
	for _, tt := range []struct {
		name string
		step string
		ask  func(ctx context.Context, t *testing.T, f *floor, js jetstream.JetStream) error
		is   func(t *testing.T, f *floor) (used int)
	}{
		{"a task", "task.store", func(ctx context.Context, t *testing.T, f *floor, js jetstream.JetStream) error {
			tasks, err := budget.OpenTasks(ctx, js, f.Topology)
			if err != nil {
				return err
			}
			granted, err := tasks.Take(ctx, budget.TaskAsk{Task: "t", Retries: 1, Limit: 5})
			if !granted {
				t.Error("it was not granted")
			}
			return err
		}, func(t *testing.T, f *floor) int {
			s, err := f.books(t).Task(t.Context(), "t")
			if err != nil {
				t.Fatal(err)
			}
			return s.Used
		}},
		{"a user", "budget.store", func(ctx context.Context, t *testing.T, f *floor, js jetstream.JetStream) error {
			users, err := budget.Open(ctx, js, f.Topology, budget.Rate{})
			if err != nil {
				return err
			}
			now := time.Now()
			place, err := users.Take(ctx, "u", now, now.Add(time.Hour))
			if place.Denied || !place.At.Equal(now) {
				t.Errorf("got %+v, want its place at once", place)
			}
			return err
		}, func(t *testing.T, f *floor) int {
			s, err := f.books(t).User(t.Context(), "u")
			if err != nil {
				t.Fatal(err)
			}
			return s.Granted
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *floor) {
				var deaf atomic.Bool
				js, err := jetstream.New(f.DialDeaf(t, &deaf))
				if err != nil {
					t.Fatal(err)
				}
				stores := 0
				ctx := call.With(t.Context(), func(point string) {
					switch point {
					case tt.step + " before":
						deaf.Store(stores == 0)
					case tt.step + " after":
						if deaf.Store(false); stores == 0 { // another asks
							if err := tt.ask(t.Context(), t, f, f.JS); err != nil {
								t.Error(err)
							}
						}
						stores++
					}
				})
				if err := tt.ask(ctx, t, f, js); err != nil {
					t.Error(err)
				}
				if used := tt.is(t, f); stores != 1 || used != 2 {
					t.Errorf("%d stores, %d used; want one, and one for each who asked", stores, used)
				}
			})
		})
	}
}
