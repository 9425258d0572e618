package mulligan_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/call"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func kinds() []mulligan.Kind {
	return []mulligan.Kind{{Name: "llm.complete", Effect: mulligan.Pure}, {Name: "email.send", Effect: mulligan.Keyed, Downstream: "mailer"}}
}

// publisher is one for both kinds on a server with the topology.
func publisher(t *testing.T) (*natstest.Env, *mulligan.Publisher) {
	t.Helper()
	e := natstest.Server(t)
	e.Provision(t, mulligan.Topology{})
	return e, &mulligan.Publisher{Conn: e.Conn, Kinds: kinds()}
}

func mustPublish(t *testing.T, e *natstest.Env, p *mulligan.Publisher, job mulligan.Job) mulligan.Receipt {
	t.Helper()
	r, err := p.Publish(t.Context(), job)
	if err != nil {
		t.Fatalf("publish %s %q: %v", job.Kind, job.ID, err)
	}
	e.Accept(r.Kind, r.ID)
	return r
}

// writeRecord puts the record of a key into the ledger, as a worker would.
func writeRecord(t *testing.T, e *natstest.Env, key string, r *mulligan.Record) {
	t.Helper()
	kv, err := e.JS.KeyValue(t.Context(), e.Topology.LedgerBucket())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), key, r.Encode()); err != nil {
		t.Fatal(err)
	}
}

// holds checks how many jobs are in the stream.
func holds(t *testing.T, e *natstest.Env, want int) {
	t.Helper()
	if got := e.Account(t).Jobs; got != want {
		t.Errorf("%d jobs are stored, want %d", got, want)
	}
}

// stores waits until so many jobs are stored: what a plain client publishes is
// not answered for.
func stores(t *testing.T, e *natstest.Env, want int) {
	t.Helper()
	deadline, tick := time.NewTimer(10*time.Second), time.NewTicker(5*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for e.Account(t).Jobs != want {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%d jobs are stored, want %d", e.Account(t).Jobs, want)
		}
	}
}

func TestAPublishedJobIsStoredAsItWasGiven(t *testing.T) {
	e, p := publisher(t)
	now := time.Now()
	job := mulligan.Job{
		Kind: "email.send", ID: "order 7", User: "ü", Task: "t", Payload: []byte{0, 255, '\r', '\n'}, ContentType: "text/plain", TraceParent: "00-1",
		NotBefore: now.Add(time.Minute).UTC(), Deadline: now.Add(time.Hour).UTC(), Header: nats.Header{"X-Odd-case": {"a", "b"}},
	}
	r := mustPublish(t, e, p, job)
	if want := (mulligan.Receipt{Kind: "email.send", ID: "order 7", Seq: r.Seq}); !reflect.DeepEqual(r, want) || r.Seq == 0 {
		t.Errorf("got receipt %+v, want %+v with a sequence", r, want)
	}
	s, err := e.JS.Stream(t.Context(), e.Topology.JobsStream())
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetMsg(t.Context(), r.Seq)
	if err != nil {
		t.Fatal(err)
	}
	kind, token := mulligan.SplitSubject(e.Topology.JobsRoot(), m.Subject)
	got, err := mulligan.OpenJob(kind, token, &nats.Msg{Header: m.Header, Data: m.Data}, m.Time)
	if err != nil || !reflect.DeepEqual(withoutWallClock(got.Job), withoutWallClock(job)) {
		t.Errorf("got %+v, %v; want %+v", got.Job, err, job)
	}
}

func withoutWallClock(j mulligan.Job) mulligan.Job {
	j.NotBefore, j.Deadline = j.NotBefore.Round(0).UTC(), j.Deadline.Round(0).UTC()
	return j
}

func TestAPureJobWithoutAnIDGetsARandomOne(t *testing.T) {
	e, p := publisher(t)
	a, b := mustPublish(t, e, p, mulligan.Job{Kind: "llm.complete"}), mustPublish(t, e, p, mulligan.Job{Kind: "llm.complete"})
	if a.ID == "" || a.ID == b.ID || a.Duplicate || b.Duplicate {
		t.Errorf("got receipts %+v and %+v, want two jobs", a, b)
	}
	holds(t, e, 2)
}

func TestAJobPublishedTwiceIsStoredOnce(t *testing.T) {
	for name, between := range map[string]func(*testing.T, *natstest.Env){
		"at once":                     func(*testing.T, *natstest.Env) {},
		"after the server's restart":  func(t *testing.T, e *natstest.Env) { e.Restart(t) },
		"by a publisher without data": nil,
	} {
		t.Run(name, func(t *testing.T) {
			e, p := publisher(t)
			for _, kind := range []string{"llm.complete", "email.send"} {
				first := mustPublish(t, e, p, mulligan.Job{Kind: kind, ID: "1", Payload: []byte("p")})
				if between == nil {
					p = &mulligan.Publisher{Conn: e.Dial(t), Kinds: kinds()}
				} else {
					between(t, e)
				}
				again := mustPublish(t, e, p, mulligan.Job{Kind: kind, ID: "1", Payload: []byte("p")})
				if again.Seq != first.Seq || !again.Duplicate || again.Unverified || again.Ended() {
					t.Errorf("%s: first %+v, then %+v; want a verified duplicate", kind, first, again)
				}
				r, err := p.Publish(t.Context(), mulligan.Job{Kind: kind, ID: "1", Payload: []byte("other")})
				if !errors.Is(err, mulligan.ErrKeyConflict) {
					t.Errorf("%s with another payload: got %+v, %v; want ErrKeyConflict", kind, r, err)
				}
			}
			holds(t, e, 2)
		})
	}
}

func TestAQueuedJobRefusesItsLikeAfterARestart(t *testing.T) {
	// Of the jobs that were acknowledged the server forgets the IDs when it
	// restarts; that a queued one refuses another is what this depends on.
	e, p := publisher(t)
	mustPublish(t, e, p, mulligan.Job{Kind: "llm.complete", ID: "1"})
	e.Restart(t)
	_, err := e.JS.Publish(t.Context(), "mulligan.jobs.llm.complete.1", nil)
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != 10077 || !strings.Contains(api.Description, "per subject") {
		t.Errorf("got %v, want 10077 that says per subject", err)
	}
}

func TestAnAcknowledgedJobPublishedAgainIsUnverified(t *testing.T) {
	e, p := publisher(t)
	r := mustPublish(t, e, p, mulligan.Job{Kind: "llm.complete", ID: "1", Payload: []byte("p")})
	s, err := e.JS.Stream(t.Context(), e.Topology.JobsStream())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteMsg(t.Context(), r.Seq); err != nil { // as its acknowledgement does
		t.Fatal(err)
	}
	e.Ran("llm.complete", "1")
	again := mustPublish(t, e, p, mulligan.Job{Kind: "llm.complete", ID: "1", Payload: []byte("other")})
	if want := (mulligan.Receipt{Kind: "llm.complete", ID: "1", Duplicate: true, Unverified: true}); !reflect.DeepEqual(again, want) {
		t.Errorf("got %+v, want %+v", again, want)
	}
	e.Restart(t) // it forgets the ID
	if r := mustPublish(t, e, p, mulligan.Job{Kind: "llm.complete", ID: "1"}); r.Duplicate || r.Seq == 0 {
		t.Errorf("got %+v, want it stored as a new job", r)
	}
}

func TestPublishingAKeyThatHasARecord(t *testing.T) {
	payload := mulligan.FingerprintOf([]byte("p"))
	result := mulligan.NewResult([]byte("sent"), stored())
	for _, tt := range []struct {
		name    string
		rec     mulligan.Record
		payload string
		want    mulligan.Receipt
		queued  int
		err     error
	}{
		{"a done key returns its result", mulligan.Record{State: mulligan.Done, Payload: payload, Result: result}, "p", mulligan.Receipt{Duplicate: true, State: mulligan.Done, Result: result}, 0, nil},
		{"a done key refuses another payload", mulligan.Record{State: mulligan.Done, Payload: payload, Result: result}, "other", mulligan.Receipt{}, 0, mulligan.ErrKeyConflict},
		{"a dead key returns its reason", mulligan.Record{State: mulligan.Dead, Payload: payload, Reason: mulligan.Expired}, "p", mulligan.Receipt{Duplicate: true, State: mulligan.Dead, Reason: mulligan.Expired}, 0, nil},
		{"a spent key returns its reason", mulligan.Record{State: mulligan.Spent, Payload: payload, Reason: mulligan.Crashed}, "p", mulligan.Receipt{Duplicate: true, State: mulligan.Spent, Reason: mulligan.Crashed}, 0, nil},
		{"a key that waits for a retry is stored again and runs once", mulligan.Record{State: mulligan.Parked, Payload: payload}, "p", mulligan.Receipt{Duplicate: true}, 1, nil},
		{"a key that waits for a retry refuses another payload", mulligan.Record{State: mulligan.Parked, Payload: payload}, "other", mulligan.Receipt{}, 0, mulligan.ErrKeyConflict},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, p := publisher(t)
			writeRecord(t, e, "email.send."+mulligan.Token("order 7"), &tt.rec)
			tt.want.Kind, tt.want.ID = "email.send", "order 7"
			for _, publish := range []func(mulligan.Job) (mulligan.Receipt, error){
				func(j mulligan.Job) (mulligan.Receipt, error) { return p.Publish(t.Context(), j) },
				func(j mulligan.Job) (mulligan.Receipt, error) {
					o := p.PublishMany(t.Context(), []mulligan.Job{j})[0]
					return o.Receipt, o.Err
				},
			} {
				got, err := publish(mulligan.Job{Kind: "email.send", ID: "order 7", Payload: []byte(tt.payload)})
				if (got.Seq != 0) != (tt.queued == 1) {
					t.Errorf("got sequence %d, want %d jobs stored", got.Seq, tt.queued)
				}
				got.Seq = 0
				if !errors.Is(err, tt.err) || !reflect.DeepEqual(got, tt.want) {
					t.Errorf("got %+v, %v; want %+v, %v", got, err, tt.want, tt.err)
				}
			}
			holds(t, e, tt.queued)
		})
	}
}

func TestAnAcknowledgedPureJobWithARecordIsCompared(t *testing.T) {
	e, p := publisher(t)
	r := mustPublish(t, e, p, mulligan.Job{Kind: "llm.complete", ID: "1", Payload: []byte("p")})
	s, err := e.JS.Stream(t.Context(), e.Topology.JobsStream())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteMsg(t.Context(), r.Seq); err != nil {
		t.Fatal(err)
	}
	writeRecord(t, e, "llm.complete.1", &mulligan.Record{State: mulligan.Done, Payload: mulligan.FingerprintOf([]byte("p")), Result: mulligan.NewResult([]byte("r"), stored())})
	again := mustPublish(t, e, p, mulligan.Job{Kind: "llm.complete", ID: "1", Payload: []byte("p")})
	if !again.Duplicate || again.Unverified || again.State != mulligan.Done || string(again.Result.Data) != "r" {
		t.Errorf("got %+v, want the result of the job that recovered", again)
	}
	if _, err := p.Publish(t.Context(), mulligan.Job{Kind: "llm.complete", ID: "1", Payload: []byte("other")}); !errors.Is(err, mulligan.ErrKeyConflict) {
		t.Errorf("with another payload: got %v, want ErrKeyConflict", err)
	}
}

func TestPublishRefuses(t *testing.T) {
	e, p := publisher(t)
	now := time.Now()
	good := mulligan.Job{Kind: "llm.complete", ID: "1"}
	for _, tt := range []struct {
		name   string
		change func(j *mulligan.Job)
		want   error
	}{
		{"a kind that it was not given", func(j *mulligan.Job) { j.Kind = "llm.other" }, mulligan.ErrUnknownKind},
		{"no kind", func(j *mulligan.Job) { j.Kind = "" }, mulligan.ErrUnknownKind},
		{"a keyed job without an ID", func(j *mulligan.Job) { j.Kind, j.ID = "email.send", "" }, mulligan.ErrNoKey},
		{"an ID over 255 bytes", func(j *mulligan.Job) { j.ID = strings.Repeat("x", 256) }, mulligan.ErrBadID},
		{"an ID that is not UTF-8", func(j *mulligan.Job) { j.ID = "\xff" }, mulligan.ErrBadID},
		{"an ID with a line end", func(j *mulligan.Job) { j.ID = "a\nb" }, mulligan.ErrBadID},
		{"an ID that ends with white space", func(j *mulligan.Job) { j.ID = "a " }, mulligan.ErrBadID},
		{"a user with a line end", func(j *mulligan.Job) { j.User = "a\r\nMulligan-Task: x" }, mulligan.ErrBadJob},
		{"a task over 255 bytes", func(j *mulligan.Job) { j.Task = strings.Repeat("x", 256) }, mulligan.ErrBadJob},
		{"a content type with a control character", func(j *mulligan.Job) { j.ContentType = "a\x00" }, mulligan.ErrBadJob},
		{"a deadline in the past", func(j *mulligan.Job) { j.Deadline = now.Add(-time.Second) }, mulligan.ErrBadJob},
		{"a deadline in 31 days", func(j *mulligan.Job) { j.Deadline = now.Add(31 * 24 * time.Hour) }, mulligan.ErrBadJob},
		{"a start after the deadline", func(j *mulligan.Job) { j.Deadline, j.NotBefore = now.Add(time.Hour), now.Add(2*time.Hour) }, mulligan.ErrBadJob},
		{"a start after the usual deadline", func(j *mulligan.Job) { j.NotBefore = now.Add(25 * time.Hour) }, mulligan.ErrBadJob},
		{"a header of Mulligan's", func(j *mulligan.Job) { j.Header = nats.Header{"mulligan-replay": {"x"}} }, mulligan.ErrBadJob},
		{"a header of the server's", func(j *mulligan.Job) { j.Header = nats.Header{"nats-rollup": {"all"}} }, mulligan.ErrBadJob},
		{"a header that has a field", func(j *mulligan.Job) { j.Header = nats.Header{"content-type": {"a"}} }, mulligan.ErrBadJob},
		{"a header name with a space", func(j *mulligan.Job) { j.Header = nats.Header{"X Team": {"a"}} }, mulligan.ErrBadJob},
		{"a header value with a line end", func(j *mulligan.Job) { j.Header = nats.Header{"X-Team": {"a\nb"}} }, mulligan.ErrBadJob},
	} {
		t.Run(tt.name, func(t *testing.T) {
			job := good
			tt.change(&job)
			r, err := p.Publish(t.Context(), job)
			if !errors.Is(err, tt.want) || strings.Contains(err.Error(), "\n") || r.Seq != 0 {
				t.Fatalf("got %+v, %v; want one line of %v", r, err, tt.want)
			}
			if o := p.PublishMany(t.Context(), []mulligan.Job{job})[0]; !errors.Is(o.Err, tt.want) {
				t.Errorf("among many: got %v, want %v", o.Err, tt.want)
			}
		})
	}
	holds(t, e, 0)
	bad := &mulligan.Publisher{Conn: e.Conn, Kinds: []mulligan.Kind{{Name: "a"}}}
	if _, err := bad.Publish(t.Context(), mulligan.Job{Kind: "a"}); !errors.Is(err, mulligan.ErrBadKind) {
		t.Errorf("a publisher with a kind without effect: got %v, want ErrBadKind", err)
	}
}

func TestAJobOfTheLargestSizeIsStoredAndOneByteMoreIsRefused(t *testing.T) {
	e, p := publisher(t)
	large := func(id string, size int) mulligan.Job {
		return mulligan.Job{Kind: "llm.complete", ID: id, User: "ü", Payload: bytes.Repeat([]byte("x"), size), Header: nats.Header{"X-Team": {"a", "bc"}}}
	}
	_, err := p.Publish(t.Context(), large("0", int(e.Conn.MaxPayload())))
	if !errors.Is(err, mulligan.ErrTooLarge) {
		t.Fatalf("got %v, want ErrTooLarge", err)
	}
	var over, limit int
	if _, err := fmt.Sscanf(err.Error(), "mulligan: payload too large: %d bytes with headers, the limit is %d", &over, &limit); err != nil {
		t.Fatalf("%v: %v", err, mulligan.ErrTooLarge)
	}
	fits := int(e.Conn.MaxPayload()) - (over - limit)
	mustPublish(t, e, p, large("1", fits))
	if _, err := p.Publish(t.Context(), large("2", fits+1)); !errors.Is(err, mulligan.ErrTooLarge) {
		t.Errorf("one byte more: got %v, want ErrTooLarge", err)
	}
	// The stream leaves room for what a replay adds, and has a limit for those
	// who do not use a Publisher too.
	const replay = 1 << 10
	raw := &nats.Msg{Subject: "mulligan.jobs.llm.complete.3", Data: bytes.Repeat([]byte("x"), limit+replay+1)}
	var api *jetstream.APIError
	if _, err := e.JS.PublishMsg(t.Context(), raw); !errors.As(err, &api) || api.ErrorCode != 10054 {
		t.Errorf("past the publisher: got %v, want 10054", err)
	}
	holds(t, e, 1)
}

func TestAServerThatIsFloodedRefusesJobsForNow(t *testing.T) {
	e := natstest.ServerWith(t, natstest.Options{MaxBuffered: 1})
	e.Provision(t, mulligan.Topology{})
	p := &mulligan.Publisher{Conn: e.Conn, Kinds: kinds()}
	mustPublish(t, e, p, mulligan.Job{Kind: "llm.complete", ID: "first"}) // looks up what it needs
	const n = 1000
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { _, errs[i] = p.Publish(t.Context(), mulligan.Job{Kind: "llm.complete", ID: fmt.Sprint(i)}) })
	}
	all.Wait()
	refused := 0
	for i, err := range errs {
		switch {
		case err == nil:
			e.Accept("llm.complete", fmt.Sprint(i))
		case errors.Is(err, mulligan.ErrUnavailable) && strings.Contains(err.Error(), "nothing was stored"):
			refused++
		default:
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
	}
	if refused == 0 || refused == n {
		t.Errorf("%d of %d were refused, want some", refused, n)
	}
	holds(t, e, 1+n-refused)
}

// Whoever publishes many floods the server by himself.
func TestOfManyJobsThoseThatAFloodedServerRefusesAreSentAgain(t *testing.T) {
	e := natstest.ServerWith(t, natstest.Options{MaxBuffered: 10})
	e.Provision(t, mulligan.Topology{})
	p := &mulligan.Publisher{Conn: e.Conn, Kinds: kinds()}
	jobs := make([]mulligan.Job, 2000)
	for i := range jobs {
		jobs[i] = mulligan.Job{Kind: "llm.complete", ID: fmt.Sprint(i)}
	}
	var again atomic.Int32
	ctx := call.With(t.Context(), func(point string) {
		if point == "publish.store before" {
			again.Add(1)
		}
	})
	for i, o := range p.PublishMany(ctx, jobs) {
		if o.Err != nil {
			t.Fatalf("job %d: %v", i, o.Err)
		}
		e.Accept("llm.complete", fmt.Sprint(i))
	}
	if again.Load() == 0 {
		t.Error("none was refused: the test shows nothing")
	}
	holds(t, e, len(jobs))
}

func TestAFullStreamRefusesJobs(t *testing.T) {
	e := natstest.Server(t)
	e.Provision(t, mulligan.Topology{JobsMaxBytes: 64 << 10})
	p := &mulligan.Publisher{Conn: e.Conn, Kinds: kinds()}
	job := func(i int) mulligan.Job {
		return mulligan.Job{Kind: "llm.complete", ID: fmt.Sprint(i), Payload: make([]byte, 8<<10)}
	}
	var err error
	for i := 0; err == nil && i < 20; i++ {
		if _, err = p.Publish(t.Context(), job(i)); err == nil {
			e.Accept("llm.complete", fmt.Sprint(i))
		}
	}
	if !errors.Is(err, mulligan.ErrStreamFull) {
		t.Fatalf("got %v, want ErrStreamFull", err)
	}
	n := e.Account(t).Jobs
	for _, o := range p.PublishMany(t.Context(), []mulligan.Job{job(100), job(101)}) {
		if !errors.Is(o.Err, mulligan.ErrStreamFull) {
			t.Errorf("among many: got %v, want ErrStreamFull", o.Err)
		}
	}
	if r, err := p.Publish(t.Context(), job(0)); err != nil || !r.Duplicate {
		t.Errorf("a queued job again: got %+v, %v; want a duplicate", r, err)
	}
	holds(t, e, n)
}

func TestPublishingWithoutTheTopology(t *testing.T) {
	e := natstest.Server(t)
	p := &mulligan.Publisher{Conn: e.Conn, Kinds: kinds()}
	if _, err := p.Publish(t.Context(), mulligan.Job{Kind: "llm.complete"}); !errors.Is(err, mulligan.ErrNoTopology) || !strings.Contains(err.Error(), "mulligan provision") {
		t.Errorf("got %v, want ErrNoTopology that says what to do", err)
	}
	e.Provision(t, mulligan.Topology{})
	if _, err := p.Publish(t.Context(), mulligan.Job{Kind: "llm.complete"}); err != nil {
		t.Fatal(err)
	}
	if err := e.JS.DeleteStream(t.Context(), e.Topology.JobsStream()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(t.Context(), mulligan.Job{Kind: "llm.complete"}); !errors.Is(err, mulligan.ErrUnavailable) || !strings.Contains(err.Error(), "mulligan provision") {
		t.Errorf("after the stream was deleted: got %v, want ErrUnavailable, since a cluster without a leader looks the same, and what to do", err)
	}
}

func TestPublishingToAServerThatIsAway(t *testing.T) {
	for _, tt := range []struct {
		name  string
		known bool // the publisher has spoken to the server before
		kind  string
		want  error
	}{
		{"a new publisher stored nothing", false, "llm.complete", mulligan.ErrUnavailable},
		{"a keyed job whose record cannot be read is not stored", true, "email.send", mulligan.ErrUnavailable},
		{"a pure job may have been stored", true, "llm.complete", mulligan.ErrUnconfirmed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, p := publisher(t)
			if tt.known {
				mustPublish(t, e, p, mulligan.Job{Kind: tt.kind, ID: "0"})
			}
			e.Down()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			began := time.Now()
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if _, err := p.Publish(ctx, mulligan.Job{Kind: tt.kind, ID: "1"}); !errors.Is(err, tt.want) {
						t.Errorf("got %v, want %v", err, tt.want)
					}
				})
			}
			wg.Go(func() {
				for _, o := range p.PublishMany(ctx, make([]mulligan.Job, 100)) {
					if o.Err == nil {
						t.Errorf("among many: got %+v, want an error", o)
					}
				}
			})
			wg.Wait()
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("they took %v, want them to end with ctx", took)
			}
			e.Restart(t)
			if tt.want == mulligan.ErrUnconfirmed { // the same ID again is safe
				mustPublish(t, e, p, mulligan.Job{Kind: tt.kind, ID: "1"})
				holds(t, e, 2)
			}
		})
	}
}

func TestPublishMany(t *testing.T) {
	e, p := publisher(t)
	writeRecord(t, e, "email.send.done", &mulligan.Record{State: mulligan.Done, Payload: mulligan.FingerprintOf(nil)})
	mustPublish(t, e, p, mulligan.Job{Kind: "llm.complete", ID: "queued"})
	const n = 5000
	jobs := make([]mulligan.Job, n)
	want := make([]error, n)
	for i := range jobs {
		jobs[i] = mulligan.Job{Kind: "llm.complete", ID: fmt.Sprint(i), Payload: []byte(fmt.Sprint(i))}
		switch i % 1000 {
		case 100:
			jobs[i].Kind, want[i] = "llm.other", mulligan.ErrUnknownKind
		case 200:
			jobs[i].ID, want[i] = "a\nb", mulligan.ErrBadID
		case 300:
			jobs[i] = mulligan.Job{Kind: "email.send"}
			want[i] = mulligan.ErrNoKey
		case 400:
			jobs[i] = mulligan.Job{Kind: "email.send", ID: "done"}
		case 500:
			jobs[i] = mulligan.Job{Kind: "llm.complete", ID: "queued"}
		case 600:
			jobs[i].ID, want[i] = "queued", mulligan.ErrKeyConflict
		case 700:
			jobs[i].Payload, want[i] = make([]byte, e.Conn.MaxPayload()), mulligan.ErrTooLarge
		}
	}
	accepted := 1
	for i, o := range p.PublishMany(t.Context(), jobs) {
		if !errors.Is(o.Err, want[i]) || o.Receipt.Kind != jobs[i].Kind || o.Receipt.ID != jobs[i].ID {
			t.Fatalf("job %d, %s %q: got %+v, want error %v", i, jobs[i].Kind, jobs[i].ID, o, want[i])
		}
		switch {
		case i%1000 == 400 && o.Receipt.State != mulligan.Done, i%1000 == 500 && !o.Receipt.Duplicate:
			t.Fatalf("job %d, %s %q: got %+v", i, jobs[i].Kind, jobs[i].ID, o)
		case o.Err == nil && !o.Receipt.Duplicate:
			accepted++
			e.Accept(o.Receipt.Kind, o.Receipt.ID)
		}
	}
	if accepted != 1+n-7*5 {
		t.Errorf("%d jobs were accepted, want %d", accepted, 1+n-7*5)
	}
	holds(t, e, accepted)
	if got := p.PublishMany(t.Context(), nil); len(got) != 0 {
		t.Errorf("no jobs: got %v", got)
	}
}
