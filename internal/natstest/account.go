package natstest

import (
	"context"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// A Key is a job's identity.
type Key struct{ Kind, ID string }

// Counts says where the jobs are: messages in each place, and records by state.
type Counts struct {
	Jobs, At, Due, Deferred, Spent, Dead int
	Records                              map[mulligan.State]int
}

// Held is the number of messages that a worker or scheduler still has to move.
func (c Counts) Held() int { return c.Jobs + c.At + c.Due + c.Deferred + c.Spent }

// Accept notes that a publisher was told that the job is stored. The test then
// fails at its end unless the job is done, dead, held in a stream, or Ran.
func (e *Env) Accept(kind, id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.accepted[Key{kind, id}] = true
}

// Ran notes that a handler did the job. A pure job that succeeds at its first
// attempt leaves no other trace.
func (e *Env) Ran(kind, id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ran[Key{kind, id}]++
}

// Runs is how often Ran was told of the job.
func (e *Env) Runs(kind, id string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ran[Key{kind, id}]
}

// Account counts the jobs in every stream and the records in the ledger.
func (e *Env) Account(t testing.TB) Counts {
	t.Helper()
	counts, _ := e.account(t)
	return counts
}

// Held is the number of messages that a worker or scheduler still has to move. It
// looks into the running server, for those who look again and again until there is
// none: to ask it, as Account does, costs much under the race detector. A job is
// stored among the retries before it leaves the jobs, so it is seen at one of two
// looks.
func (e *Env) Held(t testing.TB) int {
	t.Helper()
	return e.stored(t, e.Topology.JobsStream()) + e.stored(t, e.Topology.RetriesStream())
}

// stored is how many messages a stream holds.
func (e *Env) stored(t testing.TB, stream string) int {
	t.Helper()
	e.mu.Lock()
	s := e.Server
	e.mu.Unlock()
	account, err := s.JszAccount(&server.JSzOptions{Account: server.DEFAULT_GLOBAL_ACCOUNT, Streams: true})
	if err != nil {
		t.Fatalf("held: %v", err)
	}
	for _, of := range account.Streams {
		if of.Name == stream {
			return int(of.State.Msgs)
		}
	}
	t.Fatalf("held: there is no stream %s", stream)
	return 0
}

// account also returns the keys that are accounted for: in a stream, or done.
func (e *Env) account(t testing.TB) (Counts, map[string]bool) {
	t.Helper()
	ctx, cancel := bounded(t)
	defer cancel()
	c := Counts{Records: map[mulligan.State]int{}}
	safe := map[string]bool{}
	for _, place := range []struct {
		stream, root string
		tokens       int // at the end of the subject, behind the kind
		count        *int
	}{
		{e.Topology.JobsStream(), e.Topology.JobsRoot(), 1, &c.Jobs},
		{e.Topology.RetriesStream(), e.Topology.AtRoot(), 2, &c.At},
		{e.Topology.RetriesStream(), e.Topology.DueRoot(), 1, &c.Due},
		{e.Topology.RetriesStream(), e.Topology.DeferredRoot(), 1, &c.Deferred},
		{e.Topology.RetriesStream(), e.Topology.SpentRoot(), 1, &c.Spent},
		{e.Topology.DeadStream(), e.Topology.DeadRoot(), 1, &c.Dead},
	} {
		for subject, n := range e.subjects(ctx, t, place.stream, place.root+".>") {
			*place.count += int(n)
			kind, token := mulligan.SplitSubject(place.root, subject)
			if place.tokens == 2 {
				kind, token = mulligan.SplitSubject(place.root, place.root+"."+kind)
			}
			safe[mulligan.RecordKey(kind, token)] = true
		}
	}
	for key, rec := range e.records(ctx, t) {
		c.Records[rec.State]++
		safe[key] = safe[key] || rec.State == mulligan.Done
	}
	return c, safe
}

// Records is every record of the ledger, by its key.
func (e *Env) Records(t testing.TB) map[string]*mulligan.Record {
	t.Helper()
	ctx, cancel := bounded(t)
	defer cancel()
	return e.records(ctx, t)
}

func (e *Env) subjects(ctx context.Context, t testing.TB, stream, filter string) map[string]uint64 {
	t.Helper()
	s, err := e.JS.Stream(ctx, stream)
	if err != nil {
		t.Fatalf("account: stream %s: %v", stream, err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(filter))
	if err != nil {
		t.Fatalf("account: stream %s: %v", stream, err)
	}
	return info.State.Subjects
}

func (e *Env) records(ctx context.Context, t testing.TB) map[string]*mulligan.Record {
	t.Helper()
	kv, err := e.JS.KeyValue(ctx, e.Topology.LedgerBucket())
	if err != nil {
		t.Fatalf("account: ledger: %v", err)
	}
	w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		t.Fatalf("account: ledger: %v", err)
	}
	defer func() { _ = w.Stop() }()
	records := map[string]*mulligan.Record{}
	for {
		select {
		case entry := <-w.Updates():
			if entry == nil { // all that was there has come
				return records
			}
			rec, err := mulligan.DecodeRecord(entry.Value())
			if err != nil {
				t.Fatalf("account: record %s: %v", entry.Key(), err)
			}
			records[entry.Key()] = rec
		case <-ctx.Done():
			t.Fatalf("account: ledger: %v", ctx.Err())
		}
	}
}

// checkAccepted fails the test for every accepted key that was lost.
func (e *Env) checkAccepted(t testing.TB) {
	t.Helper()
	e.mu.Lock()
	accepted, ran := len(e.accepted), e.ran
	e.mu.Unlock()
	if accepted == 0 {
		return
	}
	_, safe := e.account(t)
	for k := range e.accepted {
		if !safe[mulligan.RecordKey(k.Kind, mulligan.Token(k.ID))] && ran[k] == 0 {
			t.Errorf("job %s %q was accepted and is lost: no handler did it, and it is neither done, nor dead, nor held", k.Kind, k.ID)
		}
	}
}
