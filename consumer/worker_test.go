package consumer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/metrics"
	"github.com/mulligan-queue/mulligan/scheduler"
)

var errFlaky = errors.New("flaky")

// log is what handlers saw: when each job ran, in the bubble's time.
type log struct {
	mu   sync.Mutex
	runs map[string][]time.Time
}

func (l *log) note(id string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.runs == nil {
		l.runs = map[string][]time.Time{}
	}
	l.runs[id] = append(l.runs[id], time.Now())
	return len(l.runs[id])
}

func (l *log) of(id string) []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.runs[id]
}

// floor is a server with a scheduler, and what tests need to publish.
type floor struct {
	*natstest.Env
	pub  *mulligan.Publisher
	kind mulligan.Kind
	log  log
}

func bubble(t *testing.T, kind mulligan.Kind, do func(t *testing.T, f *floor)) {
	synctest.Test(t, func(t *testing.T) {
		e := natstest.InBubble(t)
		e.Provision(t, mulligan.Topology{})
		f := &floor{Env: e, kind: kind, pub: &mulligan.Publisher{Conn: e.Conn, Kinds: []mulligan.Kind{kind}}}
		ctx, end := context.WithCancel(t.Context())
		var sched sync.WaitGroup
		sched.Go(func() {
			if err := (&scheduler.Scheduler{Conn: e.Conn}).Run(ctx); err != nil {
				t.Error(err)
			}
		})
		do(t, f)
		end()
		sched.Wait()
	})
}

// work runs a worker until the returned function is called, which waits for it.
func (f *floor) work(t *testing.T, w *consumer.Worker, h mulligan.HandlerFunc) (stop func()) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	w.Conn = f.Conn
	w.Handle(f.kind, h)
	var done sync.WaitGroup
	done.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	return func() {
		end()
		done.Wait()
	}
}

func (f *floor) publish(t *testing.T, jobs ...mulligan.Job) {
	t.Helper()
	for _, j := range jobs {
		j.Kind = f.kind.Name
		if _, err := f.pub.Publish(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		f.Accept(j.Kind, j.ID)
	}
}

// settled waits until all jobs have ended, for a day at most: while all that a
// downstream is asked fails, its breaker lets a probe through every half a minute.
func (f *floor) settled(t *testing.T, ids ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
	defer cancel()
	for _, id := range ids {
		if _, err := f.pub.Wait(ctx, f.kind.Name, id); err != nil {
			t.Fatalf("job %s: %v", id, err)
		}
	}
}

// ids are n of them, with a prefix.
func ids(prefix string, n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprint(prefix, i))
	}
	return ids
}

func (f *floor) state(t *testing.T, id string) mulligan.Status {
	t.Helper()
	st, err := f.pub.Status(t.Context(), f.kind.Name, id)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

var keyed = mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed}

func TestARetryIsNeverBeforeItsHint(t *testing.T) {
	kind := keyed
	kind.Policy = mulligan.Policy{Total: time.Hour, Attempts: 8}
	bubble(t, kind, func(t *testing.T, f *floor) {
		hint := 2750 * time.Millisecond
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			if f.log.note(j.ID); j.Attempt <= 3 {
				return nil, mulligan.After(hint, errFlaky)
			}
			return nil, nil
		})
		for i := range 20 {
			f.publish(t, mulligan.Job{ID: fmt.Sprint("hinted-", i)})
		}
		f.settled(t, ids("hinted-", 20)...)
		stop()
		for i := range 20 {
			runs := f.log.of(fmt.Sprint("hinted-", i))
			if len(runs) != 4 {
				t.Fatalf("job %d ran %d times, want 4", i, len(runs))
			}
			for n := 1; n < len(runs); n++ {
				if gap := runs[n].Sub(runs[n-1]); gap < hint {
					t.Errorf("job %d: attempt %d came %v after the one before, the hint was %v", i, n+1, gap, hint)
				}
			}
		}
	})
}

func TestAUserOverTheRateComesBackOneByOne(t *testing.T) {
	const jobs, burst = 60, 5
	bubble(t, keyed, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{UserRate: budget.Rate{PerSecond: 2, Burst: burst}}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			if f.log.note(j.ID); j.Attempt == 1 && j.User == "ada" {
				return nil, errFlaky
			}
			if j.User == "ada" {
				f.log.note("retries")
			}
			return nil, nil
		})
		f.publish(t, mulligan.Job{ID: "bob's", User: "bob"}) // so that it is not the downstream which fails
		for i := range jobs {
			f.publish(t, mulligan.Job{ID: fmt.Sprint(i), User: "ada"})
		}
		time.Sleep(5 * time.Minute)
		stop()
		for i := range jobs {
			if n := len(f.log.of(fmt.Sprint(i))); n != 2 {
				t.Errorf("job %d ran %d times, want 2: a deferred job comes back once", i, n)
			}
		}
		retries := f.log.of("retries")
		if len(retries) != jobs {
			t.Fatalf("%d retries, want %d", len(retries), jobs)
		}
		if n := densest(retries, time.Second); n > burst+2+1 { // schedules fire up to a quarter of a second late
			t.Fatalf("%d retries within a second", n)
		}
		if took := retries[jobs-1].Sub(retries[0]); took < 26*time.Second {
			t.Errorf("%d retries took %v at two per second", jobs, took)
		}
		kv, err := f.JS.KeyValue(t.Context(), mulligan.Topology{}.BudgetBucket())
		if err != nil {
			t.Fatal(err)
		}
		if e, err := kv.Get(t.Context(), "user.ada"); err != nil {
			t.Error(err)
		} else {
			t.Logf("%s", e.Value())
		}
	})
}

// densest is how many times lie within a span, at most.
func densest(at []time.Time, span time.Duration) (most int) {
	for i := range at {
		n := 0
		for _, t := range at[i:] {
			if t.Sub(at[i]) < span {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func TestManyRetriesOfOneUserWithOneLongHintComeBackAtTheUsersRate(t *testing.T) {
	const jobs, burst = 60, 5
	kind := keyed
	kind.Policy = mulligan.Policy{Total: time.Hour}
	bubble(t, kind, func(t *testing.T, f *floor) {
		w := &consumer.Worker{UserRate: budget.Rate{PerSecond: 2, Burst: burst}, Concurrency: jobs}
		stop := f.work(t, w, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			if f.log.note(j.ID); j.Attempt == 1 {
				time.Sleep(time.Second) // all have begun before the first is told to wait
				return nil, mulligan.After(30*time.Second, errFlaky)
			}
			f.log.note("retries")
			return nil, nil
		})
		for i := range jobs {
			f.publish(t, mulligan.Job{ID: fmt.Sprint(i), User: "ada"})
		}
		time.Sleep(5 * time.Minute)
		stop()
		for i := range jobs {
			if n := len(f.log.of(fmt.Sprint(i))); n != 2 {
				t.Errorf("job %d ran %d times, want 2", i, n)
			}
			if st := f.state(t, fmt.Sprint(i)); st.Record == nil || len(st.Record.History) > 3 {
				t.Errorf("job %d was deferred more than once: %+v", i, st.Record)
			}
		}
		const late = 250 * time.Millisecond // of schedules
		retries := f.log.of("retries")
		for _, span := range []time.Duration{time.Second, 5 * time.Second, 10 * time.Second} {
			most := burst + int((span+late).Seconds()*2) + 1
			if n := densest(retries, span); n > most {
				t.Errorf("%d retries within %v, want %d at most", n, span, most)
			}
		}
	})
}

func TestAJobThatKillsItsWorkerIsSpentAsCrashedAndItsNeighboursAreNot(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		kills := 0
		for life := 0; life < 6; life++ {
			ctx, die := context.WithCancel(t.Context())
			w := &consumer.Worker{Conn: f.Conn, Concurrency: 4, Grace: time.Millisecond}
			w.Handle(keyed, mulligan.HandlerFunc(func(h context.Context, j *mulligan.Job) ([]byte, error) {
				f.log.note(j.ID)
				if j.ID == "poison" {
					time.Sleep(10 * time.Millisecond) // its neighbours have begun
					kills++
					die()
					runtime.Goexit()
				}
				select {
				case <-time.After(100 * time.Millisecond):
					return nil, nil
				case <-ctx.Done():
					runtime.Goexit() // the whole process is gone
				}
				return nil, h.Err()
			}))
			var run sync.WaitGroup
			run.Go(func() { _ = w.Run(ctx) })
			if life == 0 {
				time.Sleep(time.Second)
				f.publish(t, mulligan.Job{ID: "poison"})
				for i := range 30 {
					f.publish(t, mulligan.Job{ID: fmt.Sprint("innocent-", i)})
				}
			}
			time.Sleep(2 * mulligan.AckWait)
			die()
			run.Wait()
		}
		time.Sleep(time.Minute)
		if st := f.state(t, "poison"); st.State != mulligan.StatusDead || st.Record.Reason != mulligan.Crashed || kills != 3 {
			t.Errorf("the poison is %s (%+v) after %d kills, want dead as crashed after 3", st.State, st.Record, kills)
		}
		for i := range 30 {
			if st := f.state(t, fmt.Sprint("innocent-", i)); st.State != mulligan.StatusDone {
				t.Errorf("innocent %d is %s after %d runs: %+v", i, st.State, len(f.log.of(fmt.Sprint("innocent-", i))), st.Record)
			}
		}
	})
}

func TestAShutdownCostsNoAttempt(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		handle := func(ctx context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note(j.ID)
			limit := time.Second
			if j.ID == "slow" {
				limit = 8 * time.Second
			}
			select {
			case <-time.After(limit):
				return []byte("done"), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		stop := f.work(t, &consumer.Worker{Concurrency: 2, Grace: 3 * time.Second}, handle)
		f.publish(t, mulligan.Job{ID: "slow"}, mulligan.Job{ID: "quick"})
		time.Sleep(400 * time.Millisecond) // both have begun
		f.publish(t, mulligan.Job{ID: "waiting"}, mulligan.Job{ID: "waiting-2"})
		time.Sleep(100 * time.Millisecond)
		began := time.Now()
		stop()
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("the shutdown took %v with a grace of 3s", took)
		}
		if st := f.state(t, "quick"); st.State != mulligan.StatusDone {
			t.Errorf("the job that could finish within the grace period is %s", st.State)
		}
		stop = f.work(t, &consumer.Worker{}, handle)
		time.Sleep(time.Minute)
		stop()
		for _, id := range []string{"slow", "waiting", "waiting-2"} {
			if st := f.state(t, id); st.State != mulligan.StatusDone || st.Record.Attempts != 1 {
				t.Errorf("job %s is %s, record %+v; want done at attempt 1", id, st.State, st.Record)
			}
		}
	})
}

func TestADoneKeyNeverRunsAgain(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			return fmt.Append(nil, "result of run ", f.log.note(j.ID)), nil
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(time.Hour) // past what the server remembers of published IDs
		subject := mulligan.Subject(mulligan.Topology{}.JobsRoot(), keyed.Name, "x")
		if _, err := f.JS.Publish(t.Context(), subject, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		stop()
		if st := f.state(t, "x"); len(f.log.of("x")) != 1 || string(st.Record.Result.Data) != "result of run 1" {
			t.Errorf("%d runs, %s: %+v", len(f.log.of("x")), st.State, st.Record)
		}
		if c := f.Account(t); c.Held() != 0 {
			t.Errorf("%+v", c)
		}
	})
}

func TestAPanicIsAFailedAttempt(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			if j.Attempt == 1 {
				panic("nil map")
			}
			return nil, nil
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(10 * time.Second)
		stop()
		st := f.state(t, "x")
		if st.State != mulligan.StatusDone || st.Record.History[0].ErrorType != "panic" || st.Record.Attempts != 2 {
			t.Errorf("job is %s: %+v", st.State, st.Record)
		}
	})
}

func TestAJobOutlivesARestartOfTheServer(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			if f.log.note(j.ID); j.Attempt == 1 {
				return nil, mulligan.After(4*time.Second, errFlaky)
			}
			return nil, nil
		})
		f.publish(t, mulligan.Job{ID: "parked"})
		time.Sleep(time.Second)
		f.Restart(t)
		time.Sleep(time.Minute)
		stop()
		if st := f.state(t, "parked"); st.State != mulligan.StatusDone || len(f.log.of("parked")) != 2 {
			t.Errorf("job is %s after %d runs: %+v", st.State, len(f.log.of("parked")), st.Record)
		}
	})
}

func TestAJobWaitsWhileTheLedgerIsAway(t *testing.T) {
	bubble(t, keyed, func(t *testing.T, f *floor) {
		reg, lines := prometheus.NewRegistry(), new(lockedBuffer)
		w := &consumer.Worker{Metrics: metrics.New(reg), Log: zerolog.New(lines)}
		stop := f.work(t, w, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			if f.log.note(j.ID); j.Attempt == 1 {
				f.Down()
				return nil, errFlaky
			}
			return nil, nil
		})
		f.publish(t, mulligan.Job{ID: "x"})
		time.Sleep(time.Minute)
		if n := len(f.log.of("x")); n != 1 {
			t.Errorf("the job ran %d times with the ledger away", n)
		}
		if n := gauge(t, reg, "mulligan_bucket_away"); n != 1 {
			t.Errorf("the gauge shows %v while the ledger is away", n)
		}
		if n := lines.count("the bucket of records brings no answer"); n < 2 || n > 7 {
			t.Errorf("%d log lines say in a minute that the ledger is away, want one every ten seconds", n)
		}
		f.Restart(t)
		time.Sleep(2 * time.Minute)
		stop()
		if st := f.state(t, "x"); st.State != mulligan.StatusDone || st.Record.Attempts != 2 {
			t.Errorf("job is %s: %+v", st.State, st.Record)
		}
		if n, said := gauge(t, reg, "mulligan_bucket_away"), lines.count("answers again"); n != 0 || said != 1 {
			t.Errorf("the gauge shows %v and %d lines say that the ledger is back", n, said)
		}
	})
}

// lockedBuffer is what a log was written to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// gauge sums the values of a gauge.
func gauge(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func TestAHeldStreamOfRetriesIsNotInTheWayOfFreshJobs(t *testing.T) {
	kind := mulligan.Kind{Name: "llm.complete", Effect: mulligan.Pure, Policy: mulligan.Policy{Total: time.Hour, FirstDelay: 30 * time.Second, MaxDelay: 30 * time.Second}}
	bubble(t, kind, func(t *testing.T, f *floor) {
		stop := f.work(t, &consumer.Worker{}, func(_ context.Context, j *mulligan.Job) ([]byte, error) {
			f.log.note(j.ID)
			if j.User == "failing" {
				return nil, errFlaky
			}
			return nil, nil
		})
		f.publish(t, mulligan.Job{ID: "good"}) // so that it is not the downstream which fails
		f.Ran(kind.Name, "good")
		jobs := make([]mulligan.Job, 500)
		for i := range jobs {
			jobs[i] = mulligan.Job{Kind: kind.Name, ID: fmt.Sprint("failing-", i), Task: "t", User: "", Payload: []byte("x"), ContentType: "text/plain"}
			jobs[i].User = "failing"
		}
		for _, o := range f.pub.PublishMany(t.Context(), jobs) {
			if o.Err != nil {
				t.Fatal(o.Err)
			}
		}
		time.Sleep(3 * time.Second)
		began := time.Now()
		f.publish(t, mulligan.Job{ID: "fresh"})
		time.Sleep(time.Second)
		f.Ran(kind.Name, "fresh")
		if runs := f.log.of("fresh"); len(runs) != 1 || runs[0].Sub(began) > 500*time.Millisecond {
			t.Errorf("a fresh job ran %d times, want once and at once", len(runs))
		}
		stop()
		info, err := f.JS.Consumer(t.Context(), mulligan.Topology{}.JobsStream(), mulligan.DurableName(mulligan.DefaultDownstream))
		if err != nil {
			t.Fatal(err)
		}
		if n := info.CachedInfo().NumAckPending; n > 16 {
			t.Errorf("%d jobs wait as naks", n)
		}
	})
}
