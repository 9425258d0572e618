package mulligan_test

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func TestMain(m *testing.M) { os.Exit(natstest.Main(m)) }

func TestTopologyValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		top  mulligan.Topology
		err  string // empty: it is valid
	}{
		{"the zero topology is the default", mulligan.Topology{}, ""},
		{"a prefix is a word", mulligan.Topology{Prefix: "jobs-2_a", Replicas: 5, JobsMaxBytes: 1}, ""},
		{"a dot in the prefix is refused", mulligan.Topology{Prefix: "a.b"}, "prefix"},
		{"a capital in the prefix is refused", mulligan.Topology{Prefix: "Mulligan"}, "prefix"},
		{"a long prefix is refused", mulligan.Topology{Prefix: strings.Repeat("a", 33)}, "prefix"},
		{"too many replicas are refused", mulligan.Topology{Replicas: 6}, "replicas"},
		{"negative replicas are refused", mulligan.Topology{Replicas: -1}, "replicas"},
		{"a negative limit is refused", mulligan.Topology{DeadMaxBytes: -1}, "max bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.top.Validate()
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("Validate() of %+v: got %v, want %q", tt.top, err, tt.err)
			}
		})
	}
}

// streams returns the configuration of every stream that top names.
func streams(t *testing.T, e *natstest.Env, top mulligan.Topology) map[string]*jetstream.StreamInfo {
	t.Helper()
	got := map[string]*jetstream.StreamInfo{}
	for _, name := range []string{top.JobsStream(), top.RetriesStream(), top.DeadStream(), top.EventsStream(),
		"KV_" + top.LedgerBucket(), "KV_" + top.BudgetBucket(), "KV_" + top.KindsBucket()} {
		s, err := e.JS.Stream(t.Context(), name)
		if err != nil {
			t.Fatalf("stream %s: %v", name, err)
		}
		got[name] = s.CachedInfo()
	}
	return got
}

func ensure(t *testing.T, e *natstest.Env, top mulligan.Topology) {
	t.Helper()
	if err := top.Ensure(t.Context(), e.JS); err != nil {
		t.Fatal(err)
	}
}

func TestEnsureCreatesWhatIsMissing(t *testing.T) {
	e := natstest.Server(t)
	top := mulligan.Topology{Prefix: "test"}
	ensure(t, e, top)
	first := streams(t, e, top)
	jobs := first["TEST_JOBS"].Config
	if jobs.Retention != jetstream.WorkQueuePolicy || jobs.MaxMsgsPerSubject != 1 || !jobs.DiscardNewPerSubject || jobs.Discard != jetstream.DiscardNew || jobs.MaxBytes != -1 {
		t.Errorf("the stream of jobs is %+v, want a work queue with one message per subject that refuses when full", jobs)
	}
	if retries := first["TEST_RETRIES"].Config; retries.Retention != jetstream.WorkQueuePolicy || !retries.AllowMsgSchedules || retries.MaxBytes != -1 {
		t.Errorf("the stream of retries is %+v, want a work queue with schedules and no limit", retries)
	}
	if dead := first["TEST_DEAD"].Config; dead.MaxAge != 30*24*time.Hour || dead.MaxMsgsPerSubject != 1 || dead.DiscardNewPerSubject || dead.Discard != jetstream.DiscardNew {
		t.Errorf("the stream of letters is %+v, want the newest letter of each key for 30 days", dead)
	}
	if events := first["TEST_EVENTS"].Config; events.MaxBytes <= 0 || events.MaxAge != 72*time.Hour {
		t.Errorf("the stream of events is %+v, want it bounded", events)
	}
	if ledger := first["KV_test_ledger"].Config; ledger.MaxAge < 60*24*time.Hour {
		t.Errorf("records live %v, want them to outlive deadline and letter", ledger.MaxAge)
	}
	c, err := e.JS.Consumer(t.Context(), top.RetriesStream(), mulligan.SchedulerConsumer)
	if err != nil {
		t.Fatal(err)
	}

	ensure(t, e, top)
	for name, info := range streams(t, e, top) {
		if !info.Created.Equal(first[name].Created) {
			t.Errorf("stream %s was made again", name)
		}
	}
	again, err := e.JS.Consumer(t.Context(), top.RetriesStream(), mulligan.SchedulerConsumer)
	if err != nil || !again.CachedInfo().Created.Equal(c.CachedInfo().Created) {
		t.Errorf("the schedulers' consumer was made again: %v", err)
	}
}

func TestEnsureUpdatesInPlace(t *testing.T) {
	e := natstest.Server(t)
	top := mulligan.Topology{}
	old := jetstream.StreamConfig{Name: top.JobsStream(), Subjects: []string{"mulligan.jobs.old.>"}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, MaxMsgs: 1000, Metadata: map[string]string{"owner": "ops"}}
	if _, err := e.JS.CreateStream(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if _, err := e.JS.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: top.LedgerBucket(), TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.JS.Publish(t.Context(), "mulligan.jobs.old.1", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	ensure(t, e, top)
	info := streams(t, e, top)[top.JobsStream()]
	if cfg := info.Config; cfg.Subjects[0] != "mulligan.jobs.>" || cfg.MaxMsgsPerSubject != 1 || cfg.Metadata["mulligan.topology"] == "" {
		t.Errorf("the old stream is %+v, want it brought up to date", cfg)
	}
	if info.State.Msgs != 1 || info.Config.MaxMsgs != 1000 || info.Config.Metadata["owner"] != "ops" {
		t.Errorf("the old stream is %+v, want its job, limit and metadata kept", info)
	}
	if age := streams(t, e, top)["KV_"+top.LedgerBucket()].Config.MaxAge; age < 60*24*time.Hour {
		t.Errorf("the old ledger keeps records for %v", age)
	}
}

func TestEnsureKeepsAnOperatorsLimits(t *testing.T) {
	e := natstest.Server(t)
	ensure(t, e, mulligan.Topology{JobsMaxBytes: 5 << 20, DeadMaxBytes: 6 << 20, EventsMaxBytes: 7 << 20})
	top := mulligan.Topology{}
	cfg := streams(t, e, top)[top.JobsStream()].Config
	cfg.MaxMsgs, cfg.MaxBytes = 777, 4<<20
	if _, err := e.JS.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	ensure(t, e, top)
	got := streams(t, e, top)
	if jobs := got[top.JobsStream()].Config; jobs.MaxBytes != 4<<20 || jobs.MaxMsgs != 777 {
		t.Errorf("jobs are limited to %d bytes and %d messages, want what the operator set", jobs.MaxBytes, jobs.MaxMsgs)
	}
	if got[top.DeadStream()].Config.MaxBytes != 6<<20 || got[top.EventsStream()].Config.MaxBytes != 7<<20 {
		t.Errorf("letters and events lost their limits")
	}
	ensure(t, e, mulligan.Topology{JobsMaxBytes: 8 << 20})
	if n := streams(t, e, top)[top.JobsStream()].Config.MaxBytes; n != 8<<20 {
		t.Errorf("jobs are limited to %d bytes, want the limit that was asked for", n)
	}
}

func TestEnsureLeavesANewerTopologyAlone(t *testing.T) {
	e := natstest.Server(t)
	top := mulligan.Topology{}
	ensure(t, e, top)
	for name, info := range streams(t, e, top) {
		cfg := info.Config
		cfg.Metadata["mulligan.topology"], cfg.Description = "99", "newer"
		if _, err := e.JS.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatalf("stream %s: %v", name, err)
		}
	}
	c, err := e.JS.Consumer(t.Context(), top.RetriesStream(), mulligan.SchedulerConsumer)
	if err != nil {
		t.Fatal(err)
	}
	newer := c.CachedInfo().Config
	newer.Metadata["mulligan.topology"], newer.AckWait = "99", time.Hour
	if _, err := e.JS.UpdateConsumer(t.Context(), top.RetriesStream(), newer); err != nil {
		t.Fatal(err)
	}
	ensure(t, e, mulligan.Topology{JobsMaxBytes: 1 << 20})
	for name, info := range streams(t, e, top) {
		if info.Config.Metadata["mulligan.topology"] != "99" || info.Config.Description != "newer" || info.Config.MaxBytes == 1<<20 {
			t.Errorf("the newer stream %s became %+v", name, info.Config)
		}
	}
	c, err = e.JS.Consumer(t.Context(), top.RetriesStream(), mulligan.SchedulerConsumer)
	if err != nil || c.CachedInfo().Config.AckWait != time.Hour {
		t.Errorf("the newer consumer became %+v, %v", c.CachedInfo().Config, err)
	}
}

func TestEnsureFromSeveralProcessesAtOnce(t *testing.T) {
	e := natstest.Server(t)
	top := mulligan.Topology{JobsMaxBytes: 1 << 20}
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		js, err := jetstream.New(e.Dial(t))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { errs[i] = top.Ensure(t.Context(), js) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	streams(t, e, top)
}

func TestEnsureRefusesATopologyThatIsNotValid(t *testing.T) {
	e := natstest.Server(t)
	if err := (mulligan.Topology{Prefix: "A"}).Ensure(t.Context(), e.JS); err == nil {
		t.Error("a bad prefix was provisioned")
	}
}

func TestEnsureRefusesAServerWhoseMessagesAreTooSmall(t *testing.T) {
	e := natstest.ServerWith(t, natstest.Options{MaxPayload: 64 << 10})
	if err := (mulligan.Topology{}).Ensure(t.Context(), e.JS); err == nil || !strings.Contains(err.Error(), "max_payload") {
		t.Errorf("got %v, want an error that names max_payload", err)
	}
}

func TestDeclare(t *testing.T) {
	e := natstest.Server(t)
	top := mulligan.Topology{}
	if _, err := top.Declare(t.Context(), e.JS, nil); !errors.Is(err, mulligan.ErrNoTopology) {
		t.Errorf("before the topology exists: got %v, want ErrNoTopology", err)
	}
	if _, err := top.Kinds(t.Context(), e.JS); !errors.Is(err, mulligan.ErrNoTopology) {
		t.Errorf("before the topology exists: got %v, want ErrNoTopology", err)
	}
	ensure(t, e, top)
	mail, chat := normal(t, "email.send", mulligan.Keyed, "mailer"), normal(t, "chat.say", mulligan.Pure, "")
	for range 2 {
		if differed, err := top.Declare(t.Context(), e.JS, []mulligan.Kind{mail, chat}); err != nil || len(differed) != 0 {
			t.Fatalf("declared the same: got %v, %v", differed, err)
		}
	}
	moved := mail
	moved.Downstream = "other"
	differed, err := top.Declare(t.Context(), e.JS, []mulligan.Kind{moved, chat})
	if err != nil || len(differed) != 1 || differed[0] != mail {
		t.Errorf("declared differently: got %+v, %v; want %+v as it was", differed, err, mail)
	}
	got, err := top.Kinds(t.Context(), e.JS)
	if err != nil || len(got) != 2 || got[0] != chat || got[1] != moved {
		t.Errorf("declared kinds: got %+v, %v; want %+v", got, err, []mulligan.Kind{chat, moved})
	}
}

func normal(t *testing.T, name string, effect mulligan.Effect, downstream string) mulligan.Kind {
	t.Helper()
	k, err := mulligan.Kind{Name: name, Effect: effect, Downstream: downstream}.Normal()
	if err != nil {
		t.Fatal(err)
	}
	return k
}
