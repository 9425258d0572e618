package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mulligan-queue/mulligan"
)

// fate is how a job of a class ends.
type fate struct {
	state    string
	reason   mulligan.Reason
	attempts int
	outcomes []string // of its attempts, as the metrics name them
}

func fates() map[string]fate {
	return map[string]fate{
		fine:      {mulligan.StatusDone, "", 1, []string{"ok"}},
		flaky:     {mulligan.StatusDone, "", 3, []string{"http_500", "http_500", "ok"}},
		slow:      {mulligan.StatusDone, "", 2, []string{"timeout", "ok"}},
		throttled: {mulligan.StatusDone, "", 2, []string{"http_429", "ok"}},
		busy:      {mulligan.StatusDone, "", 2, []string{"http_429", "ok"}},
		refused:   {mulligan.StatusDead, mulligan.PermanentFailure, 1, []string{"http_400"}},
		broken:    {mulligan.StatusDead, mulligan.AttemptsExhausted, policyAttempts, []string{"http_500", "http_500", "http_500", "http_500"}},
	}
}

// line is a job in a file of jobs.
type line struct {
	Kind    string          `json:"kind"`
	ID      string          `json:"id"`
	User    string          `json:"user"`
	Payload json.RawMessage `json:"payload"`
}

func (l line) class() string {
	class, _, _ := strings.Cut(l.ID, "-")
	return class
}

// load is n jobs of every class, half of them keyed.
func load(n int) []line {
	classes := []string{flaky, throttled, broken, refused, flaky, busy, fine, flaky, fine, fine}
	var lines []line
	for i := range n {
		class, kind := fine, keyedKind
		switch {
		case i%50 == 49:
			class = slow
		case i%2 == 0:
			class = classes[i/2%len(classes)]
		}
		if i/50%2 == 1 {
			kind = pureKind
		}
		user := fmt.Sprintf("user-%d", i%7)
		if class != fine { // of one user, since half of all users' failing is a downstream that fails
			user = "unlucky"
		}
		id := fmt.Sprintf("%s-%d", class, i)
		lines = append(lines, line{kind, id, user, json.RawMessage(payload(id))})
	}
	return lines
}

func jsonl(t *testing.T, lines []line) string {
	t.Helper()
	var b bytes.Buffer
	for _, l := range lines {
		if err := json.NewEncoder(&b).Encode(l); err != nil {
			t.Fatal(err)
		}
	}
	return file(t, "jobs.jsonl", b.String())
}

// publish publishes the jobs through the program, and checks that each was
// stored.
func publish(t *testing.T, server string, lines []line) {
	t.Helper()
	out := command(t, "publish", "--file", jsonl(t, lines), "--server", server, "--json")
	seqs := map[uint64]bool{}
	d := json.NewDecoder(bytes.NewReader(out))
	for d.More() {
		var got struct {
			Seq       uint64
			Duplicate bool
			Error     string
		}
		if err := d.Decode(&got); err != nil || got.Error != "" || got.Duplicate || got.Seq == 0 {
			t.Errorf("published %+v, %v", got, err)
		}
		seqs[got.Seq] = true
	}
	if len(seqs) != len(lines) {
		t.Fatalf("%d of %d jobs were stored", len(seqs), len(lines))
	}
}

// streams is a look at a server from outside.
type streams struct {
	js jetstream.JetStream
}

func connect(t testing.TB, server string) streams {
	t.Helper()
	nc, err := nats.Connect(server, nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return streams{js}
}

// left counts the messages that are still to be moved.
func (s streams) left(t testing.TB) uint64 {
	t.Helper()
	n := uint64(0)
	for _, name := range []string{"MULLIGAN_JOBS", "MULLIGAN_RETRIES"} {
		st, err := s.js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		n += st.CachedInfo().State.Msgs
	}
	return n
}

// settled waits until every job has ended.
func (s streams) settled(t testing.TB, within time.Duration) {
	t.Helper()
	eventually(t, within, "all streams are empty", func() bool { return s.left(t) == 0 })
}

// jobView is what job --json prints, and the HTTP API.
type jobView struct {
	State    string
	Attempts int
	Reason   mulligan.Reason
	Error    string
	Result   struct{ Effect int }
	History  []struct {
		Number       int
		DelaySeconds float64 `json:"delay_seconds"`
	}
}

func TestAThousandJobs(t *testing.T) {
	t.Parallel()
	const jobs = 1000
	p := newProvider(t)
	s := start(t, "serve", "--config", config(t, p, "serve"), "--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0", "--data", t.TempDir())
	lines := load(jobs)
	began := time.Now()
	publish(t, s.NATS, lines)
	published := time.Since(began)
	connect(t, s.NATS).settled(t, 2*time.Minute)
	t.Logf("%d jobs published in %v and ended after %v, with %d calls", jobs, published, time.Since(began), len(p.log()))

	t.Run("each job ended once, with the attempts that its answers ask for", func(t *testing.T) { checkFates(t, p, s, lines) })
	t.Run("the delays are the policy's", func(t *testing.T) { checkDelays(t, p, s, lines) })
	t.Run("the metrics agree", func(t *testing.T) { checkMetrics(t, s, lines) })
	t.Run("the dead letters are those that died", func(t *testing.T) {
		checkLetters(t, s, lines, func(l line) int { return fates()[l.class()].attempts })
	})
	t.Run("job says the same on the command line", func(t *testing.T) { checkCommand(t, s, lines) })
}

func (p *proc) job(t *testing.T, l line) jobView {
	t.Helper()
	return decode[jobView](t, fetch(t, p.HTTP+"/v1/jobs/"+l.Kind+"/"+url.PathEscape(l.ID)))
}

func checkFates(t *testing.T, p *provider, s *proc, lines []line) {
	seen := p.byJob()
	if len(seen) != len(lines) {
		t.Errorf("the provider saw %d jobs, want %d", len(seen), len(lines))
	}
	for _, l := range lines {
		want, visits := fates()[l.class()], seen[l.Kind+"/"+l.ID]
		if len(visits) != want.attempts {
			t.Errorf("the provider saw %s %d times, want %d", l.ID, len(visits), want.attempts)
		}
		for i, v := range visits {
			if v.attempt != i+1 || v.key != l.Kind+"/"+l.ID {
				t.Errorf("call %d of %s came as attempt %d with the key %s", i+1, l.ID, v.attempt, v.key)
			}
		}
		got := s.job(t, l)
		if l.Kind == pureKind && l.class() == fine { // nothing is kept of it
			want.state, want.attempts = mulligan.StatusUnknown, 0
		}
		if got.State != want.state || got.Reason != want.reason || got.Attempts != want.attempts || len(got.History) != want.attempts {
			t.Errorf("%s %s is %+v, want %+v", l.Kind, l.ID, got, want)
		}
		if effect := p.effectOf(l.Kind + "/" + l.ID); got.State == mulligan.StatusDone && got.Result.Effect != effect {
			t.Errorf("%s has the result %+v, the provider's is %d", l.ID, got.Result, effect)
		}
	}
}

// checkDelays checks what the records say that was planned, and what the
// provider's log says that came of it.
func checkDelays(t *testing.T, p *provider, s *proc, lines []line) {
	const lateness = 15 * time.Second // of a slow machine; only early is wrong
	planned, late := map[string][]time.Duration{}, []time.Duration{}
	seen := p.byJob()
	for _, l := range lines {
		visits := seen[l.Kind+"/"+l.ID]
		if len(visits) < 2 {
			continue
		}
		for i, a := range s.job(t, l).History[:len(visits)-1] {
			low, high := delayBounds(i + 1)
			from := visits[i].answered
			switch l.class() {
			case throttled:
				low, high = hintBounds(throttledHint)
			case busy:
				low, high = hintBounds(busyHint)
			case slow:
				from = visits[i].at // when the caller gave up is not known here
			}
			delay, gap := time.Duration(a.DelaySeconds*float64(time.Second)), visits[i+1].at.Sub(from)
			if delay < low || delay > high {
				t.Errorf("%s: the delay before retry %d is %v, the policy's is between %v and %v", l.ID, i+1, delay, low, high)
			}
			if gap < delay || gap > delay+callTimeout+lateness {
				t.Errorf("%s: retry %d came after %v, planned were %v", l.ID, i+1, gap, delay)
			}
			name := fmt.Sprintf("%s, retry %d", l.class(), i+1)
			planned[name] = append(planned[name], delay)
			if l.class() != slow {
				late = append(late, gap-delay)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(planned)) {
		d := planned[name]
		slices.Sort(d)
		low, high := d[0], d[len(d)-1]
		t.Logf("%-20s %3d delays from %v to %v, median %v", name, len(d), low, high, d[len(d)/2])
		if different := len(slices.Compact(d)); different < 2 || high-low < 10*time.Millisecond {
			t.Errorf("%s: %d different delays from %v to %v show no jitter", name, different, low, high)
		}
	}
	slices.Sort(late)
	t.Logf("retries were late by %v (least), %v (median), %v (p99), %v (most)", late[0], late[len(late)/2], late[len(late)*99/100], late[len(late)-1])
}

// counted are the samples of a counter, by their labels.
type counted map[string]int

var sample = regexp.MustCompile(`(?m)^(mulligan_\w+)\{(.*)\} ([0-9.e+]+)$`)

// metricsOf reads the counters of a process, with the label of the kind first.
func metricsOf(t testing.TB, s *proc) map[string]counted {
	t.Helper()
	all := map[string]counted{}
	for _, m := range sample.FindAllStringSubmatch(string(fetch(t, s.HTTP+"/metrics")), -1) {
		n, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Fatal(err)
		}
		if all[m[1]] == nil {
			all[m[1]] = counted{}
		}
		all[m[1]][m[2]] += int(n)
	}
	return all
}

func checkMetrics(t *testing.T, s *proc, lines []line) {
	want := map[string]counted{"mulligan_attempts_total": {}, "mulligan_done_total": {}, "mulligan_dead_letters_total": {}, "mulligan_spent_total": {}}
	retries := 0
	for _, l := range lines {
		f := fates()[l.class()]
		for _, outcome := range f.outcomes {
			want["mulligan_attempts_total"][fmt.Sprintf("kind=%q,outcome=%q", l.Kind, outcome)]++
		}
		retries += f.attempts - 1
		if f.state == mulligan.StatusDone {
			want["mulligan_done_total"][fmt.Sprintf("kind=%q", l.Kind)]++
			continue
		}
		for _, name := range []string{"mulligan_dead_letters_total", "mulligan_spent_total"} {
			want[name][fmt.Sprintf("kind=%q,reason=%q", l.Kind, f.reason)]++
		}
	}
	got := metricsOf(t, s)
	for name, w := range want {
		if !maps.Equal(got[name], w) {
			t.Errorf("%s is %v, want %v", name, got[name], w)
		}
	}
	planned := 0
	for _, name := range []string{"mulligan_retries_total", "mulligan_deferred_total"} {
		for _, n := range got[name] {
			planned += n
		}
	}
	if planned != retries {
		t.Errorf("%d retries are counted, want %d: %v, %v", planned, retries, got["mulligan_retries_total"], got["mulligan_deferred_total"])
	}
	if lost := got["mulligan_lost_evidence_total"]; len(lost) > 0 {
		t.Errorf("evidence was lost: %v", lost)
	}
}

// letter is a dead letter as the program lists it.
type letter struct {
	Kind, ID, User string
	Reason         mulligan.Reason
	Attempts       int
}

func letters(t *testing.T, s *proc) []letter {
	t.Helper()
	return decode[[]letter](t, command(t, "dead", "ls", "--limit", "100000", "--server", s.NATS, "--json"))
}

// checkLetters checks that the dead letters are exactly those of the jobs that
// die, after so many attempts.
func checkLetters(t *testing.T, s *proc, lines []line, attempts func(line) int) {
	want := map[letter]bool{}
	for _, l := range lines {
		if f := fates()[l.class()]; f.state == mulligan.StatusDead {
			want[letter{l.Kind, l.ID, l.User, f.reason, attempts(l)}] = true
		}
	}
	for _, l := range letters(t, s) {
		if !want[l] {
			t.Errorf("a letter that should not be, or is there twice: %+v", l)
		}
		delete(want, l)
	}
	for l := range want {
		t.Errorf("there is no letter %+v", l)
	}
}

// checkCommand asks for one job of each class and kind.
func checkCommand(t *testing.T, s *proc, lines []line) {
	asked := map[string]bool{}
	for _, l := range lines {
		if asked[l.Kind+l.class()] {
			continue
		}
		asked[l.Kind+l.class()] = true
		said := decode[jobView](t, answer(t, "job", l.Kind, l.ID, "--server", s.NATS, "--json"))
		if want := s.job(t, l); fmt.Sprintf("%+v", said) != fmt.Sprintf("%+v", want) {
			t.Errorf("job %s %s says\n%+v, the HTTP API\n%+v", l.Kind, l.ID, said, want)
		}
	}
}
