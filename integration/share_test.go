package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func TestWorkersShare(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{2, 4} {
		t.Run(fmt.Sprintf("%d workers, one of which is stopped in the middle", workers), func(t *testing.T) { share(t, workers) })
	}
}

func share(t *testing.T, workers int) {
	const jobs = 2000
	e := natstest.Server(t)
	e.Provision(t, mulligan.Topology{})
	p := newProvider(t)
	p.took = 10 * time.Millisecond
	names, procs := workerNames(workers), []*proc{}
	for _, name := range names {
		procs = append(procs, start(t, "worker", "--server", e.URL, "--config", config(t, p, name)))
	}
	for i, w := range procs {
		eventually(t, 30*time.Second, names[i]+" runs", func() bool { return w.log.has("worker runs") })
	}
	var batch []mulligan.Job
	for i := range jobs {
		id := fmt.Sprintf("%s-%d", fine, i)
		batch = append(batch, mulligan.Job{Kind: keyedKind, ID: id, Payload: []byte(payload(id))})
	}
	pub := &mulligan.Publisher{Conn: e.Conn, Kinds: []mulligan.Kind{{Name: keyedKind, Effect: mulligan.Keyed}}}
	for _, o := range pub.PublishMany(t.Context(), batch) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		e.Accept(keyedKind, o.Receipt.ID)
	}
	eventually(t, time.Minute, "every worker has a part in the first fifth", func() bool {
		did := p.byWorker()
		for _, name := range names {
			if did[name] < jobs/workers/20 {
				return false
			}
		}
		return len(p.log()) > jobs/5
	})
	const grace = 25 * time.Second
	asked, had := time.Now(), p.byWorker()
	if code := procs[0].stop(t, grace); code != 0 {
		t.Errorf("%s ended with %d, want 0", names[0], code)
	}
	took, did := time.Since(asked), p.byWorker()
	streams{e.JS}.settled(t, 2*time.Minute)
	t.Logf("%s was stopped at %v, which took %v; then %v; in the end %v", names[0], had, took, did, p.byWorker())

	seen := p.byJob()
	for _, j := range batch {
		visits := seen[keyedKind+"/"+j.ID]
		st, err := pub.Status(t.Context(), j.Kind, j.ID)
		if err != nil || st.State != mulligan.StatusDone || st.Record.Attempts != 1 || len(visits) != 1 {
			t.Errorf("%s was called %d times and is %+v, %v; want done after one attempt", j.ID, len(visits), st, err)
		}
	}
	if after := p.byWorker()[names[0]]; after != did[names[0]] {
		t.Errorf("%s did %d jobs after its end", names[0], after-did[names[0]])
	}
}

func workerNames(n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprint("worker-", i+1))
	}
	return names
}
