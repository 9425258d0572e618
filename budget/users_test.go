package budget_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// floor is a server with the budgets' bucket.
type floor struct {
	*natstest.Env
	kv jetstream.KeyValue
}

func bubble(t *testing.T, do func(t *testing.T, f *floor)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &floor{Env: natstest.InBubble(t)}
		f.Provision(t, mulligan.Topology{})
		var err error
		if f.kv, err = f.JS.KeyValue(t.Context(), f.Topology.BudgetBucket()); err != nil {
			t.Fatal(err)
		}
		do(t, f)
	})
}

// users opens the budgets over a connection of its own, as one worker does.
func (f *floor) users(t *testing.T, rate budget.Rate) *budget.Users {
	t.Helper()
	js, err := jetstream.New(f.Dial(t))
	if err != nil {
		t.Fatal(err)
	}
	u, err := budget.Open(t.Context(), js, f.Topology, rate)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (f *floor) state(t *testing.T, user string) budget.UserState {
	t.Helper()
	e, err := f.kv.Get(t.Context(), "user."+mulligan.Token(user))
	if err != nil {
		t.Fatal(err)
	}
	var s budget.UserState
	if err := json.Unmarshal(e.Value(), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// take takes a place for a retry that is due now.
func take(t *testing.T, u *budget.Users, user string) budget.Place {
	t.Helper()
	now := time.Now()
	p, err := u.Take(t.Context(), user, now, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTwoWorkersNeverGiveAUserMoreThanTheRate(t *testing.T) {
	const takers, burst = 200, 10
	bubble(t, func(t *testing.T, f *floor) {
		rate := budget.Rate{PerSecond: 1, Burst: burst}
		workers := []*budget.Users{f.users(t, rate), f.users(t, rate)}
		var stores atomic.Int64
		ctx := call.With(t.Context(), func(point string) {
			if strings.HasSuffix(point, ".store before") {
				stores.Add(1)
			}
		})
		began := time.Now()
		places := make([]budget.Place, takers)
		var done sync.WaitGroup
		for i := range places {
			done.Go(func() {
				var err error
				if places[i], err = workers[i%2].Take(ctx, "ada", began, began.Add(time.Hour)); err != nil {
					t.Error(err)
				}
			})
		}
		done.Wait()
		slices.SortFunc(places, func(a, b budget.Place) int { return a.At.Compare(b.At) })
		if at := places[burst-1].At; at.Sub(began) > time.Second {
			t.Errorf("the burst's last place is %v after the first", at.Sub(began))
		}
		for i := burst; i < takers; i++ {
			if gap := places[i].At.Sub(places[i-1].At); gap < time.Second-time.Millisecond || places[i].Denied {
				t.Fatalf("places %d and %d of a user with one a second are %v apart: %+v", i-1, i, gap, places[i])
			}
		}
		if s := f.state(t, "ada"); s.Granted+s.Reserved != takers || s.Denied != 0 || s.Granted > burst+1 {
			t.Errorf("counted %+v for %d places, of them a burst of %d", s, takers, burst)
		}
		if n := stores.Load(); n > takers/4 {
			t.Errorf("%d retries waiting together took %d writes", takers, n)
		}
	})
}

func TestUsersAreInNobodysWay(t *testing.T) {
	bubble(t, func(t *testing.T, f *floor) {
		u := f.users(t, budget.Rate{PerSecond: 1, Burst: 1})
		for range 50 {
			take(t, u, "eager")
		}
		for _, user := range []string{"ada", "ada lovelace", "eager.too"} {
			if p := take(t, u, user); p.Denied || p.At.After(time.Now()) {
				t.Errorf("the first retry of %s has its place at %v, want now", user, p.At)
			}
		}
	})
}

func TestASlowAnswerIsNoDeferral(t *testing.T) {
	bubble(t, func(t *testing.T, f *floor) {
		u := f.users(t, budget.Rate{PerSecond: 1, Burst: 2})
		due := time.Now().Add(-300 * time.Millisecond) // it has passed while the bucket was asked
		if p, err := u.Take(t.Context(), "ada", due, due.Add(time.Hour)); err != nil || !p.At.Equal(due) {
			t.Errorf("got %+v, %v; want the time that was asked for", p, err)
		}
		if s := f.state(t, "ada"); s.Granted != 1 || s.Reserved != 0 {
			t.Errorf("counted %+v, want it granted", s)
		}
	})
}

func TestARetryPastItsDeadlineIsDenied(t *testing.T) {
	bubble(t, func(t *testing.T, f *floor) {
		u := f.users(t, budget.Rate{PerSecond: 1, Burst: 2})
		take(t, u, "ada")
		take(t, u, "ada")
		now := time.Now()
		if p, err := u.Take(t.Context(), "ada", now, now.Add(500*time.Millisecond)); err != nil || !p.Denied {
			t.Errorf("got %+v, %v; want it denied", p, err)
		}
		if s := f.state(t, "ada"); s.Granted != 2 || s.Denied != 1 || s.Reserved != 0 {
			t.Errorf("counted %+v, want 2 granted and 1 denied", s)
		}
	})
}

// answer is what one who waits was told, and when.
type answer struct {
	place budget.Place
	err   error
	after time.Duration
}

// crowd lets several take a place of one user, the first of them to lead, each
// with a time to wait; zero is without end. It returns once all do wait.
func (f *floor) crowd(t *testing.T, u *budget.Users, patience ...time.Duration) (answers []answer, wait func()) {
	t.Helper()
	answers = make([]answer, len(patience))
	var done sync.WaitGroup
	began := time.Now()
	for i, p := range patience {
		done.Go(func() {
			ctx := t.Context()
			if p > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, p)
				defer cancel()
			}
			place, err := u.Take(ctx, "ada", began, began.Add(time.Hour))
			answers[i] = answer{place, err, time.Since(began)}
		})
		time.Sleep(time.Millisecond) // so that they come in this order
	}
	return answers, done.Wait
}

func TestOneWhoGivesUpLeavesTheOthersWaiting(t *testing.T) {
	const never = 0
	for _, tt := range []struct {
		name     string
		patience []time.Duration
	}{
		{"the one who leads gives up", []time.Duration{3 * time.Second, never, never}},
		{"the one who leads and the next give up at once", []time.Duration{3 * time.Second, 3 * time.Second, never}},
		{"each one who comes to lead gives up", []time.Duration{1 * time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second, never}},
		{"one in the middle gives up first", []time.Duration{8 * time.Second, 2 * time.Second, never}},
		{"the last one gives up first", []time.Duration{never, 5 * time.Second, 2 * time.Second}},
		{"all give up", []time.Duration{1 * time.Second, 1 * time.Second, 2 * time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *floor) {
				u := f.users(t, budget.Rate{PerSecond: 1, Burst: 10})
				f.Down()
				answers, wait := f.crowd(t, u, tt.patience...)
				time.Sleep(20 * time.Second)
				f.Restart(t)
				wait()
				for i, p := range tt.patience {
					switch got := answers[i]; {
					case p == never && (got.err != nil || got.place.Denied):
						t.Errorf("retry %d, which waits on, got %+v, %v after %v", i, got.place, got.err, got.after)
					case p != never && !errors.Is(got.err, context.DeadlineExceeded):
						t.Errorf("retry %d, which gives up after %v, got %+v, %v", i, p, got.place, got.err)
					case p != never && (got.after < p || got.after > p+500*time.Millisecond):
						t.Errorf("retry %d gave up after %v, want %v", i, got.after, p)
					}
				}
				if p := take(t, u, "ada"); p.Denied {
					t.Errorf("the next retry got %+v", p)
				}
			})
		})
	}
}

func TestOneWhoHasGivenUpBeforeAskingTakesNoPlace(t *testing.T) {
	bubble(t, func(t *testing.T, f *floor) {
		u := f.users(t, budget.Rate{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 20 { // it may come to lead, or not
			if _, err := u.Take(ctx, "ada", time.Now(), time.Now().Add(time.Hour)); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v", err, context.Canceled)
			}
		}
		if p := take(t, u, "ada"); p.At.After(time.Now()) || f.state(t, "ada").Granted != 1 {
			t.Errorf("the next retry got %+v, counted %+v", p, f.state(t, "ada"))
		}
	})
}

func TestAUserWhoRetriesNoMoreIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, f *floor) {
		u := f.users(t, budget.Rate{PerSecond: 0.1, Burst: 1})
		take(t, u, "ada")
		take(t, u, "ada")
		time.Sleep(50 * time.Minute)
		if s := f.state(t, "ada"); s.Granted != 1 || s.Reserved != 1 {
			t.Errorf("after 50 minutes: %+v, want it remembered", s)
		}
		time.Sleep(15 * time.Minute)
		if e, err := f.kv.Get(t.Context(), "user.ada"); !errors.Is(err, jetstream.ErrKeyNotFound) {
			t.Errorf("after more than an hour: got %+v, %v, want it gone", e, err)
		}
		if p := take(t, u, "ada"); p.At.After(time.Now()) {
			t.Errorf("the first retry after that has its place at %v, want now", p.At)
		}
		if s := f.state(t, "ada"); s.Granted != 1 || s.Reserved != 0 {
			t.Errorf("counted %+v, want them from the beginning", s)
		}
		time.Sleep(3 * time.Hour) // past the marker of the expiry too
		take(t, u, "ada")
	})
}

func TestAValueThatIsNotOneOfOursIsAFreshAllowance(t *testing.T) {
	bubble(t, func(t *testing.T, f *floor) {
		for i, garbage := range []string{"", "garbage", "[]", `{"whole":"never","granted":7}`, `{"granted":"many"}`, "null", "\x00"} {
			user := fmt.Sprint("user-", i)
			if _, err := f.kv.Put(t.Context(), "user."+user, []byte(garbage)); err != nil {
				t.Fatal(err)
			}
			u := f.users(t, budget.Rate{PerSecond: 1, Burst: 2})
			at := []time.Time{take(t, u, user).At, take(t, u, user).At, take(t, u, user).At}
			if s := f.state(t, user); s.Granted != 2 || s.Reserved != 1 || at[2].Sub(at[0]) < time.Second-time.Millisecond {
				t.Errorf("over %q: counted %+v and placed at %v, want a burst of two and one reserved", garbage, s, at)
			}
		}
	})
}

func TestABadRateOrABucketThatIsMissingIsAnError(t *testing.T) {
	e := natstest.Server(t)
	if _, err := budget.Open(t.Context(), e.JS, mulligan.Topology{}, budget.Rate{}); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("without a bucket: got %v", err)
	}
	e.Provision(t, mulligan.Topology{})
	if _, err := budget.Open(t.Context(), e.JS, mulligan.Topology{}, budget.Rate{Burst: -1}); err == nil {
		t.Error("a rate with a negative burst was taken")
	}
}
