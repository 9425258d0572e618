package integration

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/budget"
)

func TestRetriesWaitWhileTheBucketOfBudgetsIsAway(t *testing.T) {
	t.Parallel()
	// So few that no breaker trips and every worker has slots left, should one get
	// them all.
	const failing, perJob = 12, 2
	p := newProvider(t)
	f := newFleet(t, p, 3)
	books, err := budget.OpenBooks(t.Context(), f.JS, f.Topology)
	if err != nil {
		t.Fatal(err)
	}
	back := f.putAway(t, f.Topology.BudgetBucket())
	var jobs []mulligan.Job
	for i := range failing {
		id := fmt.Sprint(flaky, "-", i)
		jobs = append(jobs, mulligan.Job{Kind: fleetKind, ID: id, User: "user-" + id, Payload: []byte(payload(id))})
	}
	f.publish(t, jobs)
	eventually(t, time.Minute, "the log of a worker says that the budgets are away", func() bool {
		return slices.ContainsFunc(f.workers, func(w *proc) bool { return w.log.has("the bucket of budgets brings no answer") })
	})
	f.arrive(t, time.Now().Add(3*time.Second), stream{50, func(n int) mulligan.Job { return mulligan.Job{ID: fmt.Sprint(fine, "-", n)} }})
	eventually(t, time.Minute, "all jobs were called", func() bool { return len(p.byJob()) == len(f.published) })
	if away := f.counts(t)["mulligan_bucket_away"]; away.sum(`bucket="budgets"`) == 0 || away.sum(`bucket="records"`) != 0 {
		t.Errorf("the gauges show %v while the bucket of budgets is away", away)
	}
	for _, v := range p.log() {
		if v.attempt != 1 {
			t.Errorf("%s was retried although nobody could grant it", v.id)
		}
	}
	back()
	streams{f.JS}.settled(t, time.Minute)

	calls := p.byJob()
	for _, j := range jobs {
		s, err := books.User(t.Context(), j.User)
		if n := len(calls[fleetKind+"/"+j.ID]); err != nil || s.Granted != perJob || s.Reserved+s.Denied != 0 || n != 1+perJob {
			t.Errorf("%s was called %d times, its user's budget is %+v, %v; want %d retries granted", j.ID, n, s, err, perJob)
		}
	}
	f.checkDone(t)
	if away := f.counts(t)["mulligan_bucket_away"]; away.sum() != 0 {
		t.Errorf("the gauges show %v when the bucket of budgets is back", away)
	}
	for i, w := range f.workers {
		if w.log.has("brings no answer") != w.log.has("the bucket of budgets answers again") {
			t.Errorf("%s does not say when the budgets went away and came back", f.names[i])
		}
	}
}

// putAway has a bucket take no more writes until back is called: its stream
// listens elsewhere, so that a write brings no answer.
func (f *fleet) putAway(t *testing.T, bucket string) (back func()) {
	t.Helper()
	s, err := f.JS.Stream(t.Context(), "KV_"+bucket)
	if err != nil {
		t.Fatal(err)
	}
	listen := func(subjects ...string) {
		t.Helper()
		cfg := s.CachedInfo().Config
		cfg.Subjects = subjects
		if _, err := f.JS.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	listen("away.>")
	return func() { listen(s.CachedInfo().Config.Subjects...) }
}
