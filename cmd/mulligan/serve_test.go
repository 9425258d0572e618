package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mulligan-queue/mulligan"
	"github.com/mulligan-queue/mulligan/internal/api"
	"github.com/mulligan-queue/mulligan/internal/config"
	"github.com/mulligan-queue/mulligan/internal/doctor"
)

const patience = 15 * time.Second

// background runs the program until stop, which returns its exit code.
func background(t *testing.T, args ...string) (at ready, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	var errs strings.Builder
	code := make(chan int, 1)
	go func() {
		p := program{in: strings.NewReader(""), out: in, err: &errs}
		code <- p.run(ctx, append(args, "--json", "--log-format", "json", "--log-level", "error"))
		_ = in.Close()
	}()
	stop = func() int {
		cancel()
		select {
		case c := <-code:
			code <- c
			return c
		case <-time.After(patience):
			t.Fatalf("%q does not stop", args)
			return -1
		}
	}
	t.Cleanup(func() { stop() })
	lines := bufio.NewReader(out)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		t.Fatalf("%q ended with %d before it was ready: %s", args, stop(), errs.String())
	}
	if err := json.Unmarshal(line, &at); err != nil {
		t.Fatalf("%v in %q", err, line)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	return at, stop
}

// eventually asks again and again until the answer is yes.
func eventually(t *testing.T, what string, yes func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !yes() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// target fails the first attempt of every job, and each of those it refuses.
func target(t *testing.T) *httptest.Server {
	t.Helper()
	var calls atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		switch {
		case r.Header.Get("Mulligan-Id") == "refused":
			w.WriteHeader(http.StatusBadRequest)
		case r.Header.Get("Mulligan-Attempt") == "1":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			_, _ = fmt.Fprintf(w, `{"key":%q}`, r.Header.Get("Idempotency-Key"))
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func kindsOf(t *testing.T, url string) string {
	t.Helper()
	return write(t, "kinds.yaml", fmt.Sprintf("kinds:\n  email.send:\n    effect: keyed\n    http: {url: %q, timeout: 5s}\n    policy: {first_delay: 10ms}\n", url))
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestOneProcessServesAJobsWholeLife(t *testing.T) {
	data := t.TempDir()
	at, stop := background(t, "serve", "--data", data, "--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0", "--config", kindsOf(t, target(t).URL))
	do := func(args ...string) called { return call(t, "", append(args, "--json", "--server", at.NATS)...) }
	for _, id := range []string{"good", "refused"} {
		if c := do("publish", "email.send", "{}", "--id", id); c.code != exitDone {
			t.Fatalf("publish %s: %s", id, c.err)
		}
	}
	view := func(id string) api.JobView { return decoded[api.JobView](t, do("job", "email.send", id)) }
	eventually(t, "the good job is done", func() bool { return view("good").State == mulligan.StatusDone })
	if v := view("good"); v.Attempts != 2 || string(v.Result) == "" || len(v.History) != 2 {
		t.Errorf("the good job is %+v, want it done at its second attempt, with its result", v)
	}
	eventually(t, "the refused job is dead", func() bool { return view("refused").State == mulligan.StatusDead })

	letters := decoded[[]map[string]any](t, do("dead", "ls"))
	if len(letters) != 1 || letters[0]["id"] != "refused" || letters[0]["reason"] != "permanent" || letters[0]["error_type"] != "http_400" {
		t.Errorf("dead ls gave %v", letters)
	}
	if l := decoded[letterView](t, do("dead", "show", "email.send", "refused")); string(l.Payload) != "{}" || len(l.History) != 1 {
		t.Errorf("dead show gave %+v", l)
	}
	if r := decoded[replayedView](t, do("dead", "replay", "email.send", "refused")); r.Done || r.Seq == 0 {
		t.Errorf("dead replay gave %+v", r)
	}
	if c := do("dead", "replay", "email.send", "nobody"); c.code != exitFailed || !strings.Contains(c.err, "dead ls") {
		t.Errorf("a replay of nothing: exit %d, %s", c.code, c.err)
	}
	if kinds := decoded[[]kindView](t, do("kinds")); len(kinds) != 1 || len(kinds[0].Workers) != 1 {
		t.Errorf("kinds gave %+v, want one kind with one worker", kinds)
	}
	if found := decoded[[]doctor.Finding](t, do("doctor")); doctor.Failed(found) != 0 {
		t.Errorf("doctor found %+v", found)
	}
	if status, body := get(t, at.HTTP+"/v1/jobs/email.send/good"); status != http.StatusOK || !strings.Contains(body, `"done"`) {
		t.Errorf("over HTTP the good job is %d %s", status, body)
	}
	if status, body := get(t, at.HTTP+"/metrics"); status != http.StatusOK || !strings.Contains(body, "mulligan_attempts_total") {
		t.Errorf("the metrics are %d, %.200s", status, body)
	}
	if c := call(t, "", "serve", "--data", data, "--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0"); c.code != exitFailed || !strings.Contains(c.err, "in use") {
		t.Errorf("a second server on the data: exit %d, %s", c.code, c.err)
	}
	if code := stop(); code != exitDone {
		t.Errorf("stopped with %d, want 0", code)
	}
}

func TestRolesRunInProcessesOfTheirOwn(t *testing.T) {
	e, at := provisionedServer(t)
	file := kindsOf(t, target(t).URL)
	worker, stopWorker := background(t, at("worker", "--config", file, "--http", "127.0.0.1:0")...)
	_, stopScheduler := background(t, at("scheduler")...)
	if c := call(t, "", at("publish", "email.send", "{}", "--id", "refused")...); c.code != exitDone {
		t.Fatal(c.err)
	}
	e.Accept("email.send", "refused")
	eventually(t, "the refused job is dead", func() bool {
		return decoded[api.JobView](t, call(t, "", at("job", "email.send", "refused", "--json")...)).State == mulligan.StatusDead
	})
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/v1/jobs/email.send/refused": 404} {
		if status, _ := get(t, worker.HTTP+path); status != want {
			t.Errorf("a worker answers %s with %d, want %d", path, status, want)
		}
	}
	if w, s := stopWorker(), stopScheduler(); w != exitDone || s != exitDone {
		t.Errorf("worker and scheduler stopped with %d and %d, want 0", w, s)
	}
}

func TestTheDemoShowsRetriesAndLetters(t *testing.T) {
	at, stop := background(t, "serve", "--demo", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0", "--sync", "1s")
	if !slices.Equal(at.Kinds, []string{"email.send", "llm.complete"}) {
		t.Errorf("the demo has the kinds %v", at.Kinds)
	}
	eventually(t, "a dead letter", func() bool {
		return len(decoded[[]deadJob](t, call(t, "", "dead", "ls", "--json", "--server", at.NATS))) > 0
	})
	if code := stop(); code != exitDone {
		t.Errorf("stopped with %d, want 0", code)
	}
}

func TestAKindDeclaredLaterIsPublishedAsItIsDeclared(t *testing.T) {
	at, stop := background(t, "serve", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0", "--sync", "1s")
	post := func(key string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at.HTTP+"/v1/jobs/late.comer", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if key != "" {
			req.Header.Set("Idempotency-Key", key)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	declare := func(effect string) {
		file := write(t, "late.yaml", "kinds:\n  late.comer: {effect: "+effect+"}\n")
		if c := call(t, "", "provision", "--config", file, "--server", at.NATS); c.code != exitDone {
			t.Fatal(c.err)
		}
	}
	if status := post(""); status != http.StatusBadRequest {
		t.Errorf("an unknown kind: %d, want 400", status)
	}
	declare("pure")
	eventually(t, "the kind is known", func() bool { return post("") == http.StatusAccepted })
	declare("keyed")
	eventually(t, "it wants a key", func() bool { return post("") == http.StatusBadRequest })
	if status := post("order-1"); status != http.StatusAccepted {
		t.Errorf("with a key: %d, want 202", status)
	}
	if code := stop(); code != exitDone {
		t.Errorf("stopped with %d, want 0", code)
	}
}

func TestStagesStopInTheirOrder(t *testing.T) {
	var stopped []string
	wait := func(name string) stage {
		return stage{name, func(ctx context.Context) error {
			<-ctx.Done()
			stopped = append(stopped, name) // in turn, so without a lock
			return nil
		}}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := runStages(ctx, []stage{wait("HTTP"), wait("worker"), wait("scheduler")}); err != nil {
		t.Errorf("a clean end gave %v", err)
	}
	if want := []string{"HTTP", "worker", "scheduler"}; !slices.Equal(stopped, want) {
		t.Errorf("stopped in the order %v, want %v", stopped, want)
	}
	broken := errors.New("no streams")
	err := runStages(t.Context(), []stage{wait("HTTP"), {"worker", func(context.Context) error { return broken }}})
	if !errors.Is(err, broken) {
		t.Errorf("a stage that ends early gave %v, want its error", err)
	}
}

func TestTheDemosConfigFileSaysWhatTheDemoRuns(t *testing.T) {
	file, err := os.ReadFile("../../deploy/demo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	deployed, err := config.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	built, err := config.Parse(fmt.Appendf(nil, demoKinds, "127.0.0.1:9000"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(built.Kinds, deployed.Kinds) || !maps.Equal(built.Downstreams, deployed.Downstreams) {
		t.Errorf("the demo has %+v, deploy/demo.yaml %+v", built, deployed)
	}
	for name, target := range built.Targets {
		if d := deployed.Targets[name]; d == nil || d.URL != target.URL || d.Timeout != target.Timeout {
			t.Errorf("%s: the demo posts to %s, deploy/demo.yaml says otherwise", name, target.URL)
		}
	}
}
