package integration

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The classes of jobs, which begin their IDs: what a provider answers.
const (
	fine      = "fine"      // 200
	flaky     = "flaky"     // 500 twice, then 200
	slow      = "slow"      // no answer, then 200
	throttled = "throttled" // 429 with Retry-After-Ms, then 200
	busy      = "busy"      // 429 with Retry-After, then 200
	refused   = "refused"   // 400
	broken    = "broken"    // 500 for ever
	held      = "held"      // no answer until it is let go, then 200
)

const (
	throttledHint = 700 * time.Millisecond
	busyHint      = time.Second
)

// visit is one call that a provider saw.
type visit struct {
	kind, id, key string
	worker        string // who called
	attempt       int
	at, answered  time.Time
	status        int // zero if the caller went away first
}

// provider is what the jobs are posted to: a server of its own, which honours
// idempotency keys and keeps its own log.
type provider struct {
	url  string
	t    testing.TB
	took time.Duration // by each call
	hold chan struct{} // closed to let the held go

	mu      sync.Mutex
	visits  []visit
	effects map[string]int // by key
	watch   func(n int)    // told of each call

	// fails says with which status the provider fails a call, without more ado, and
	// zero if it does not; nil for one that never does.
	fails func(v visit) int
}

func newProvider(t testing.TB) *provider {
	t.Helper()
	p := &provider{t: t, hold: make(chan struct{}), effects: map[string]int{}}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	p.url = s.URL
	return p
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := r.Header
	attempt, err := strconv.Atoi(h.Get("Mulligan-Attempt"))
	v := visit{kind: h.Get("Mulligan-Kind"), id: h.Get("Mulligan-Id"), key: h.Get("Idempotency-Key"),
		worker: h.Get("X-Worker"), attempt: attempt, at: time.Now()}
	body, berr := io.ReadAll(r.Body)
	if want := payload(v.id); err != nil || berr != nil || string(body) != want {
		p.t.Errorf("the provider got %q for %s %q at attempt %d, want %q (%v, %v)", body, v.kind, v.id, attempt, want, err, berr)
	}
	n := p.begin(v)
	v.status = p.answer(w, r, v)
	p.mu.Lock()
	defer p.mu.Unlock()
	v.answered = time.Now()
	p.visits[n] = v
}

func payload(id string) string { return fmt.Sprintf(`{"of":%q}`, id) }

func (p *provider) begin(v visit) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n = len(p.visits)
	p.visits = append(p.visits, v)
	if p.watch != nil {
		p.watch(n + 1)
	}
	return n
}

// answer writes the answer that the class of the job asks for, and returns its
// status.
func (p *provider) answer(w http.ResponseWriter, r *http.Request, v visit) int {
	if p.fails != nil {
		if status := p.fails(v); status != 0 {
			w.WriteHeader(status)
			return status
		}
	}
	class, _, _ := strings.Cut(v.id, "-")
	status := http.StatusOK
	switch {
	case class == flaky && v.attempt <= 2, class == broken:
		status = http.StatusInternalServerError
	case class == slow && v.attempt == 1:
		<-r.Context().Done()
		return 0
	case class == held:
		select {
		case <-p.hold:
		case <-r.Context().Done():
			return 0
		}
	case class == throttled && v.attempt == 1:
		w.Header().Set("Retry-After-Ms", strconv.FormatInt(throttledHint.Milliseconds(), 10))
		status = http.StatusTooManyRequests
	case class == busy && v.attempt == 1:
		w.Header().Set("Retry-After", strconv.Itoa(int(busyHint.Seconds())))
		status = http.StatusTooManyRequests
	case class == refused:
		status = http.StatusBadRequest
	}
	result := class
	if status == http.StatusOK {
		result = fmt.Sprintf(`{"effect":%d}`, p.effect(v.key))
	}
	<-time.After(p.took)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, result) // the caller may be gone
	return status
}

// effect does what the key stands for, once, and returns its number.
func (p *provider) effect(key string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.effects[key] == 0 {
		p.effects[key] = len(p.effects) + 1
	}
	return p.effects[key]
}

func (p *provider) effectOf(key string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.effects[key]
}

// log is every call so far, in the order of arrival.
func (p *provider) log() []visit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.visits)
}

// byJob is the log by kind and ID.
func (p *provider) byJob() map[string][]visit {
	jobs := map[string][]visit{}
	for _, v := range p.log() {
		jobs[v.kind+"/"+v.id] = append(jobs[v.kind+"/"+v.id], v)
	}
	return jobs
}

// byWorker counts the calls of each worker.
func (p *provider) byWorker() map[string]int {
	n := map[string]int{}
	for _, v := range p.log() {
		n[v.worker]++
	}
	return n
}

// config is a file of two kinds, one keyed and one pure, that a provider does.
// Without a provider nobody does them.
func config(t *testing.T, p *provider, worker string) string {
	t.Helper()
	const form = `
kinds:
  email.send:
    effect: keyed
    downstream: mailer
    policy: {attempts: 4, total: 60s, first_delay: 100ms, max_delay: 300ms}
    %s
  llm.complete:
    effect: pure
    downstream: llm
    policy: {attempts: 4, total: 60s, first_delay: 100ms, max_delay: 300ms}
    %[1]s
downstreams: # retries are not what is scarce here
  mailer: &plenty {ratio: 1, cap: 1000, floor: 1000}
  llm: *plenty
user_rate: {per_second: 1000, burst: 1000}
`
	http := ""
	if p != nil {
		http = fmt.Sprintf(`http: {url: "%s/do", timeout: %v, concurrency: %d, headers: {X-Worker: %q}}`, p.url, callTimeout, slots, worker)
	}
	return file(t, "kinds.yaml", fmt.Sprintf(form, http))
}

// What config says, to check against.
const (
	keyedKind, pureKind  = "email.send", "llm.complete"
	policyAttempts       = 4
	firstDelay, maxDelay = 100 * time.Millisecond, 300 * time.Millisecond
	callTimeout          = 10 * time.Second // longer than a busy machine stands still: only slow ones time out
	slots                = 16               // of each kind
)

// delayBounds are those of the policy before retry n, without a hint.
func delayBounds(n int) (low, high time.Duration) {
	d := min(firstDelay<<(n-1), maxDelay)
	return d / 2, d + d/2
}

// hintBounds are those of the delay before the first retry after a hint.
func hintBounds(hint time.Duration) (low, high time.Duration) {
	return hint, hint + max(hint/10, maxDelay/2) // maxDelay caps the base of a second
}
