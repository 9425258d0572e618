package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
	"github.com/mulligan-queue/mulligan/consumer"
	"github.com/mulligan-queue/mulligan/internal/natstest"
	"github.com/mulligan-queue/mulligan/scheduler"
)

// floor is a server with a worker and a scheduler in this process, and the log
// of the handler.
type floor struct {
	*natstest.Env
	pub  *mulligan.Publisher
	kind mulligan.Kind

	mu   sync.Mutex
	runs map[string][]time.Time // by ID
}

func newFloor(t *testing.T, kind mulligan.Kind) *floor {
	t.Helper()
	e := natstest.Server(t)
	e.Provision(t, mulligan.Topology{})
	return &floor{Env: e, kind: kind, runs: map[string][]time.Time{}, pub: &mulligan.Publisher{Conn: e.Conn, Kinds: []mulligan.Kind{kind}}}
}

// work runs a worker and a scheduler until the test ends.
func (f *floor) work(t *testing.T, w *consumer.Worker, h mulligan.HandlerFunc) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	w.Conn = f.Conn
	w.Handle(f.kind, mulligan.HandlerFunc(func(ctx context.Context, job *mulligan.Job) ([]byte, error) {
		f.mu.Lock()
		f.runs[job.ID] = append(f.runs[job.ID], time.Now())
		f.mu.Unlock()
		result, err := h(ctx, job)
		if err == nil {
			f.Ran(job.Kind, job.ID)
		}
		return result, err
	}))
	var both sync.WaitGroup
	for _, run := range []func(context.Context) error{w.Run, (&scheduler.Scheduler{Conn: f.Conn}).Run} {
		both.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		end()
		both.Wait()
	})
}

// publish stores jobs of the floor's kind.
func (f *floor) publish(t *testing.T, jobs ...mulligan.Job) {
	t.Helper()
	for i := range jobs {
		jobs[i].Kind = f.kind.Name
	}
	for _, o := range f.pub.PublishMany(t.Context(), jobs) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		f.Accept(f.kind.Name, o.Receipt.ID)
	}
}

func (f *floor) runsOf(id string) []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.runs[id])
}

// named are the runs of all jobs whose ID begins so, in order: the nth of each.
func (f *floor) named(prefix string, nth int) []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	var at []time.Time
	for id, runs := range f.runs {
		if strings.HasPrefix(id, prefix) && len(runs) >= nth {
			at = append(at, runs[nth-1])
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	return at
}

// plenty is for where the downstream's retries are not what is scarce.
var plenty = map[string]consumer.Downstream{mulligan.DefaultDownstream: {Ratio: 1, Cap: 1e5, Floor: 1e5}}

var errAgain = errors.New("not now")

func TestFreshJobsAreNotDelayedByRetries(t *testing.T) {
	t.Parallel()
	const failing, delay = 2000, 3 * time.Second
	f := newFloor(t, mulligan.Kind{Name: "llm.complete", Effect: mulligan.Pure, Policy: mulligan.Policy{Total: time.Minute, FirstDelay: delay, MaxDelay: delay}})
	f.work(t, &consumer.Worker{Downstreams: plenty, UserRate: budget.Rate{PerSecond: 1e5, Burst: 1e5}}, func(_ context.Context, job *mulligan.Job) ([]byte, error) {
		if strings.HasPrefix(job.ID, "failing-") && job.Attempt <= 2 {
			return nil, errAgain
		}
		return nil, nil
	})
	fresh := func(name string, until func() bool) []time.Duration {
		var took []time.Duration
		for i := 0; len(took) < 20 || !until(); i++ {
			id := fmt.Sprintf("%s-%d", name, i)
			began := time.Now()
			f.publish(t, mulligan.Job{ID: id})
			eventually(t, time.Minute, id+" ran", func() bool { return len(f.runsOf(id)) > 0 })
			took = append(took, f.runsOf(id)[0].Sub(began))
		}
		slices.Sort(took)
		return took
	}
	soon := time.Now().Add(time.Second)
	before := fresh("before", func() bool { return time.Now().After(soon) })
	var jobs []mulligan.Job
	for i := range failing {
		jobs = append(jobs, mulligan.Job{ID: fmt.Sprint("failing-", i), User: "eve"}) // one among others: it is not the downstream which fails
	}
	f.publish(t, jobs...)
	burst := fresh("burst", func() bool { return len(f.named("failing-", 1)) == failing })
	during := fresh("during", func() bool { return len(f.named("failing-", 3)) == failing })
	for _, phase := range []struct {
		name string
		took []time.Duration
	}{{"before", before}, {"behind the burst", burst}, {"while all wait and come back twice", during}} {
		n := len(phase.took)
		t.Logf("publish to handler, %s: p50 %v, p99 %v, most %v (%d jobs)", phase.name, phase.took[n/2], phase.took[n*99/100], phase.took[n-1], n)
	}
	if p99 := during[len(during)*99/100]; p99 > 2*time.Second {
		t.Errorf("p99 of fresh jobs is %v while %d jobs wait for retries of %v", p99, failing, delay)
	}
	streams{f.JS}.settled(t, time.Minute)
}

func TestAUserOverTheRateIsDeferredOnce(t *testing.T) {
	t.Parallel()
	const jobs, perSecond, burst = 60, 20, 5
	f := newFloor(t, mulligan.Kind{Name: "email.send", Effect: mulligan.Keyed, Policy: mulligan.Policy{Total: time.Minute}})
	var batch []mulligan.Job
	for i := range jobs {
		batch = append(batch, mulligan.Job{ID: fmt.Sprint("ada-", i), User: "ada"})
	}
	f.publish(t, mulligan.Job{ID: "bob's", User: "bob"}) // so that it is not the downstream which fails
	f.publish(t, batch...)
	f.work(t, &consumer.Worker{UserRate: budget.Rate{PerSecond: perSecond, Burst: burst}, Downstreams: plenty}, func(_ context.Context, job *mulligan.Job) ([]byte, error) {
		if job.Attempt == 1 && job.User == "ada" {
			return nil, errAgain
		}
		return nil, nil
	})
	streams{f.JS}.settled(t, time.Minute)

	first, retries := f.named("ada-", 1), f.named("ada-", 2)
	if len(retries) != jobs || len(f.named("ada-", 3)) != 0 {
		t.Fatalf("%d jobs were retried, %d of them more than once; want %d, once each", len(retries), len(f.named("ada-", 3)), jobs)
	}
	const interval = time.Second / perSecond
	for i, at := range retries {
		// The first failure opens the account: what comes later earns later.
		if earliest := time.Duration(i-burst+1) * interval; at.Sub(first[0]) < earliest {
			t.Errorf("retry %d ran %v after the first call, want %v at least", i+1, at.Sub(first[0]), earliest)
		}
	}
	latest := f.latest(t, batch)
	most := densest(retries, time.Second)
	t.Logf("at most %d retries within a second, all %d over %v; late by %v at most", most, jobs, retries[jobs-1].Sub(retries[0]), latest)
	// What brings them closer together is lateness, and the delay of the first
	// few, which have their places at once.
	const spread = 150 * time.Millisecond
	if limit := burst + int((time.Second+spread+latest).Seconds()*perSecond) + 1; most > limit {
		t.Errorf("%d retries came within a second, want %d at most", most, limit)
	}
	var s budget.UserState
	kv, err := f.JS.KeyValue(t.Context(), f.Topology.BudgetBucket())
	if err != nil {
		t.Fatal(err)
	}
	entry, err := kv.Get(t.Context(), "user.ada")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(entry.Value(), &s); err != nil || s.Granted+s.Reserved != jobs || s.Reserved == 0 || s.Denied != 0 {
		t.Errorf("the bucket has %+v, %v; want %d places taken", s, err, jobs)
	}
}

// latest checks that each job was put off at most once, and returns by how much
// the latest of the retries was late.
func (f *floor) latest(t *testing.T, jobs []mulligan.Job) (late time.Duration) {
	t.Helper()
	for _, j := range jobs {
		st, err := f.pub.Status(t.Context(), j.Kind, j.ID)
		if err != nil || st.State != mulligan.StatusDone || st.Record.Attempts != 2 || len(st.Record.History) != 2 {
			t.Fatalf("%s is %+v, %v; want done at the second attempt", j.ID, st, err)
		}
		a := st.Record.History[0]
		if (a.Reason == mulligan.UserBudget) != (a.Verb == mulligan.Defer) {
			t.Errorf("%s: %+v", j.ID, a)
		}
		late = max(late, st.Record.History[1].At.Sub(a.At.Add(a.Took+a.Delay)))
	}
	return late
}

// densest is how many of the sorted times lie within a span.
func densest(at []time.Time, span time.Duration) int {
	most := 0
	for from, to := 0, 0; to < len(at); to++ {
		for at[to].Sub(at[from]) >= span {
			from++
		}
		most = max(most, to-from+1)
	}
	return most
}
