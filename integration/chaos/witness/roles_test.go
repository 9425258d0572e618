package witness

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/natstest"
)

func TestTheSeedAloneDecides(t *testing.T) {
	met := map[string]int{}
	for n := range 4000 {
		a, b := draw(PublisherConfig{Seed: 3, Name: "publisher-4"}, n, true), draw(PublisherConfig{Seed: 3, Name: "publisher-4"}, n, true)
		if a != b {
			t.Fatalf("job %d is %+v and %+v", n, a, b)
		}
		if got := fingerprint(payload(3, &a.Published)); got != a.Payload {
			t.Fatalf("the payload of job %d changed", n)
		}
		if o := other(3, a.Published); o.Payload == a.Payload || o.ID != a.ID {
			t.Fatalf("job %d: a conflict must be another payload under its key", n)
		}
		key := keyOf(a.Kind, a.ID)
		first, again := behave(3, false, key, 1), behave(3, false, key, 1)
		if first != again {
			t.Fatalf("%s is answered %+v and %+v", key, first, again)
		}
		met[first.Class]++
		met["kind "+a.Kind]++
	}
	if a, b := draw(PublisherConfig{Seed: 3, Name: "publisher-4"}, 5, true), draw(PublisherConfig{Seed: 4, Name: "publisher-4"}, 5, true); a == b {
		t.Error("another seed gives the same job")
	}
	for _, c := range classes() {
		if n := met[c.name]; n < c.share*4/2 || n > c.share*4*2 {
			t.Errorf("%s met %d of 4000 keys, want about %d", c.name, n, c.share*4)
		}
	}
	for _, k := range kinds() {
		if met["kind "+k.name] < 100 {
			t.Errorf("of kind %s there are %d jobs", k.name, met["kind "+k.name])
		}
	}
}

func TestFourPublishersHaveFourStyles(t *testing.T) {
	seen := map[style]bool{}
	for _, name := range []string{"publisher-1", "publisher-2", "publisher-3", "publisher-4"} {
		seen[styleOf(name)] = true
	}
	if len(seen) != 4 {
		t.Errorf("got %v", seen)
	}
}

// A line that was cut must not take the next one with it.
func TestALogGoesOnBehindALineThatWasCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	j, past, err := openJournal("publisher", path)
	if err != nil || len(past) > 0 {
		t.Fatal(past, err)
	}
	tell := func(j *journal, n int) {
		if _, err := j.write(Line{Published: &Published{What: Trying, N: n, Kind: "a", ID: strconv.Itoa(n)}}); err != nil {
			t.Fatal(err)
		}
	}
	tell(j, 1)
	tell(j, 2)
	j.close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:len(whole)-20], 0o600); err != nil {
		t.Fatal(err)
	}
	j, past, err = openJournal("publisher", path)
	if err != nil || len(past) != 1 {
		t.Fatalf("of two lines, one of them cut, got %d, %v", len(past), err)
	}
	tell(j, 3)
	j.close()
	lines, torn, err := readLines(path)
	if err != nil || torn || len(lines) != 2 || lines[1].Published.N != 3 || lines[1].Role != "publisher" || lines[1].At.IsZero() {
		t.Errorf("got %+v, torn %v, %v; want the lines of jobs 1 and 3", lines, torn, err)
	}
}

func TestAPublisherGoesOnWithWhatWasNotAnswered(t *testing.T) {
	line := func(what string, n int, id string) Line {
		return Line{Published: &Published{What: what, N: n, Kind: "mail.send", ID: id, Payload: id}}
	}
	next, open := unanswered([]Line{line(Trying, 0, "a"), line(Trying, 1, "b"), line(Acked, 0, "a"), line(Trying, 2, "c"), line(Refused, 2, "c"), line(Trying, 7, "d")})
	if next != 8 || len(open) != 2 || open[0].ID != "b" || open[1].ID != "d" {
		t.Errorf("got next %d, open %+v; want 8, b and d", next, open)
	}
}

func TestARestartedPublisherPublishesTheSameKeyAgain(t *testing.T) {
	e := natstest.Server(t)
	e.Provision(t, mulligan.Topology{})
	path := filepath.Join(t.TempDir(), "publisher-1.log")
	j, _, err := openJournal("publisher", path)
	if err != nil {
		t.Fatal(err)
	}
	p := draw(PublisherConfig{Seed: 1, Name: "publisher-1"}, 0, false).Published
	p.What, p.Wait, p.Within = Trying, 0, 0
	if _, err := j.write(Line{Published: &p}); err != nil {
		t.Fatal(err)
	}
	j.close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- Publisher(ctx, PublisherConfig{Seed: 1, Name: "publisher-1", Servers: []string{e.URL}, Rate: 20, Log: path})
	}()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	lines, _, err := readLines(path)
	if err != nil {
		t.Fatal(err)
	}
	acks := map[int]int{}
	for _, l := range lines {
		if l.Published.What == Acked {
			acks[l.Published.N]++
		}
	}
	if acks[0] != 1 || acks[1] != 1 || len(acks) < 20 {
		t.Errorf("acked are %v; want job 0 from the log, and then more", acks)
	}
	jobs, err := e.JS.Stream(t.Context(), e.Topology.JobsStream())
	if err != nil {
		t.Fatal(err)
	}
	m, err := jobs.GetLastMsgForSubject(t.Context(), mulligan.Subject(e.Topology.JobsRoot(), p.Kind, mulligan.Token(p.ID)))
	if err != nil || fingerprint(m.Data) != p.Payload {
		t.Errorf("job 0 is stored with another payload, or not: %v", err)
	}
}

// life is one life of a downstream.
func life(t *testing.T, cfg DownstreamConfig) (url string, end func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serveDownstream(ctx, cfg, func() (net.Listener, error) { return l, nil }) }()
	return "http://" + l.Addr().String(), func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func post(t *testing.T, url, kind, id string) (status int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/"+kind, strings.NewReader(id))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Mulligan-Kind": kind, "Mulligan-Id": id, "Idempotency-Key": keyOf(kind, id), "Mulligan-Attempt": "1"} {
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// meets returns an ID to which the downstream behaves like this at first.
func meets(t *testing.T, seed uint64, kind, class string) string {
	t.Helper()
	for n := range 100_000 {
		if id := strconv.Itoa(n); behave(seed, false, keyOf(kind, id), 1).Class == class {
			return id
		}
	}
	t.Fatalf("no key meets %s", class)
	return ""
}

func TestADownstreamRemembersKeysAndCallsOverItsEnd(t *testing.T) {
	const seed = 5
	path := filepath.Join(t.TempDir(), "log")
	url, end := life(t, DownstreamConfig{Seed: seed, Log: path})
	dropped, flaked, posted := meets(t, seed, "pay.charge", drops), meets(t, seed, "mail.send", flaky), meets(t, seed, "pay.hook", good)
	if status, _ := post(t, url, "pay.charge", dropped); status != 0 {
		t.Errorf("a call that is dropped was answered %d", status)
	}
	if status, _ := post(t, url, "mail.send", flaked); status != 500 {
		t.Errorf("the first call is answered %d, want 500", status)
	}
	_, first := post(t, url, "pay.hook", posted)
	end()
	url, end = life(t, DownstreamConfig{Seed: seed, Log: path, Outage: true})
	for _, id := range []string{dropped, posted} { // has no effect, and takes no turn
		if status, _ := post(t, url, "pay.charge", id); status != 503 {
			t.Errorf("in an outage a call is answered %d", status)
		}
	}
	end()
	url, end = life(t, DownstreamConfig{Seed: seed, Log: path})
	status, body := post(t, url, "pay.charge", dropped)
	if want := "receipt 1 of pay.charge/" + dropped; status != 200 || body != want {
		t.Errorf("a known key is answered %d %q, want %q", status, body, want)
	}
	if _, second := post(t, url, "pay.hook", posted); second == first || second == "" {
		t.Errorf("a kind without mercy answered %q and %q", first, second)
	}
	for n := 2; ; n++ {
		status, _ := post(t, url, "mail.send", flaked)
		if want := behave(seed, false, keyOf("mail.send", flaked), n).Status; status != want {
			t.Fatalf("call %d is answered %d, want %d", n, status, want)
		}
		if status == 200 {
			break
		}
	}
	end()
	var e Evidence
	lines, _, err := readLines(path)
	if err != nil {
		t.Fatal(err)
	}
	e.addLines(lines)
	effects := map[string]int{}
	for i, c := range e.Calls {
		if c.Ended.IsZero() || c.Serial != i+1 || c.Payload != fingerprint([]byte(c.ID)) {
			t.Errorf("call %d is written down as %+v", i, c)
		}
		if c.Answer.Effect {
			effects[c.Key]++
		}
	}
	if effects["pay.charge/"+dropped] != 1 || effects["pay.hook/"+posted] != 2 || effects["mail.send/"+flaked] != 1 {
		t.Errorf("the effects are %v", effects)
	}
}

// The config is one that the program takes, and its numbers are the checker's.
func TestTheWorkersConfigSaysWhatTheCheckerExpects(t *testing.T) {
	old, upgraded := WorkerConfig(1, "worker-3", "http://127.0.0.1:1", 1), WorkerConfig(1, "worker-3", "http://127.0.0.1:1/", 2)
	if strings.Contains(old, "pay.refund") || !strings.Contains(upgraded, `url: "http://127.0.0.1:1/pay.refund"`) || strings.Count(upgraded, "X-Worker: worker-3") != len(kinds()) {
		t.Errorf("version 1 is\n%s\nversion 2 is\n%s", old, upgraded)
	}
	for _, k := range kinds() {
		if p, err := mulligan.NamedPolicy(k.policy); err == nil && (p.Attempts != k.attempts || p.Total != k.total || p.FirstDelay != k.first || p.MaxDelay != k.max) {
			t.Errorf("%s: the policy %s is %+v", k.name, k.policy, p)
		}
	}
}

func TestAnOperatorIsAskedForEverything(t *testing.T) {
	var did []string
	for die := range 10 {
		for _, reason := range []mulligan.Reason{mulligan.InDoubt, mulligan.KeyConflict, mulligan.AttemptsExhausted} {
			what := choose(reason, die)
			if reason == mulligan.KeyConflict && what != Discard || what == ResolveDone && reason != mulligan.InDoubt {
				t.Errorf("%s: %s", reason, what)
			}
			did = append(did, what)
		}
	}
	slices.Sort(did)
	if got := slices.Compact(did); len(got) != 4 {
		t.Errorf("got %v", got)
	}
}

func TestALogOfAnotherIsNoEvidence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server.log")
	if err := os.WriteFile(path, bytes.Repeat([]byte("[1] 2026/01/01 [INF] {\"role\":\"publisher\"}\n"), 3), 0o600); err != nil {
		t.Fatal(err)
	}
	if lines, _, err := readLines(path); err != nil || len(lines) > 0 {
		t.Errorf("got %v, %v", lines, err)
	}
}

func TestEveryFourthSeedHasADeadlyJob(t *testing.T) {
	for seed := range uint64(8) {
		n := 0
		for _, name := range []string{"publisher-1", "publisher-2", "publisher-3", "publisher-4"} {
			for i := range 200 {
				if p := draw(PublisherConfig{Seed: seed, Name: name}, i, true); p.ID == deadlyJob {
					n++
					if got := behave(seed, false, keyOf(p.Kind, p.ID), 3); got.Class != deadly || got.Effect {
						t.Errorf("seed %d: the deadly job is answered %+v", seed, got)
					}
				}
			}
		}
		if want := map[bool]int{true: 1}[seed%4 == 1]; n != want {
			t.Errorf("seed %d has %d deadly jobs, want %d", seed, n, want)
		}
	}
}

func TestAWorkerIsKilledByItsCallOfADeadlyJobOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log, _, err := openJournal("downstream", path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.close()
	for _, class := range []string{good, deadly} {
		if _, err := log.write(Line{Called: &Called{Worker: "w1", ID: deadlyJob, Answer: Answer{Class: class}}}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	if a, b := Killed(lines[0]), Killed(lines[1]); a != "" || b != "w1" {
		t.Errorf("a call that is well and a deadly one kill %q and %q, want nobody and w1", a, b)
	}
}

func TestAnOperatorIsAtWorkUntilItKnowsTheAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if AtWork(path) {
		t.Error("one that has not begun is at work")
	}
	log, _, err := openJournal("operator", path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.close()
	for _, answer := range []string{"", OperatorDone} {
		if _, err := log.write(Line{Operated: &Operated{What: Replay, Answer: answer}}); err != nil {
			t.Fatal(err)
		}
		if got := AtWork(path); got != (answer == "") {
			t.Errorf("with the answer %q it is at work: %v", answer, got)
		}
	}
}
