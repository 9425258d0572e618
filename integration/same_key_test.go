package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

// mailAPI is a downstream that logs every call by its key and sends a mail for
// each, unless it honours keys and knows this one.
type mailAPI struct {
	*httptest.Server
	honours bool
	// hold, if set, keeps the nth call from being answered, not from having its
	// effect, until it is closed.
	hold func(n int) <-chan struct{}

	mu    sync.Mutex
	calls []string       // keys
	mails map[string]int // by key
}

func newMailAPI(t *testing.T, honours bool) *mailAPI {
	t.Helper()
	m := &mailAPI{honours: honours, mails: map[string]int{}}
	m.Server = httptest.NewServer(http.HandlerFunc(m.send))
	t.Cleanup(m.Close)
	return m
}

func (m *mailAPI) send(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	key := r.Header.Get("Idempotency-Key")
	m.mu.Lock()
	m.calls = append(m.calls, key)
	n := len(m.calls)
	if !m.honours || m.mails[key] == 0 {
		m.mails[key]++
	}
	mail := m.mails[key]
	m.mu.Unlock()
	if m.hold != nil {
		if wait := m.hold(n); wait != nil {
			<-wait
		}
	}
	if strings.Contains(key, "refuse") {
		http.Error(w, "no such customer", http.StatusBadRequest)
		return
	}
	_, _ = fmt.Fprintf(w, `{"mail":%q,"n":%d}`, key, mail)
}

func (m *mailAPI) seen() (calls []string, mails map[string]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.calls), maps.Clone(m.mails)
}

// mailKinds is a config file with one kind for each downstream.
func mailKinds(t *testing.T, effects map[mulligan.Effect]*mailAPI) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("kinds:\n")
	for _, effect := range slices.Sorted(maps.Keys(effects)) {
		fmt.Fprintf(&b, "  mail.%s:\n    effect: %s\n    downstream: %s\n    http: {url: %q, timeout: 2m}\n    policy: {attempts: 3, total: 5m}\n",
			effect, effect, effect, effects[effect].URL)
	}
	return file(t, "mail.yaml", b.String())
}

// Two workers are given one job: the first is stopped for longer than AckWait
// while it waits for the downstream's answer, and goes on after the second has
// had its turn.
func TestAWorkerThatWasStoppedAndGoesOnLeavesOneResultAndOneEffect(t *testing.T) {
	t.Parallel()
	e := natstest.Server(t)
	e.Provision(t, mulligan.Topology{})
	apis := map[mulligan.Effect]*mailAPI{mulligan.Keyed: newMailAPI(t, true), mulligan.Once: newMailAPI(t, false)}
	answer := make(chan struct{})
	for _, api := range apis {
		api.hold = func(n int) <-chan struct{} {
			if n == 1 {
				return answer
			}
			return nil
		}
	}
	start(t, "scheduler", "--server", e.URL)
	config := mailKinds(t, apis)
	first := start(t, "worker", "--server", e.URL, "--config", config)
	eventually(t, 30*time.Second, "the first worker runs", func() bool { return first.log.has("worker runs") })
	for effect := range apis {
		command(t, "publish", "mail."+string(effect), `{"to":"ada"}`, "--id", "order-1", "--server", e.URL)
		e.Accept("mail."+string(effect), "order-1")
	}
	eventually(t, 30*time.Second, "both downstreams were called", func() bool {
		k, _ := apis[mulligan.Keyed].seen()
		o, _ := apis[mulligan.Once].seen()
		return len(k) == 1 && len(o) == 1
	})
	if err := first.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	start(t, "worker", "--server", e.URL, "--config", config)
	state := func(effect mulligan.Effect) jobOf {
		return decode[jobOf](t, command(t, "job", "mail."+string(effect), "order-1", "--json", "--server", e.URL))
	}
	eventually(t, 2*mulligan.AckWait, "the second worker had its turn", func() bool {
		return state(mulligan.Keyed).State == mulligan.StatusDone && state(mulligan.Once).State == mulligan.StatusDead
	})
	if got := state(mulligan.Once); got.Reason != mulligan.InDoubt {
		t.Errorf("the once job is %+v, want it in doubt: it began, and nobody knew its end", got)
	}
	kept := state(mulligan.Keyed).Result
	if err := first.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	close(answer)
	eventually(t, 30*time.Second, "what the first worker knows settles the doubt, and the letter goes", func() bool {
		return state(mulligan.Once).State == mulligan.StatusDone && e.Account(t).Dead == 0
	})
	streams{e.JS}.settled(t, time.Minute)

	calls, mails := apis[mulligan.Keyed].seen()
	if len(calls) != 2 || calls[0] != calls[1] || mails["mail.keyed/order-1"] != 1 {
		t.Errorf("the downstream of the keyed kind saw %q, want one key twice", calls)
	}
	if got := state(mulligan.Keyed).Result; !bytes.Equal(got, kept) {
		t.Errorf("the result is %s, and was %s before: the first to be recorded stands", got, kept)
	}
	calls, mails = apis[mulligan.Once].seen()
	if len(calls) != 1 || mails["mail.once/order-1"] != 1 {
		t.Errorf("the downstream of the once kind was called %d times, want once: %v", len(calls), mails)
	}
	var sent struct{ Mail string }
	if got := state(mulligan.Once); json.Unmarshal(got.Result, &sent) != nil || sent.Mail != "mail.once/order-1" || got.Attempts != 1 {
		t.Errorf("the once job is %+v with the result %s", got, got.Result)
	}
}

// jobOf is what `job --json` says of a job.
type jobOf struct {
	State    string          `json:"state"`
	Reason   mulligan.Reason `json:"reason"`
	Attempts int             `json:"attempts"`
	Result   json.RawMessage `json:"result"`
}

// The server is started again in the middle: by then JetStream's own
// deduplication has forgotten the jobs that were acknowledged.
func TestTenThousandPublishesOfAHundredKeysMakeAHundredEffects(t *testing.T) {
	t.Parallel()
	const publishers, keys = 8, 100
	apis := map[mulligan.Effect]*mailAPI{mulligan.Keyed: newMailAPI(t, false), mulligan.Once: newMailAPI(t, false)}
	config, data := mailKinds(t, apis), t.TempDir()
	serve := func() *proc {
		return start(t, "serve", "--config", config, "--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0", "--data", data)
	}
	// half returns the file of one publisher for one half of the test: 625 jobs,
	// each half's keys in an order of its own.
	half := func(publisher, half int) string {
		var b strings.Builder
		for i := range publisherJobs / 2 {
			n := (i*7 + publisher*13 + half*31) % keys
			kind := []mulligan.Effect{mulligan.Keyed, mulligan.Once}[n%2]
			fmt.Fprintf(&b, "{\"kind\":\"mail.%s\",\"id\":\"order-%d\",\"payload\":{\"order\":%d}}\n", kind, n, n)
		}
		return file(t, "jobs.jsonl", b.String())
	}
	published := 0
	publishAll := func(h int, s *proc) {
		var all sync.WaitGroup
		for p := range publishers {
			path := half(p, h)
			published += publisherJobs / 2
			all.Go(func() { command(t, "publish", "--file", path, "--server", s.NATS) })
		}
		all.Wait()
	}
	s := serve()
	publishAll(0, s)
	if code := s.stop(t, time.Minute); code != 0 {
		t.Fatalf("serve ended with %d", code)
	}
	s = serve()
	publishAll(1, s)
	connect(t, s.NATS).settled(t, time.Minute)

	effects := 0
	for effect, api := range apis {
		calls, mails := api.seen()
		effects += len(calls)
		for key, n := range mails {
			if n != 1 {
				t.Errorf("%s: %d effects under %s", effect, n, key)
			}
		}
	}
	if published != publishers*publisherJobs || effects != keys {
		t.Errorf("%d publishes of %d keys made %d effects", published, keys, effects)
	}
	t.Logf("%d publishes of %d keys from %d processes: %d effects", published, keys, 2*publishers, effects)
}

const publisherJobs = 1250
